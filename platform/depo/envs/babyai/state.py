"""A task's start state, kept live, and exact snapshots of what can change after it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from minigrid.envs.babyai.core.verifier import SeqInstr

from depo.records import Task

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything of an episode that can change, by numbers only, so that any instance can take it.

    Objects are numbered in the order of the start state's grid, then what is carried or boxed.
    """

    task: Task
    agent: tuple[int, int, int]
    """x, y, heading."""
    steps: int
    """Low-level steps so far."""
    carrying: int
    """Number of the object carried, -1 for none."""
    cells: tuple[tuple[int, int], ...]
    """(grid index, object number) of all that stands where something could move."""
    places: tuple[Place | None, ...]
    """Each movable object's own idea of where it is."""
    doors: tuple[tuple[bool, bool], ...]
    """(open, locked) of each door."""
    verifier: tuple[Any, ...]
    """What minigrid's instructions remember."""
    outcome: str
    """Empty while the episode goes on, then "success", "failure" or "truncated"."""

    @property
    def core(self) -> tuple[Any, ...]:
        """The state without the task and the step count."""
        return (self.agent, self.carrying, self.cells, self.places, self.doors, self.verifier)


class Start:
    """The start state of one task: minigrid's live objects, which later states rearrange."""

    def __init__(self, world: Any, task: Task) -> None:
        """Generates the task in `world` (a level from `levels.make_world`)."""
        world.reset(seed=task.seed)
        self.task = task
        self.grid, self.instrs, self.room_grid = world.grid, world.instrs, world.room_grid
        self.mission: str = world.mission
        self.max_steps: int = world.max_steps
        cells = self.grid.grid
        self._free = [i for i, t in enumerate(cells) if t is None or t.type not in ("wall", "door")]
        self._doors = [t for t in cells if t is not None and t.type == "door"]
        self._movable = [cells[i] for i in self._free if cells[i] is not None]
        if world.carrying is not None:
            self._movable.append(world.carrying)
        self._movable += [t.contains for t in self._movable if t.contains is not None]
        self._number = {id(thing): number for number, thing in enumerate(self._movable)}
        self._instructions = list(_flat(self.instrs))
        self._descriptions = [
            desc
            for instr in self._instructions
            for desc in (getattr(instr, name, None) for name in ("desc", "desc_move", "desc_fixed"))
            if desc is not None
        ]
        self.first = self.save(world, "")

    def save(self, world: Any, outcome: str) -> Snapshot:
        number, cells = self._number, self.grid.grid
        x, y = world.agent_pos
        return Snapshot(
            task=self.task,
            agent=(int(x), int(y), int(world.agent_dir)),
            steps=world.step_count,
            carrying=-1 if world.carrying is None else number[id(world.carrying)],
            cells=tuple([(i, number[id(cells[i])]) for i in self._free if cells[i] is not None]),
            places=tuple([_place(thing.cur_pos) for thing in self._movable]),
            doors=tuple([(door.is_open, door.is_locked) for door in self._doors]),
            verifier=self._save_verifier(),
            outcome=outcome,
        )

    def load(self, world: Any, state: Snapshot) -> None:
        """Put `world` into `state`, a snapshot of this task."""
        world.grid, world.instrs, world.room_grid = self.grid, self.instrs, self.room_grid
        world.mission, world.max_steps = self.mission, self.max_steps
        world.agent_pos, world.agent_dir = state.agent[:2], state.agent[2]
        world.step_count = state.steps
        world.carrying = None if state.carrying < 0 else self._movable[state.carrying]
        cells = self.grid.grid
        for i in self._free:
            cells[i] = None
        for i, number in state.cells:
            cells[i] = self._movable[number]
        for thing, place in zip(self._movable, state.places, strict=True):
            thing.cur_pos = place
        for door, (is_open, is_locked) in zip(self._doors, state.doors, strict=True):
            door.is_open, door.is_locked = is_open, is_locked
        self._load_verifier(state.verifier)

    def fingerprint(self) -> bytes:
        """Digest of mission, grid, agent and what is carried: equal tasks of two levels agree."""
        state = self.first
        carried = _code(self._movable[state.carrying]) if state.carrying >= 0 else None
        what = (self.mission, self.grid.width, state.agent, carried, [_code(t) for t in self.grid.grid])
        return hashlib.blake2b(repr(what).encode(), digest_size=16).digest()

    def _save_verifier(self) -> tuple[Any, ...]:
        atoms: list[Any] = []
        for instr in self._instructions:
            if isinstance(instr, SeqInstr):
                atoms.append((instr.a_done, instr.b_done))  # type: ignore[attr-defined]
            else:
                held = getattr(instr, "preCarrying", None)
                atoms.append((instr.lastStepMatch, -1 if held is None else self._number[id(held)]))
        return (tuple(atoms), tuple([tuple(desc.obj_poss) for desc in self._descriptions]))

    def _load_verifier(self, saved: tuple[Any, ...]) -> None:
        atoms, positions = saved
        for instr, (first, second) in zip(self._instructions, atoms, strict=True):
            if isinstance(instr, SeqInstr):
                instr.a_done, instr.b_done = first, second  # type: ignore[attr-defined]
            else:
                instr.lastStepMatch = first
                instr.preCarrying = None if second < 0 else self._movable[second]
        for desc, places in zip(self._descriptions, positions, strict=True):
            desc.obj_poss = list(places)


def _flat(instr: Any) -> list[Any]:
    """An instruction and those it is made of."""
    if isinstance(instr, SeqInstr):
        return [instr, *_flat(instr.instr_a), *_flat(instr.instr_b)]
    return [instr]


def _place(position: Any) -> Place | None:
    return None if position is None else (int(position[0]), int(position[1]))


def _code(thing: Any) -> Any:
    if thing is None:
        return 0
    if thing.type == "wall":
        return 1
    return (*thing.encode(), _code(thing.contains))
