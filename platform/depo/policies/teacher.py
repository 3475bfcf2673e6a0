"""A scripted policy that stands in for a strong model: right as a rule, wasteful and wrong at set rates."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from depo.config.schema import TeacherConfig
from depo.policies.base import Reply, Request, format_reply
from depo.policies.teacher_plan import CHECK, Planner, Target, targets
from depo.policies.teacher_thoughts import Reading, core, count_words, filler, read, split_action

_REDRAWS = 6


class TeacherPolicy:
    """Plays BabyAI through the live environment of a request, by minigrid's bot.

    The bot, and so the teacher, knows what the observations so far have shown and no more. Each
    reply is drawn on its own: with `waste` it looks around, strolls or asks what it can do; with
    `mistakes` it acts on something that is not there or not asked for; with `wordiness` its
    thought carries filler. After a slip it plans anew and says so. `Reply.num_tokens` counts words
    and punctuation marks.

    Replies depend on `seed`, the request's seed, task and past actions alone. Raises `ValueError`
    for a request without a `BabyAIEnv`.
    """

    name = "teacher"
    tokenizer_fingerprint = ""

    def __init__(self, config: TeacherConfig, seed: int = 0) -> None:
        self._config = config
        self._seed = seed
        self._planner = Planner()

    def sample(self, requests: Sequence[Request]) -> list[list[Reply]]:
        return [self._propose(request) for request in requests]

    def _propose(self, request: Request) -> list[Reply]:
        env = request.env
        if env is None or env.id != "babyai":
            raise ValueError("the teacher plays BabyAI only; set env.id to 'babyai', or another policy")
        taken = tuple(turn.reply.action for turn in request.history if not turn.reply.malformed)
        rng = random.Random(repr((self._seed, request.seed, env.task.id, taken)))
        turn = _Turn(env, request, self._planner, taken)
        replies: list[Reply] = []
        for _ in range(request.n):
            action, justification = self._choose(turn, rng)
            reply = self._say(turn, action, justification, rng)
            for _ in range(_REDRAWS):
                if all(reply.text != other.text for other in replies):
                    break
                reply = self._say(turn, action, justification, rng)
            replies.append(reply)
        return replies

    def _choose(self, turn: _Turn, rng: random.Random) -> tuple[str, str]:
        """An action and the core of its thought."""
        draw = rng.random()
        slips = []
        if draw < self._config.waste:
            slips = turn.waste()
        elif draw < self._config.waste + self._config.mistakes:
            slips = turn.mistakes()
        if slips:
            return rng.choice(slips)
        action = turn.good or rng.choice(turn.available)
        return action, turn.core(action)

    def _say(self, turn: _Turn, action: str, justification: str, rng: random.Random) -> Reply:
        thought = justification
        if rng.random() < self._config.wordiness:
            before, after = filler(rng, turn.goal, turn.reading)
            thought = " ".join([*before, justification, *after])
        text = format_reply(thought, action)
        return Reply(text, thought, action, malformed=False, num_tokens=count_words(text))


class _Turn:
    """One state, as the teacher understands it."""

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
        state, color = self._in_sight[0].split()[:2] if self._in_sight else ("", "")
        if state == "locked" and self.reading.carried != f"{color} key":
            self._targets.insert(0, Target("key", color))
            self._in_sight = self._matching(self._targets[0])

    def _matching(self, target: Target) -> list[str]:
        return [label for label in self.reading.things if target.matches(label.rpartition(" ")[0])]

    def core(self, action: str) -> str:
        return core(action, self.reading, self._targets[0].name, self._in_sight, self._lapse)

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
