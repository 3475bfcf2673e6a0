"""The teacher's script for BabyAI: minigrid's bot says what is right, and the text what to say of it."""

from __future__ import annotations

import random
from typing import Any

from depo.policies.base import Request
from depo.policies.teacher_plan import CHECK, Planner, Target, targets
from depo.policies.teacher_thoughts import Reading, core, filler, read, split_action, traits


class BabyAIScript:
    """Plays BabyAI through the live environment of a request.

    The bot, and so the script, knows what the observations so far have shown and no more. Plans
    are remembered for as long as they may be followed.
    """

    def __init__(self) -> None:
        self._planner = Planner()

    def turn(self, env: Any, request: Request, taken: tuple[str, ...]) -> BabyAITurn:
        return BabyAITurn(env, request, self._planner, taken)


class BabyAITurn:
    """One state of BabyAI, as the teacher understands it."""

    def __init__(self, env: Any, request: Request, planner: Planner, taken: tuple[str, ...]) -> None:
        self.reading: Reading = read(request.observation)
        self.goal: str = env.goal
        plan = planner.plan(env, taken)
        self.good = plan.actions[0] if plan.actions else ""
        self.available = [a for a in env.available_actions() if a != CHECK] or [CHECK]
        self._targets: list[Target] = targets(env.world) or [Target(None, None)]
        self._in_sight = self._matching(self._targets[0])
        self._key_first()
        self._lapse = ""
        if taken and not self.reading.refused:
            verb, name, _ = split_action(taken[-1])
            if verb and verb != "go through" and not any(t.matches(name) for t in self._targets):
                before = planner.plan_before(env, taken)
                self._lapse = name if before and before.actions[:1] != (taken[-1],) else ""

    def _key_first(self) -> None:
        """A locked door turns the eye to its key."""
        state, color, _ = traits(self._in_sight[0].rpartition(" ")[0]) if self._in_sight else ("", "", "")
        if state == "locked" and self.reading.carried != f"{color} key":
            self._targets.insert(0, Target("key", color))
            self._in_sight = self._matching(self._targets[0])

    def _matching(self, target: Target) -> list[str]:
        return [label for label in self.reading.things if target.matches(label.rpartition(" ")[0])]

    def core(self, action: str) -> str:
        return core(action, self.reading, self._targets[0].name, self._in_sight, self._lapse)

    def filler(self, rng: random.Random) -> tuple[list[str], list[str]]:
        return filler(rng, self.goal, self.reading)

    def waste(self) -> list[tuple[str, str]]:
        """Steps that do no harm and lead nowhere."""
        slips = [(CHECK, "What can I do here?")]
        for action in self.available:
            verb, name, _ = split_action(action)
            if action == self.good:
                continue
            if action in ("turn left", "turn right"):
                slips.append((action, f"Let me look {action.split()[1]} first."))
            elif action == "move forward":
                slips.append((action, "Let me walk a bit first."))
            elif verb == "go to" and not any(t.matches(name) for t in self._targets):
                slips.append((action, f"Maybe the {name} helps; go there."))
        return slips

    def mistakes(self) -> list[tuple[str, str]]:
        """Steps that are wrong, believed right."""
        target = self._targets[0]
        slips = []
        if not self._in_sight and target.kind and target.color:
            name = f"closed {target.name}" if target.kind == "door" else target.name
            slips.append((f"go to {name} 1", f"The {target.name} must be near; go to it."))
        for label in self._in_sight:
            name = label.rpartition(" ")[0]
            slips.append((f"go to {name} {len(self._in_sight) + 1}", f"I choose the other {name}."))
        for action in self.available:
            verb, name, _ = split_action(action)
            if verb in ("go to", "pick up") and action != self.good and not target.matches(name):
                slips.append((action, f"This {name} must be the one."))
        return slips or [("drop", "I put it down here.")]
