"""A scripted policy that stands in for a strong model: right as a rule, wasteful and wrong at set rates."""

from __future__ import annotations

import random
from importlib import import_module
from typing import Any, Protocol

from depo.config.base import ConfigError
from depo.config.schema import TeacherConfig
from depo.policies.base import Immediate, Reply, Request, format_reply
from depo.policies.teacher_thoughts import count_words

_REDRAWS = 6

SCRIPTS = {
    "babyai": "depo.policies.teacher_babyai:BabyAIScript",
    "webshop": "depo.policies.teacher_webshop:WebShopScript",
}
"""Environment id to the `Script` that plays it, imported at its first use."""


class Turn(Protocol):
    """One state, as a script understands it. Equal states and pasts give equal turns.

    An action goes with a thought, one short sentence that justifies it (its "core").
    """

    @property
    def available(self) -> list[str]:
        """Actions that can be carried out now, at least one; drawn from where `good` is empty."""
        ...

    @property
    def good(self) -> str:
        """The right action now; empty where the script knows none."""
        ...

    def core(self, action: str) -> str:
        """The thought that justifies `action`."""
        ...

    def waste(self) -> list[tuple[str, str]]:
        """(action, thought) of steps that do no harm and lead nowhere."""
        ...

    def mistakes(self) -> list[tuple[str, str]]:
        """(action, thought) of steps that are wrong and believed right."""
        ...

    def filler(self, rng: random.Random) -> tuple[list[str], list[str]]:
        """Sentences that justify nothing, at least one in all: to say before the thought, and after."""
        ...


class Script(Protocol):
    """How one environment is played. Made without arguments, once a teacher; may remember plans."""

    def turn(self, env: Any, request: Request, taken: tuple[str, ...]) -> Turn:
        """The state that the live `env` is in; `env` must be left as it was.

        `taken` are the past actions of `request.history`, malformed replies left out. What a turn
        offers may depend on the environment's state, `request` and `taken` alone, never on what the
        script was asked before.
        """
        ...


class TeacherPolicy(Immediate):
    """Plays an environment that has a script, through the live environment of a request.

    Each reply is drawn on its own: with `waste` it takes a step that leads nowhere; with
    `mistakes` one that is wrong; with `wordiness` its thought carries filler. After a slip the
    script plans anew and says so. `Reply.num_tokens` counts words and punctuation marks.

    Replies depend on `seed`, the request's seed, task and past actions alone. A request without a
    live environment, or with one that has no script, is answered with a `ConfigError`.
    """

    name = "teacher"
    tokenizer_fingerprint = ""

    def __init__(self, config: TeacherConfig, seed: int = 0) -> None:
        super().__init__()
        self._config = config
        self._seed = seed
        self._scripts: dict[str, Script] = {}

    def reply(self, request: Request) -> list[Reply]:
        """`request.n` replies, from the state `request.state`; the environment stays where it is."""
        env = request.env
        if env is None:
            raise ConfigError("the teacher needs the live environment: give it as Request.env")
        if request.state is None:
            return self._propose(request, env)
        now = env.snapshot()
        try:
            env.restore(request.state)
            return self._propose(request, env)
        finally:
            env.restore(now)

    def _propose(self, request: Request, env: Any) -> list[Reply]:
        if env.id not in self._scripts:
            self._scripts[env.id] = _load_script(env.id)
        taken = tuple(turn.reply.action for turn in request.history if not turn.reply.malformed)
        rng = random.Random(repr((self._seed, request.seed, env.task.id, taken)))
        turn = self._scripts[env.id].turn(env, request, taken)
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

    def _choose(self, turn: Turn, rng: random.Random) -> tuple[str, str]:
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

    def _say(self, turn: Turn, action: str, justification: str, rng: random.Random) -> Reply:
        thought = justification
        if rng.random() < self._config.wordiness:
            before, after = turn.filler(rng)
            thought = " ".join([*before, justification, *after])
        text = format_reply(thought, action)
        return Reply(text, thought, action, malformed=False, num_tokens=count_words(text))


def require_script(env_id: str) -> None:
    """Raise `ConfigError` for an environment that the teacher cannot play."""
    if env_id not in SCRIPTS:
        raise ConfigError(
            f"the teacher has no script for environment {env_id!r} (it plays {', '.join(SCRIPTS)}); give the "
            "round another policy (kind engine or openai), or write a script: depo.policies.teacher.Script"
        )


def _load_script(env_id: str) -> Script:
    require_script(env_id)
    module, _, name = SCRIPTS[env_id].partition(":")
    return getattr(import_module(module), name)()  # type: ignore[no-any-return]
