"""minigrid's instructions and how it verifies them, on places and things instead of live objects.

What an instruction remembers is in the episode's `memory`, a list, so that it is saved with the
rest of the state; an instruction itself never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    AndInstr,
    BeforeInstr,
    GoToInstr,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
)

from depo.envs.babyai.board import Board
from depo.envs.babyai.layout import FIRST_DOOR, FIRST_SHUT, Layout

LEFT, RIGHT, STEP, PICKUP, DROP, TOGGLE, WAIT = range(7)
"""minigrid's low-level actions."""
CONTINUE, SUCCESS, FAILURE = range(3)


class Situation(Protocol):
    """What verifying a step needs to know: all of it as the step has left it."""

    move: int
    front: int
    """The place in front of the agent."""
    carrying: int
    layout: Layout
    memory: list[Any]


class Instruction(Protocol):
    def verify(self, now: Situation) -> int:
        """`CONTINUE`, `SUCCESS` or `FAILURE`."""
        ...


@dataclass(frozen=True, slots=True)
class Described:
    """What a description fits. Where the things are is remembered in `memory[slot]`."""

    things: frozenset[int]
    walls: frozenset[int]
    """Places of walls: one of them is "a grey object" to minigrid."""
    slot: int

    def at(self, place: int, memory: list[Any]) -> bool:
        """Whether one of them is remembered to be at a place."""
        return place in memory[self.slot] or place in self.walls


@dataclass(frozen=True, slots=True)
class Open:
    target: Described
    doors: frozenset[int]
    """Their places."""
    strict: bool

    def verify(self, now: Situation) -> int:
        if now.move != TOGGLE:
            return CONTINUE
        thing = now.layout.at.get(now.front)
        assert now.layout.terrain is not None
        code = -1 if thing is None else now.layout.terrain.codes[thing]
        if FIRST_DOOR <= code < FIRST_SHUT and now.front in self.doors:
            return SUCCESS
        return FAILURE if self.strict and code >= FIRST_DOOR else CONTINUE


@dataclass(frozen=True, slots=True)
class GoTo:
    target: Described

    def verify(self, now: Situation) -> int:
        return SUCCESS if self.target.at(now.front, now.memory) else CONTINUE


@dataclass(frozen=True, slots=True)
class Pickup:
    target: Described
    strict: bool
    held: int
    """Slot of what was carried when last verified."""

    def verify(self, now: Situation) -> int:
        before, now.memory[self.held] = now.memory[self.held], now.carrying
        if now.move != PICKUP:
            return CONTINUE
        if before < 0 and now.carrying in self.target.things:
            return SUCCESS
        return FAILURE if self.strict and now.carrying >= 0 else CONTINUE


@dataclass(frozen=True, slots=True)
class PutNext:
    moved: Described
    fixed: Described
    strict: bool
    held: int
    beside: tuple[int, ...]
    """Ways from a place to the four next to it."""

    def verify(self, now: Situation) -> int:
        before, now.memory[self.held] = now.memory[self.held], now.carrying
        if self.strict and now.move == PICKUP and now.carrying >= 0:
            return FAILURE
        if now.move != DROP or before not in self.moved.things or now.layout.at.get(now.front) != before:
            return CONTINUE
        near = any(self.fixed.at(now.front + way, now.memory) for way in self.beside)
        return SUCCESS if near else CONTINUE


@dataclass(frozen=True, slots=True)
class Both:
    first: Instruction
    second: Instruction
    done: tuple[int, int]
    """Slots of how each of the two stands."""

    def verify(self, now: Situation) -> int:
        a, b = self.done
        memory = now.memory
        if memory[a] != SUCCESS:
            memory[a] = self.first.verify(now)
        if memory[b] != SUCCESS:
            memory[b] = self.second.verify(now)
        return SUCCESS if memory[a] == memory[b] == SUCCESS else CONTINUE


@dataclass(frozen=True, slots=True)
class InOrder:
    """`first`, then `second`; which minigrid verifies on the very step that fulfils the first."""

    first: Instruction
    second: Instruction
    strict: bool
    done: tuple[int, int]

    def verify(self, now: Situation) -> int:
        a, b = self.done
        memory = now.memory
        if memory[a] != SUCCESS:
            memory[a] = status = self.first.verify(now)
            if status == FAILURE:
                return FAILURE
            if status == CONTINUE:
                early = self.strict and self.second.verify(now) == SUCCESS
                return FAILURE if early else CONTINUE
        memory[b] = status = self.second.verify(now)
        return int(status)


@dataclass(frozen=True, slots=True)
class Mission:
    """A task's instructions, compiled."""

    instruction: Instruction
    memory: tuple[Any, ...]
    """What is remembered at the start."""
    described: tuple[Described, ...]
    board: Board

    def relocate(self, now: Situation) -> None:
        """Look where the described things are, as minigrid does after each drop."""
        for described in self.described:
            places = [place for place, thing in now.layout.at.items() if thing in described.things]
            places.sort(key=self.board.position)
            now.memory[described.slot] = tuple(places)


def compile_mission(instr: Any, things: Mapping[int, int], board: Board) -> Mission:
    """minigrid's instructions, just reset; `things` maps an object's `id` to its number.

    A door counts by the number of its first state.
    """
    memory: list[Any] = []
    described: list[Described] = []

    def slot(value: Any) -> int:
        memory.append(value)
        return len(memory) - 1

    def describe(desc: Any) -> Described:
        numbers: set[int] = set()
        walls: list[int] = []
        places: list[int] = []
        for thing, (x, y) in zip(desc.obj_set, desc.obj_poss, strict=True):
            (walls if thing.type == "wall" else places).append(board.place(int(x), int(y)))
            if thing.type != "wall":
                number = things[id(thing)]
                numbers |= {number, number + 1, number + 2} if thing.type == "door" else {number}
        described.append(Described(frozenset(numbers), frozenset(walls), slot(tuple(places))))
        return described[-1]

    def held(instr: Any) -> int:
        return slot(-1 if instr.preCarrying is None else things[id(instr.preCarrying)])

    def build(instr: Any) -> Instruction:
        match instr:
            case OpenInstr():
                target = describe(instr.desc)
                return Open(target, frozenset(memory[target.slot]), instr.strict)
            case GoToInstr():
                return GoTo(describe(instr.desc))
            case PickupInstr():
                return Pickup(describe(instr.desc), instr.strict, held(instr))
            case PutNextInstr():
                moved, fixed = describe(instr.desc_move), describe(instr.desc_fixed)
                return PutNext(moved, fixed, instr.strict, held(instr), board.steps)
            case AndInstr():
                return Both(build(instr.instr_a), build(instr.instr_b), (slot(CONTINUE), slot(CONTINUE)))
            case BeforeInstr():
                first, second = build(instr.instr_a), build(instr.instr_b)
            case AfterInstr():
                second, first = build(instr.instr_a), build(instr.instr_b)
            case _:
                raise NotImplementedError(f"minigrid's {type(instr).__name__}")
        return InOrder(first, second, instr.strict, (slot(CONTINUE), slot(CONTINUE)))

    built = build(instr)
    return Mission(built, tuple(memory), tuple(described), board)
