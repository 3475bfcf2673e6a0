"""How AgentGym's BabyAI finds its ways.

Its search is breadth first over (cell, heading) and tries step, left, right. Two habits set its
plans apart from a textbook search: the predecessor of a state is overwritten until the state is
first expanded, and a state that was queued twice is expanded twice. It follows that the state a
search *ends* in is the textbook's, the first by step, left, right; whereas of all shortest ways
*to that state* it takes the first by right, left, step: every expansion of a layer happens in the
order in which the layer was filled, so the last one to reach a state is the first one of a search
that fills its layers the other way round. (Every move changes the parity of column + row + heading,
so that no two states of a layer are neighbours.)
"""

from __future__ import annotations

from functools import lru_cache

from depo.envs.babyai.board import DOWN, HALF, RIGHT, SIZE, UP, Board
from depo.envs.babyai.mission import LEFT as TURN_LEFT
from depo.envs.babyai.mission import RIGHT as TURN_RIGHT
from depo.envs.babyai.mission import STEP
from depo.envs.babyai.paths import FORWARD_FIRST, Layer, follow, layers

_STEP_LAST = (TURN_RIGHT, TURN_LEFT, STEP)


@lru_cache(maxsize=64)
def windows(board: Board) -> tuple[int, ...]:
    """Heading to the cells that a way may lead over, walkable or not.

    The view, and by a slip of the ranges one row behind the agent where it looks right or down, and
    one column more on its right where it looks down or left.
    """
    return tuple(
        board.area(
            range(-1 if heading in (RIGHT, DOWN) else 0, SIZE),
            range(-HALF, HALF + (1 if heading in (RIGHT, UP) else 2)),
        )
        for heading in range(4)
    )


def way(goals: Layer, free: int, board: Board) -> list[int]:
    """The moves to the nearest of `goals`, one of which can be reached."""
    moves, cell, heading = follow(layers(goals, free, board), FORWARD_FIRST, board)
    if len(moves) < 2:
        return moves
    end = (
        cell if heading == 0 else 0,
        cell if heading == 1 else 0,
        cell if heading == 2 else 0,
        cell if heading == 3 else 0,
    )
    return follow(layers(end, free, board), _STEP_LAST, board)[0]
