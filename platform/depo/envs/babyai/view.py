"""What the agent sees: minigrid's 7x7 view, by table look-up instead of drawing.

Cells are addressed relative to the agent: `ahead` (0 is its own row) and `right` (negative is left).
"""

from __future__ import annotations

from dataclasses import dataclass

from depo.envs.babyai.board import HALF, SIZE, VIEW, Board
from depo.envs.babyai.layout import CODES, Layout, Terrain

RANK_SHIFT = 6
CODE_MASK = (1 << RANK_SHIFT) - 1
_LINE = (1 << SIZE) - 1


class _Spread(dict[int, tuple[int, int]]):
    """minigrid's sight rule for one row: `lit << 7 | opaque` to (cells lit, cells lit in the next row).

    Bits are columns from left to right. Light runs through see-through cells, first rightwards
    over the row, then leftwards, each time reaching ahead and diagonally ahead.
    """

    def __missing__(self, key: int) -> tuple[int, int]:
        lit, opaque = key >> SIZE, key & _LINE
        ahead = 0
        columns = (*((i, 1) for i in range(SIZE - 1)), *((i, -1) for i in range(SIZE - 1, 0, -1)))
        for column, side in columns:
            bit = 1 << column
            if lit & bit and not opaque & bit:
                beside = 1 << (column + side)
                lit |= beside
                ahead |= bit | beside
        self[key] = lit, ahead
        return lit, ahead


_SPREAD = _Spread()


@dataclass(slots=True)
class View:
    """What is in sight from one place, as window masks and numbers; made anew for each state."""

    seen: int
    """The cells in sight."""
    walls: int
    things: list[int]
    """`rank << 6 | code` of each thing in sight, but for one under the agent; nearest first."""
    rows: int
    """Rows of the view that light reaches."""
    shift: int
    """The window's lowest bit in a plane."""


def look(place: int, heading: int, layout: Layout) -> View:
    """What an agent sees from a place."""
    terrain = layout.terrain
    assert terrain is not None
    board = terrain.board
    shift = board.shifts[heading][place]
    opaque = layout.opaque[heading] >> shift & board.window
    lit, seen, rows = 1 << HALF, 0, 0
    for row in board.rows:
        line, lit = _SPREAD[lit << SIZE | opaque >> row & _LINE]
        seen |= line << row
        rows += 1
        if not lit:
            break
    found = (layout.solid[heading] | terrain.doors[heading]) >> shift & seen & ~board.here
    things: list[int] = []
    if found:
        at, codes, ranks, offsets = layout.at, terrain.codes, board.ranks, board.offsets[heading]
        while found:
            low = found & -found
            found ^= low
            rank = ranks[low.bit_length()]
            things.append(rank << RANK_SHIFT | codes[at[place + offsets[rank]]])
        things.sort()
    return View(seen, terrain.walls[heading] >> shift & seen, things, rows, shift)


def wall_ahead(view: View, board: Board) -> int | None:
    """Steps to the wall straight ahead, where it is in sight."""
    column = view.walls & board.column
    return ((column & -column).bit_length() - 1) // board.side - 1 if column else None


@dataclass(frozen=True, slots=True)
class Seen:
    """An object in sight."""

    name: str
    """Colour and type; a door's state first."""
    number: int
    """Which one of that name, the nearest being 1."""
    kind: str
    color: str
    ahead: int
    right: int
    x: int
    y: int

    @property
    def label(self) -> str:
        return f"{self.name} {self.number}"


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is in sight, nearest first, for whoever looks on."""

    objects: tuple[Seen, ...]
    wall_ahead: int | None
    """Steps to the wall straight ahead, where it is in sight."""
    cells: tuple[tuple[int, int], ...]
    """Grid coordinates of the cells in sight."""

    def at(self, ahead: int, right: int) -> Seen | None:
        return next((seen for seen in self.objects if (seen.ahead, seen.right) == (ahead, right)), None)


NAMES = tuple(f"{state} {color} {kind}" if state else f"{color} {kind}" for kind, color, state in CODES)
"""Code to name: colour and type, a door's state first."""


def sight(view: View, place: int, heading: int, terrain: Terrain) -> Sight:
    """A view in words and grid coordinates."""
    board, offsets = terrain.board, terrain.board.offsets[heading]
    counts: dict[int, int] = {}
    objects = []
    for thing in view.things:
        rank, code = thing >> RANK_SHIFT, thing & CODE_MASK
        counts[code] = number = counts.get(code, 0) + 1
        kind, color, _ = CODES[code]
        objects.append(
            Seen(NAMES[code], number, kind, color, *VIEW[rank], *board.position(place + offsets[rank]))
        )
    cells = tuple(
        board.position(place + offsets[rank]) for rank, bit in enumerate(board.cells) if view.seen & bit
    )
    return Sight(tuple(objects), wall_ahead(view, board), cells)
