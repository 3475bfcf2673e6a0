"""Tables for a grid held in bit planes, one plane for each heading of the agent.

A plane is one integer that holds the whole padded grid, turned so that the agent looks towards the
higher bits: what lies ahead of a cell is `side` bits up, what lies to its right 1 bit up. The
agent's surroundings are then a shift and a mask away, whatever its heading.

A *place* is the index of a cell in the padded grid. A *window* is the part of a plane around the
agent: row 0 lies behind it, row 1 is its own; bit `(ahead + 1) * side + right + 3`. A *rank*
numbers the 49 cells of the view: nearest first, then the farthest ahead, then from left to right.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

SIZE = 7
"""Rows and columns of minigrid's view."""
HALF = SIZE // 2
ROWS = SIZE + 1
"""Rows of a window."""
PAD = SIZE
RIGHT, DOWN, LEFT, UP = range(4)
"""minigrid's headings."""

VIEW = tuple(
    sorted(
        ((ahead, right) for ahead in range(SIZE) for right in range(-HALF, HALF + 1)),
        key=lambda cell: (cell[0] + abs(cell[1]), -cell[0], cell[1]),
    )
)
"""Rank to (ahead, right)."""
RANK = {cell: rank for rank, cell in enumerate(VIEW)}
FRONT = RANK[1, 0]


class Board:
    """Tables for the padded grids of one size."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.side = side = max(width, height) + 2 * PAD
        self.steps = (1, side, -1, -side)
        """Heading to the way from a place to the next."""
        self.bits = tuple(
            tuple(self._turned(heading, *divmod(place, side)[::-1]) for place in range(side * side))
            for heading in range(4)
        )
        """Heading and place to the bit of a plane."""
        self.shifts = tuple(tuple(bit - side - HALF for bit in bits) for bits in self.bits)
        """Heading and place of the agent to the lowest bit of its window."""
        self.window = (1 << ROWS * side) - 1
        self.rows = tuple(row * side for row in range(1, ROWS))
        """Lowest bit of each of the view's rows, the agent's own first."""
        self.here = self.bit(0, 0)
        self.column = sum(self.bit(ahead, 0) for ahead in range(1, SIZE))
        """The cells straight ahead."""
        ranks = [0] * (ROWS * side + 1)
        for rank, cell in enumerate(VIEW):
            ranks[self.bit(*cell).bit_length()] = rank
        self.ranks = tuple(ranks)
        """Bit length of a window's lone bit to its rank."""
        self.offsets = tuple(
            tuple(ahead * on + right * aside for ahead, right in VIEW)
            for on, aside in zip(self.steps, (*self.steps[1:], self.steps[0]), strict=True)
        )
        """Heading and rank to the way from the agent's place to the cell's."""
        self.cells = tuple(self.bit(*cell) for cell in VIEW)
        """Rank to the window's bit."""
        self.map = tuple(self.area(range(-1, last), range(-HALF, HALF + 1)) for last in range(SIZE + 1))
        """Number of the view's rows to the window's part that holds them and the row behind."""
        padding = bytearray(b"\1" * side**2)
        for place in self.inside():
            padding[place] = 0
        self.padding = bytes(padding)
        """1 for each place that is no cell of the grid."""
        self.outside = self.planes(place for place, padded in enumerate(padding) if padded)

    def bit(self, ahead: int, right: int) -> int:
        """A window's cell, as a mask."""
        return 1 << (ahead + 1) * self.side + right + HALF

    def area(self, ahead: Iterable[int], right: Iterable[int]) -> int:
        columns = list(right)
        return sum(self.bit(row, column) for row in ahead for column in columns)

    def place(self, x: int, y: int) -> int:
        return (y + PAD) * self.side + x + PAD

    def position(self, place: int) -> tuple[int, int]:
        """Grid coordinates of a place."""
        y, x = divmod(place, self.side)
        return x - PAD, y - PAD

    def inside(self) -> list[int]:
        """Places of the grid's cells, row by row as minigrid keeps them."""
        return [self.place(x, y) for y in range(self.height) for x in range(self.width)]

    def planes(self, places: Iterable[int]) -> tuple[int, ...]:
        """Heading to the plane that holds `places`."""
        kept = list(places)
        return tuple(sum(1 << bits[place] for place in kept) for bits in self.bits)

    def _turned(self, heading: int, x: int, y: int) -> int:
        last = self.side - 1
        ahead, right = ((x, y), (y, last - x), (last - x, last - y), (last - y, x))[heading]
        return ahead * self.side + right


@lru_cache(maxsize=64)
def board(width: int, height: int) -> Board:
    return Board(width, height)
