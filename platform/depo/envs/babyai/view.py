"""What the agent sees: minigrid's 7x7 view, by table look-up instead of drawing.

Cells are addressed relative to the agent: `ahead` (0 is its own row) and `right` (negative is left).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

SIZE = 7
HALF = SIZE // 2
ROWS = SIZE + 1
"""Rows of the map that paths are planned on: one behind the agent, then the view's."""

FORWARD = ((1, 0), (0, 1), (-1, 0), (0, -1))
"""minigrid's headings: right, down, left, up."""

_OFFSETS = tuple(
    tuple(
        tuple((fx * ahead - fy * right, fy * ahead + fx * right) for right in range(-HALF, HALF + 1))
        for ahead in range(-1, SIZE)
    )
    for fx, fy in FORWARD
)
"""Heading, row (one behind first), column to the step in grid coordinates."""


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

    @property
    def cell(self) -> int:
        """Index into `Sight.blocked`."""
        return cell_index(self.ahead, self.right)


@dataclass(frozen=True, slots=True)
class Sight:
    """All that is in sight, nearest first."""

    objects: tuple[Seen, ...]
    wall_ahead: int | None
    """Steps to the wall straight ahead, where it is in sight."""
    blocked: bytes
    """1 for each cell of the map (`ROWS` x `SIZE`) that cannot be walked; unseen ones can."""
    cells: tuple[tuple[int, int], ...]
    """Grid coordinates of the cells in sight."""

    def find(self, label: str) -> Seen | None:
        return next((seen for seen in self.objects if seen.label == label), None)

    def at(self, ahead: int, right: int) -> Seen | None:
        return next((seen for seen in self.objects if (seen.ahead, seen.right) == (ahead, right)), None)


def cell_index(ahead: int, right: int) -> int:
    return (ahead + 1) * SIZE + right + HALF


@lru_cache(maxsize=1 << 14)
def _spread(lit: int, opaque: int) -> tuple[int, int]:
    """minigrid's sight rule for one row: (lit cells of this row, cells lit in the next row).

    Bits are columns from left to right. Light runs through see-through cells, first rightwards
    over the row, then leftwards, each time reaching ahead and diagonally ahead.
    """
    ahead = 0
    columns = (*((i, 1) for i in range(SIZE - 1)), *((i, -1) for i in range(SIZE - 1, 0, -1)))
    for column, side in columns:
        bit = 1 << column
        if lit & bit and not opaque & bit:
            beside = 1 << (column + side)
            lit |= beside
            ahead |= bit | beside
    return lit, ahead


def object_name(thing: Any) -> str:
    """Colour and type of a minigrid object; a door's state first."""
    if thing.type != "door":
        return f"{thing.color} {thing.type}"
    state = "open" if thing.is_open else "locked" if thing.is_locked else "closed"
    return f"{state} {thing.color} door"


def look(world: Any) -> Sight:
    """What the agent of a minigrid level sees now."""
    grid, width, height = world.grid.grid, world.grid.width, world.grid.height
    x0, y0 = world.agent_pos
    blocked = bytearray(b"\1" * (ROWS * SIZE))
    cells: list[tuple[int, int]] = []
    found: list[tuple[int, int, int, Any, int, int]] = []
    wall_ahead: int | None = None
    lit = 1 << HALF
    for row, offsets in enumerate(_OFFSETS[world.agent_dir]):
        opaque, index = 0, row * SIZE
        line: list[Any] = []
        for column, (dx, dy) in enumerate(offsets):
            x, y = x0 + dx, y0 + dy
            thing = None
            if 0 <= x < width and 0 <= y < height:
                thing = grid[y * width + x]
                blocked[index + column] = 0
                if thing is not None and not thing.see_behind():
                    opaque |= 1 << column
            else:
                opaque |= 1 << column
            line.append(thing)
        if row == 0:
            continue
        lit, following = _spread(lit, opaque)
        for column, (dx, dy) in enumerate(offsets):
            x, y = x0 + dx, y0 + dy
            if not lit >> column & 1 or not (0 <= x < width and 0 <= y < height):
                continue
            cells.append((x, y))
            thing = line[column]
            if thing is None or (row == 1 and column == HALF):
                continue
            if thing.type == "wall":
                if column == HALF and wall_ahead is None:
                    wall_ahead = row - 1
            else:
                right = column - HALF
                found.append((row - 1 + abs(right), 1 - row, right, thing, x, y))
            blocked[index + column] = not (thing.type == "door" and thing.is_open)
        lit = following
        if not lit:
            break  # nothing farther is in sight: not worth a path either, so it stays blocked
    return Sight(_numbered(found), wall_ahead, bytes(blocked), tuple(cells))


def _numbered(found: list[tuple[int, int, int, Any, int, int]]) -> tuple[Seen, ...]:
    """Objects nearest first (then farthest ahead, then from left to right), numbered by name."""
    found.sort(key=lambda item: item[:3])
    counts: dict[str, int] = {}
    objects = []
    for _, behind, right, thing, x, y in found:
        name = object_name(thing)
        counts[name] = number = counts.get(name, 0) + 1
        objects.append(Seen(name, number, thing.type, thing.color, -behind, right, x, y))
    return tuple(objects)
