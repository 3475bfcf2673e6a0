"""A task's start state on minigrid's live objects, and later states shown on them."""

from __future__ import annotations

from typing import Any

from minigrid.envs.babyai.core.verifier import AfterInstr

from depo.envs.babyai.episode import Episode
from depo.envs.babyai.layout import FIRST_DOOR, FIRST_LOCKED, FIRST_SHUT
from depo.envs.babyai.mission import (
    SUCCESS,
    Both,
    Described,
    GoTo,
    InOrder,
    Instruction,
    Open,
    Pickup,
    PutNext,
)
from depo.envs.babyai.scenario import Scenario, compile_scenario, things_of
from depo.records import Task


class Start:
    """The start state of one task, and the minigrid level that it was made in.

    The level is the task's own until it is reset to another.
    """

    def __init__(self, world: Any, task: Task) -> None:
        """Generates the task in `world` (a level from `levels.make_world`)."""
        world.reset(seed=task.seed)
        self.task, self.world = task, world
        self._things = things_of(world)

    def scenario(self) -> Scenario:
        """The start state compiled; ask before the level is changed."""
        return compile_scenario(self.world, self.task)

    def show(self, episode: Episode) -> None:
        """Put the level into the state of `episode`, one of this task."""
        world, board, things = self.world, episode.scenario.terrain.board, self._things
        world.agent_pos, world.agent_dir = board.position(episode.place), episode.heading
        world.step_count = episode.steps
        world.carrying = None
        for x in range(world.grid.width):
            for y in range(world.grid.height):
                thing = world.grid.get(x, y)
                if thing is not None and thing.type not in ("wall", "door"):
                    world.grid.set(x, y, None)
        if episode.carrying >= 0:
            world.carrying = things[episode.carrying]
            world.carrying.cur_pos = (-1, -1)
        codes = episode.scenario.terrain.codes
        for place, number in episode.layout.at.items():
            x, y = board.position(place)
            code = codes[number]
            if code < FIRST_DOOR:
                things[number].cur_pos = (x, y)
                world.grid.set(x, y, things[number])
            else:
                door = world.grid.get(x, y)
                door.is_open, door.is_locked = code < FIRST_SHUT, code >= FIRST_LOCKED
        self._remind(world.instrs, episode.scenario.mission.instruction, episode)

    def _remind(self, instr: Any, compiled: Instruction, episode: Episode) -> None:
        """Let one of minigrid's instructions remember what its compiled form does."""
        memory = episode.memory
        match compiled:
            case Both() | InOrder():
                parts = [("a", instr.instr_a), ("b", instr.instr_b)]
                if isinstance(instr, AfterInstr):
                    parts.reverse()
                both = (compiled.first, compiled.second)
                for (name, part), other, slot in zip(parts, both, compiled.done, strict=True):
                    setattr(instr, f"{name}_done", "success" if memory[slot] == SUCCESS else "continue")
                    self._remind(part, other, episode)
            case PutNext():
                self._hold(instr, memory[compiled.held])
                self._place(instr.desc_move, compiled.moved, episode)
                self._place(instr.desc_fixed, compiled.fixed, episode)
            case Pickup():
                self._hold(instr, memory[compiled.held])
                self._place(instr.desc, compiled.target, episode)
            case Open() | GoTo():
                self._place(instr.desc, compiled.target, episode)

    def _hold(self, instr: Any, thing: int) -> None:
        instr.preCarrying = None if thing < 0 else self._things[thing]

    def _place(self, desc: Any, described: Described, episode: Episode) -> None:
        board = episode.scenario.terrain.board
        places = (*episode.memory[described.slot], *described.walls)
        desc.obj_poss = sorted(board.position(place) for place in places)
