"""A task, compiled from minigrid's start state: all that stays as it is, and the first state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from depo.envs.babyai.board import board
from depo.envs.babyai.layout import CLOSED, LOCKED, OPEN, Layout, Terrain, code, layout, terrain
from depo.envs.babyai.mission import Mission, compile_mission
from depo.records import Task


class Snapshot(NamedTuple):
    """Everything of an episode that can change, by numbers only, so that any instance can take it."""

    task: Task
    place: int
    heading: int
    steps: int
    """Low-level steps so far."""
    carrying: int
    """The thing carried, -1 for none."""
    layout: Layout
    memory: tuple[Any, ...]
    """What the mission's instructions remember."""
    outcome: str
    """Empty while the episode goes on, then "success", "failure" or "truncated"."""
    reward: float
    accepted: bool
    """With `reward`, what AgentGym's rules remember of the last action."""

    @property
    def core(self) -> tuple[Any, ...]:
        """The state without the task and the step count."""
        return (self.place, self.heading, self.carrying, self.layout, self.memory)


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """What of a task never changes. `first_layout` differs from the first state's in a level that
    hands the agent its thing at the last moment: it is as minigrid drew its first image."""

    mission: Mission
    text: str
    """The mission in minigrid's words."""
    max_steps: int
    terrain: Terrain
    first: Snapshot
    first_layout: Layout


def things_of(world: Any) -> list[Any]:
    """The movable objects of a level that was just reset, what is carried or boxed last."""
    things = [thing for thing in world.grid.grid if thing is not None and thing.type not in ("wall", "door")]
    if world.carrying is not None:
        things.append(world.carrying)
    return things + [thing.contains for thing in things if thing.contains is not None]


def compile_scenario(world: Any, task: Task) -> Scenario:
    """From a minigrid level that was just reset to `task`."""
    table = board(world.grid.width, world.grid.height)
    cells = list(zip(table.inside(), world.grid.grid, strict=True))
    doors = [(place, thing) for place, thing in cells if thing is not None and thing.type == "door"]
    movable = things_of(world)
    codes = [code(thing.type, thing.color) for thing in movable]
    numbers = {id(thing): number for number, thing in enumerate(movable)}
    contents = [-1 if thing.contains is None else numbers[id(thing.contains)] for thing in movable]
    for _, door in doors:
        numbers[id(door)] = len(codes)
        codes += [code("door", door.color, state) for state in (OPEN, CLOSED, LOCKED)]
        contents += [-1] * 3
    ground = terrain(
        table,
        (place for place, thing in cells if thing is not None and thing.type == "wall"),
        (place for place, _ in doors),
        codes,
        contents,
    )
    at = {place: numbers[id(thing)] for place, thing in cells if id(thing) in numbers}
    for place, door in doors:
        at[place] += OPEN if door.is_open else LOCKED if door.is_locked else CLOSED
    x, y = world.agent_pos
    carried = world.carrying
    placed = first = layout(ground, at)
    if carried is not None:
        first = placed.put(table.place(*map(int, carried.init_pos)), numbers[id(carried)])
    mission = compile_mission(world.instrs, numbers, table)
    start = Snapshot(
        task=task,
        place=table.place(int(x), int(y)),
        heading=int(world.agent_dir),
        steps=world.step_count,
        carrying=-1 if carried is None else numbers[id(carried)],
        layout=placed,
        memory=mission.memory,
        outcome="",
        reward=0.0,
        accepted=True,
    )
    return Scenario(mission, world.mission, world.max_steps, ground, start, first)
