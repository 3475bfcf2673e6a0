"""Where things are: what never moves in a task, and what does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from depo.envs.babyai.board import Board

COLORS = ("red", "green", "blue", "purple", "yellow", "grey")
MOVABLE = ("key", "ball", "box")
DOOR_STATES = ("open", "closed", "locked")
OPEN, CLOSED, LOCKED = range(3)

FIRST_DOOR = len(MOVABLE) * len(COLORS)
"""The lowest code of a door."""
FIRST_SHUT = FIRST_DOOR + len(COLORS)
"""The lowest code of a door that is not open."""
FIRST_LOCKED = FIRST_SHUT + len(COLORS)


def code(kind: str, color: str, state: int = 0) -> int:
    """A number for all that can be seen of a thing; 36 in all."""
    if kind == "door":
        return FIRST_DOOR + state * len(COLORS) + COLORS.index(color)
    return MOVABLE.index(kind) * len(COLORS) + COLORS.index(color)


CODES = tuple(
    [(kind, color, "") for kind in MOVABLE for color in COLORS]
    + [("door", color, state) for state in DOOR_STATES for color in COLORS]
)
"""Code to (kind, colour, a door's state)."""


@dataclass(frozen=True, slots=True, eq=False)
class Terrain:
    """What stays where it is for a whole task."""

    board: Board
    walls: tuple[int, ...]
    """Planes of the walls."""
    doors: tuple[int, ...]
    wall: bytes
    """1 for each place that has a wall, or none that could be entered."""
    codes: tuple[int, ...]
    """Thing to code. A door is three things in a row, of which one is there at a time."""
    contents: tuple[int, ...]
    """Thing to the thing in it, -1 for none."""


def terrain(
    board: Board, walls: Iterable[int], doors: Iterable[int], codes: Iterable[int], contents: Iterable[int]
) -> Terrain:
    """`walls` and `doors` are places."""
    kept, shut = list(walls), bytearray(board.padding)
    for place in kept:
        shut[place] = 1
    return Terrain(board, board.planes(kept), board.planes(doors), bytes(shut), tuple(codes), tuple(contents))


class Layout:
    """Which thing is at which place; never changed once made.

    `opaque` are the planes of all that hides what is behind, `solid` those of keys, balls and boxes.
    A layout that was unpickled has neither until it is bound to its terrain.
    """

    __slots__ = ("_hash", "at", "opaque", "solid", "terrain")

    def __init__(
        self, terrain: Terrain | None, at: dict[int, int], opaque: tuple[int, ...], solid: tuple[int, ...]
    ) -> None:
        self.terrain, self.at, self.opaque, self.solid = terrain, at, opaque, solid
        self._hash = 0

    def bind(self, terrain: Terrain) -> None:
        """Work the planes out, for the terrain of this layout's task."""
        board, codes = terrain.board, terrain.codes
        shut = board.planes(place for place, thing in self.at.items() if codes[thing] >= FIRST_SHUT)
        self.solid = board.planes(place for place, thing in self.at.items() if codes[thing] < FIRST_DOOR)
        self.opaque = tuple(a | b | c for a, b, c in zip(terrain.walls, board.outside, shut, strict=True))
        self.terrain = terrain

    def taken(self, place: int) -> Layout:
        """Without the movable thing at `place`."""
        assert self.terrain is not None
        at = self.at.copy()
        del at[place]
        return Layout(self.terrain, at, self.opaque, self._flipped(self.solid, place))

    def put(self, place: int, thing: int) -> Layout:
        """With a movable thing more."""
        assert self.terrain is not None
        return Layout(self.terrain, {**self.at, place: thing}, self.opaque, self._flipped(self.solid, place))

    def turned(self, place: int, thing: int) -> Layout:
        """With the door at `place` in the state of `thing`: from open to shut, or the other way."""
        assert self.terrain is not None
        return Layout(self.terrain, {**self.at, place: thing}, self._flipped(self.opaque, place), self.solid)

    def _flipped(self, planes: tuple[int, ...], place: int) -> tuple[int, ...]:
        assert self.terrain is not None
        right, down, left, up = self.terrain.board.bits
        return (
            planes[0] ^ 1 << right[place],
            planes[1] ^ 1 << down[place],
            planes[2] ^ 1 << left[place],
            planes[3] ^ 1 << up[place],
        )

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self.at == other.at)

    def __hash__(self) -> int:
        if not self._hash:
            self._hash = hash(frozenset(self.at.items()))
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unbound, (tuple(self.at.items()),))


def _unbound(items: tuple[tuple[int, int], ...]) -> Layout:
    """A layout as it was pickled: to be bound to a terrain again."""
    return Layout(None, dict(items), (), ())


def layout(terrain: Terrain, at: dict[int, int]) -> Layout:
    """The layout that has thing `at[place]` at each place."""
    made = Layout(None, at, (), ())
    made.bind(terrain)
    return made


def door_thing(thing: int, codes: tuple[int, ...], state: int) -> int:
    """The thing that is the same door in another state."""
    return thing + state - (codes[thing] - FIRST_DOOR) // len(COLORS)
