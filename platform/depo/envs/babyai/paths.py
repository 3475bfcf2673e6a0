"""Shortest ways through what is in sight, as minigrid's turns and steps."""

from __future__ import annotations

from dataclasses import dataclass

from depo.envs.babyai.view import ROWS, SIZE, cell_index

LEFT, RIGHT, STEP, PICKUP, DROP, TOGGLE, WAIT = range(7)
"""minigrid's low-level actions."""

_AROUND = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""Heading relative to the start (ahead, right, back, left) to the step (ahead, right)."""
_START = cell_index(0, 0) * 4


def _faced(state: int) -> int:
    """The cell in front of a state, -1 where that is off the map."""
    cell, heading = divmod(state, 4)
    ahead, right = _AROUND[heading]
    row, column = cell // SIZE + ahead, cell % SIZE + right
    return row * SIZE + column if 0 <= row < ROWS and 0 <= column < SIZE else -1


_FACED = tuple(_faced(state) for state in range(ROWS * SIZE * 4))
_MOVES = tuple(
    (
        (STEP, _FACED[state] * 4 + state % 4 if _FACED[state] >= 0 else -1),
        (LEFT, state - state % 4 + (state % 4 + 3) % 4),
        (RIGHT, state - state % 4 + (state % 4 + 1) % 4),
    )
    for state in range(ROWS * SIZE * 4)
)


@dataclass(frozen=True, slots=True)
class Routes:
    """Shortest ways to face each cell that can be faced."""

    _came: dict[int, tuple[int, int]]
    _facing: dict[int, int]

    def to(self, cell: int) -> tuple[int, ...] | None:
        """Moves after which the agent faces `cell` (a `cell_index`); None where no way leads there."""
        state = self._facing.get(cell)
        if state is None:
            return None
        moves = []
        while state != _START:
            state, move = self._came[state]
            moves.append(move)
        return tuple(reversed(moves))


def routes(blocked: bytes) -> Routes:
    """Breadth first over (cell, heading), trying step, left, right.

    `blocked` is `Sight.blocked`; a blocked cell can be faced and not entered.
    """
    came: dict[int, tuple[int, int]] = {_START: (-1, WAIT)}
    facing: dict[int, int] = {}
    queue = [_START]
    for state in queue:
        faced = _FACED[state]
        if faced >= 0 and faced not in facing:
            facing[faced] = state
        for move, following in _MOVES[state]:
            if following >= 0 and following not in came and not (move == STEP and blocked[following >> 2]):
                came[following] = (state, move)
                queue.append(following)
    return Routes(came, facing)
