"""minigrid's BabyAI bot, made safe to run to the end of any task."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    ObjDesc,
    PickupInstr,
    PutNextInstr,
    SeqInstr,
)
from minigrid.utils.baby_ai_bot import BabyAIBot, GoNextToSubgoal

_MOST_REWRITES = 60
"""Sub-goals the bot may add before one step; the stock bot can go on adding them for ever."""
_ATTEMPTS = 6
"""Bots tried on one task, each from where the last one gave up."""
_MOST_VISITS = 3
"""Times that a bot may be in one state."""
_LEFT, _RIGHT, _STEP, _DROP, _TOGGLE, _DONE = 0, 1, 2, 4, 5, 6


class _Stuck(Exception):
    """The bot cannot decide on a step."""


class _Plan(list[Any]):
    """A stack of sub-goals that refuses to grow without end."""

    added = 0

    def append(self, subgoal: Any) -> None:
        self.added += 1
        if self.added > _MOST_REWRITES:
            raise _Stuck
        super().append(subgoal)


class GuardedBot(BabyAIBot):
    """The stock bot with a limit on re-planning, and eyes that are those of the text environment.

    `explored` is a mask of grid cells (bit `y * width + x`) known from before.
    """

    def __init__(self, env: Any, explored: int) -> None:
        super().__init__(env.world)
        self._env = env
        self.stack = _Plan(self.stack)
        width = env.world.grid.width
        for x, y in np.ndindex(self.vis_mask.shape):
            self.vis_mask[x, y] = explored >> (y * width + x) & 1
        instr = env.world.instrs
        if isinstance(instr, PutNextInstr) and env.world.carrying in instr.desc_move.obj_set:
            del self.stack[-2:]  # it holds what it would go to fetch

    def _process_instr(self, instr: Any) -> None:
        """As the stock bot's, which takes on what is done already too."""
        if not isinstance(instr, SeqInstr):
            super()._process_instr(instr)
            return
        last_first = [(instr.instr_b, instr.b_done), (instr.instr_a, instr.a_done)]  # type: ignore[attr-defined]
        for part, done in reversed(last_first) if isinstance(instr, AfterInstr) else last_first:
            if done != "success":
                self._process_instr(part)

    def replan(self, action_taken: Any = None) -> int:
        self.stack.added = 0
        return int(super().replan(action_taken))

    def _process_obs(self) -> None:
        for x, y in self._env.sight().cells:
            self.vis_mask[x, y] = True

    def explored(self) -> int:
        width = self._env.world.grid.width
        return sum(1 << (int(y) * width + int(x)) for x, y in np.argwhere(self.vis_mask))


def demonstrate(env: Any, explored: int) -> list[Any]:
    """Snapshots after each of the bot's low-level steps, the present state first.

    Empty where the bot does not solve the task. Leaves `env` where the bot ended. Takes at most as
    many steps as the task allows.
    """
    states = [env.snapshot()]
    shaker = random.Random(0)
    for _ in range(_ATTEMPTS):
        explored = _follow(env, GuardedBot(env, explored), states)
        if _over(env, states):
            break
        boxes = _useful_boxes(env.world)
        if boxes is not None:
            explored = _open_box(env, explored, boxes, states)
        else:
            _shake(env, shaker, states)
    return states if env.outcome == "success" else []


def _follow(env: Any, bot: GuardedBot, states: list[Any]) -> int:
    """Let a bot act until it is done or stuck, or the episode ends; the cells it has seen by then.

    It is stuck too where it goes in circles, and where a step fails the task, which is taken back.
    """
    visits: Counter[Any] = Counter()
    while not _over(env, states):
        here = states[-1].core
        visits[here] += 1
        if visits[here] > _MOST_VISITS:
            break
        try:
            move = bot.replan()
        # The bot asserts what it expects of the world, and trips where that does not hold.
        except (_Stuck, AssertionError, AttributeError, IndexError, TypeError, ValueError):
            break
        if move == _DONE:
            break
        _move(env, move, states)
        if env.outcome == "failure":
            states.pop()
            env.restore(states[-1])
            break
    return bot.explored()


def _over(env: Any, states: list[Any]) -> bool:
    return bool(env.outcome) or len(states) > env.world.max_steps


def _useful_boxes(world: Any) -> ObjDesc | None:
    """Boxes that may help if opened, where the task needs that; never one that the mission names.

    A box may hold the key that is missing, or stand in the way where picking up is forbidden.
    """
    things = [thing for thing in world.grid.grid if thing is not None]
    keys = {thing.color for thing in [*things, world.carrying] if thing is not None and thing.type == "key"}
    doors = {thing.color for thing in things if thing.type == "door" and thing.is_locked}
    strict = isinstance(world.instrs, PickupInstr) and world.instrs.strict
    if world.carrying is not None or not (strict or doors - keys):
        return None
    boxes = ObjDesc("box")
    boxes.find_matching_objs(world)
    named = list(_named(world.instrs))
    free = [i for i, box in enumerate(boxes.obj_set) if not any(box is thing for thing in named)]
    boxes.obj_set = [boxes.obj_set[i] for i in free]
    boxes.obj_poss = [boxes.obj_poss[i] for i in free]
    return boxes if free else None


def _named(instr: Any) -> Iterator[Any]:
    if isinstance(instr, SeqInstr):
        yield from _named(instr.instr_a)
        yield from _named(instr.instr_b)
    elif isinstance(instr, PutNextInstr):
        yield from (*instr.desc_move.obj_set, *instr.desc_fixed.obj_set)
    else:
        yield from instr.desc.obj_set


def _open_box(env: Any, explored: int, boxes: ObjDesc, states: list[Any]) -> int:
    bot = GuardedBot(env, explored)
    bot.stack = _Plan([GoNextToSubgoal(bot, boxes)])
    explored = _follow(env, bot, states)
    front = env.world.grid.get(*env.world.front_pos)
    if any(front is box for box in boxes.obj_set):
        _move(env, _TOGGLE, states)
    return explored


def _shake(env: Any, rng: random.Random, states: list[Any]) -> None:
    """Leave the state the bot cannot handle: put down what is carried, else stroll."""
    world = env.world
    for _ in range(4 if world.carrying is not None else 0):
        free = world.grid.get(*world.front_pos) is None
        _move(env, _DROP if free else _RIGHT, states)
        if free:
            return
    for move in rng.choices((_LEFT, _RIGHT, _STEP), weights=(1, 1, 2), k=rng.randint(2, 8)):
        _move(env, move, states)


def _move(env: Any, move: int, states: list[Any]) -> None:
    if not env.outcome:
        env.low_level(move)
        states.append(env.snapshot())
