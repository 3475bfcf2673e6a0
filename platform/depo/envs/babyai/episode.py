"""One episode under way: the state, minigrid's low-level rules, and what follows from the state."""

from __future__ import annotations

from typing import Any

from depo.envs.babyai.layout import (
    CLOSED,
    CODES,
    FIRST_DOOR,
    FIRST_LOCKED,
    FIRST_SHUT,
    OPEN,
    Layout,
    door_thing,
)
from depo.envs.babyai.mission import DROP, LEFT, PICKUP, RIGHT, STEP, TOGGLE
from depo.envs.babyai.scenario import Scenario, Snapshot
from depo.envs.babyai.view import View, look
from depo.records import Task


class Episode:
    """The state of one task, which `step` changes.

    `outcome`, `reward` and `accepted` are for the rules to set, and `scene` for what they derive
    from the state: it is forgotten whenever the state changes.
    """

    __slots__ = (
        "_view", "accepted", "carrying", "front", "heading", "layout", "memory", "move", "outcome",
        "place", "reward", "scenario", "scene", "steps", "task",
    )  # fmt: skip

    def __init__(self, scenario: Scenario, state: Snapshot) -> None:
        """`state` is a snapshot of `scenario`'s task, made by any instance."""
        self.scenario = scenario
        self.task: Task
        self.place: int
        self.heading: int
        self.steps: int
        self.carrying: int
        self.layout: Layout
        self.outcome: str
        self.reward: float
        self.accepted: bool
        self.move, self.front = -1, 0
        self.load(state)

    def load(self, state: Snapshot) -> None:
        """Take on a snapshot of the same task."""
        (
            self.task, self.place, self.heading, self.steps, self.carrying, self.layout, memory,
            self.outcome, self.reward, self.accepted,
        ) = state  # fmt: skip
        if self.layout.terrain is None:
            self.layout.bind(self.scenario.terrain)
        self.memory: list[Any] = list(memory)
        self._view: View | None = None
        self.scene: Any = None

    def save(self) -> Snapshot:
        return Snapshot(
            self.task, self.place, self.heading, self.steps, self.carrying, self.layout, tuple(self.memory),
            self.outcome, self.reward, self.accepted,
        )  # fmt: skip

    @property
    def view(self) -> View:
        """What the agent sees; looked at once a state."""
        if self._view is None:
            self._view = look(self.place, self.heading, self.layout)
        return self._view

    @property
    def carried(self) -> int:
        """Code of what the agent carries, -1 for nothing."""
        return -1 if self.carrying < 0 else self.scenario.terrain.codes[self.carrying]

    def payoff(self) -> float:
        """minigrid's reward for success now."""
        return 1 - 0.9 * (self.steps / self.scenario.max_steps)

    def step(self, move: int) -> int:
        """Take one of minigrid's low-level steps; `CONTINUE`, `SUCCESS` or `FAILURE`."""
        scenario = self.scenario
        ways = scenario.terrain.board.steps
        self._view = self.scene = None
        self.steps += 1
        self.move = move
        if move == LEFT:
            self.heading = (self.heading + 3) % 4
        elif move == RIGHT:
            self.heading = (self.heading + 1) % 4
        else:
            self._act(move, self.place + ways[self.heading])
        self.front = self.place + ways[self.heading]
        if move == DROP:
            scenario.mission.relocate(self)
        return scenario.mission.instruction.verify(self)

    def _act(self, move: int, front: int) -> None:
        layout, terrain = self.layout, self.scenario.terrain
        thing = layout.at.get(front, -1)
        code = terrain.codes[thing] if thing >= 0 else -1
        if move == STEP:
            if (thing < 0 and not terrain.wall[front]) or FIRST_DOOR <= code < FIRST_SHUT:
                self.place = front
        elif move == PICKUP:
            if 0 <= code < FIRST_DOOR and self.carrying < 0:
                self.carrying, self.layout = thing, layout.taken(front)
        elif move == DROP:
            if self.carrying >= 0 and thing < 0 and not terrain.wall[front]:
                self.carrying, self.layout = -1, layout.put(front, self.carrying)
        elif move == TOGGLE:
            if code >= FIRST_DOOR:
                self._toggle_door(front, thing, code)
            elif code >= 0 and CODES[code][0] == "box":
                emptied, inner = layout.taken(front), terrain.contents[thing]
                self.layout = emptied if inner < 0 else emptied.put(front, inner)

    def _toggle_door(self, place: int, thing: int, code: int) -> None:
        codes = self.scenario.terrain.codes
        if code >= FIRST_LOCKED and not opens(self.carried, code):
            return
        state = CLOSED if code < FIRST_SHUT else OPEN
        self.layout = self.layout.turned(place, door_thing(thing, codes, state))


def opens(carried: int, door: int) -> bool:
    """Whether what is carried is the key to a locked door, by their codes."""
    return carried >= 0 and CODES[carried][:2] == ("key", CODES[door][1])
