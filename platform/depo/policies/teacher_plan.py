"""Which text action is good now: minigrid's bot, its low-level steps turned into text actions.

A plan is a pure function of a task and the actions taken so far, and of nothing else: while they
follow a plan it goes on, and where they leave it there is a new one, made with the cells that the
observations so far have shown. So it does not matter what was planned before, or where.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigrid.envs.babyai.core.verifier import AfterInstr, AndInstr, BeforeInstr, PutNextInstr

from depo.policies.teacher_bot import demonstrate
from depo.policies.teacher_thoughts import split_action, traits

_KEPT = 1 << 14
_BEAM = 6
CHECK = "check available actions"


@dataclass(frozen=True, slots=True)
class Target:
    """What the mission asks for next; None stands for any."""

    kind: str | None
    color: str | None

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind or 'object'}" if self.color else self.kind or "object"

    def matches(self, name: str) -> bool:
        """Whether a thing named as in an observation ("closed red door") can be it."""
        _, color, kind = traits(name)
        return self.color in (None, color) and self.kind in (None, kind)


@dataclass(frozen=True, slots=True)
class Plan:
    """Text actions still to take, the next one first; none where the bot knows no way."""

    actions: tuple[str, ...]
    explored: int
    """Mask of grid cells shown by observations so far (bit `y * width + x`)."""


class Planner:
    """Plans for live `BabyAIEnv`s, remembered for as long as they may be followed."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, tuple[str, ...]], Plan] = OrderedDict()

    def plan(self, env: Any, taken: tuple[str, ...]) -> Plan:
        """The plan in the present state of `env`, which `taken` has led to; `env` is left as it is."""
        known = self._known.get((env.task.id, taken))
        if known is not None:
            return known
        return self._remember(env, taken, self.plan_before(env, taken))

    def plan_before(self, env: Any, taken: tuple[str, ...]) -> Plan | None:
        """The plan that held when the last action was taken; None where that is not known."""
        if not taken:
            return None
        return self._known.get((env.task.id, taken[:-1])) or self._replay(env, taken)

    def _replay(self, env: Any, taken: tuple[str, ...]) -> Plan | None:
        """`plan_before` from the start of the task; None where `taken` does not lead here."""
        here, task = env.snapshot(), env.task
        env.reset(task)
        plan = None
        for turn, action in enumerate(taken):
            prefix = (task.id, taken[:turn])
            plan = self._known.get(prefix) or self._remember(env, taken[:turn], plan)
            env.step(action)
        arrived = env.snapshot().core == here.core
        env.restore(here)
        return plan if arrived else None

    def _remember(self, env: Any, taken: tuple[str, ...], before: Plan | None) -> Plan:
        width = env.world.grid.width
        explored = before.explored if before else 0
        for x, y in env.sight().cells:
            explored |= 1 << (y * width + x)
        if before and len(before.actions) > 1 and before.actions[0] == taken[-1]:
            plan = Plan(before.actions[1:], explored)
        else:
            plan = Plan(make_plan(env, explored), explored)
        self._known[env.task.id, taken] = plan
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return plan


def make_plan(env: Any, explored: int) -> tuple[str, ...]:
    """Text actions from the present state of `env` to success; none where the bot fails."""
    if env.outcome:
        return ()
    here = env.snapshot()
    world = env.world
    wanted = targets(world)
    at_once = _first_success(env, here, [a for a in env.available_actions() if _names(a, wanted)])
    if at_once:
        return (at_once,)
    states = demonstrate(env, explored)
    env.restore(here)
    plan = _in_text(env, states, strolls=world.num_rows * world.num_cols > 1) if states else ()
    env.restore(here)
    return plan


def targets(world: Any) -> list[Target]:
    """What the unfinished part of the mission names, the next thing first."""
    found: list[Target] = []
    _collect(world.instrs, world.carrying, found)
    return found


def _collect(instr: Any, carrying: Any, found: list[Target]) -> None:
    if isinstance(instr, BeforeInstr | AndInstr | AfterInstr):
        parts = [(instr.instr_a, instr.a_done), (instr.instr_b, instr.b_done)]
        for part, done in reversed(parts) if isinstance(instr, AfterInstr) else parts:
            if done != "success":
                _collect(part, carrying, found)
        return
    descriptions = [instr.desc_move, instr.desc_fixed] if isinstance(instr, PutNextInstr) else [instr.desc]
    if len(descriptions) == 2 and any(carrying is thing for thing in instr.desc_move.obj_set):
        descriptions.reverse()
    found += [Target(d.type, d.color) for d in descriptions]


def _names(action: str, wanted: list[Target]) -> bool:
    """Whether a text action is about something that the mission names."""
    name = split_action(action)[1]
    return bool(name) and any(target.matches(name) for target in wanted)


def _first_success(env: Any, here: Any, actions: list[str]) -> str:
    """The action that ends the task in success in the fewest low-level steps, if there is one."""
    best: tuple[int, str] | None = None
    for action in actions:
        taken = env.attempt(action)
        if env.outcome == "success" and (best is None or taken < best[0]):
            best = (taken, action)
        env.restore(here)
    return best[1] if best else ""


def _in_text(env: Any, states: list[Any], strolls: bool) -> tuple[str, ...]:
    """The fewest text actions that lead along `states`, from the first to success.

    Breadth first over states, the `_BEAM` latest of each layer: from each, every available action
    is tried, and one that lands on a later state is an edge. Every low-level step has a text
    action of its own, so there is a way. Without `strolls` there is no going to things that the
    mission does not name: in one room such a walk finds the target by luck alone, where a turn
    looks for it.
    """
    index = {state.core: i for i, state in enumerate(states)}
    came: dict[int, tuple[int, str]] = {0: (-1, "")}
    layer = [0]
    while layer:
        following: list[int] = []
        for i in sorted(layer, reverse=True)[:_BEAM]:
            env.restore(states[i])
            wanted = targets(env.world)
            found: list[tuple[int, str]] = []
            for action in env.available_actions():
                purposeful = not action.startswith("go to ") or _names(action, wanted)
                if action == CHECK or not (strolls or purposeful):
                    continue
                taken = env.attempt(action)
                j = index.get(env.snapshot().core, -1)
                if env.outcome == "success":
                    found.append((taken, action))
                elif j > i and j not in came and not env.outcome:
                    came[j] = (i, action)
                    following.append(j)
                env.restore(states[i])
            if found:
                return (*_trace(came, i), min(found, key=lambda way: way[0])[1])
        layer = following
    return ()


def _trace(came: Mapping[int, tuple[int, str]], i: int) -> tuple[str, ...]:
    actions = []
    while i:
        i, action = came[i]
        actions.append(action)
    return tuple(reversed(actions))
