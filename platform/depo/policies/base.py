"""The contract between search and whatever proposes the agent's next step."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 64
    structured: bool = False
    """Only replies of the form `Thought: ...`, `Action: ...` can be drawn; for vLLM and the teacher."""


@dataclass(frozen=True)
class Reply:
    """One Thought + Action proposed by a policy."""

    text: str
    thought: str
    action: str
    malformed: bool
    num_tokens: int
    """Generated tokens, end-of-turn excluded."""
    token_ids: tuple[int, ...] = ()
    """Generated ids, end-of-turn included; empty where the policy has no tokenizer."""
    logprob: float | None = None
    input_tokens: int = 0
    money: float = 0.0
    """What the reply cost, by the configured prices."""


@dataclass(frozen=True)
class Exchange:
    """A past turn: the observation and the reply given to it."""

    observation: str
    reply: Reply


@dataclass(frozen=True)
class Request:
    """One agent context for which `n` replies are wanted."""

    system: str
    history: tuple[Exchange, ...]
    observation: str
    n: int
    sampling: Sampling
    seed: int
    """Equal requests with equal seeds get equal replies from a deterministic policy."""
    env: Any = None
    """The live `TextEnv` of the search. Scripted policies read it and leave it as it was; engines
    ignore it."""
    state: Any = None
    """The snapshot of `env` that is asked about; None where `env` is in that state."""
    id: int = 0
    """Which request of its search this is."""


@dataclass(frozen=True)
class Answer:
    """What came of one submitted request: its `n` replies, or the error that it alone met."""

    key: Hashable
    replies: list[Reply] = field(default_factory=list)
    error: Exception | None = None


@dataclass
class Usage:
    """What a policy has done since it was made."""

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    """Generated ones."""
    money: float = 0.0
    seconds: float = 0.0
    """Spent in the engine itself, or waiting for it."""

    def count(self, replies: Sequence[Reply]) -> None:
        """Add one answered request; its context is counted once, for all its replies."""
        self.requests += 1
        self.prompt_tokens += max((reply.input_tokens for reply in replies), default=0)
        self.tokens += sum(reply.num_tokens for reply in replies)
        self.money += sum(reply.money for reply in replies)


class EngineDead(RuntimeError):
    """The engine behind a policy is gone. Make a new one, and ask again what was in flight."""


class BudgetSpent(RuntimeError):
    """A hard limit on tokens or money is reached: nothing more is asked, what is finished is kept."""


class Policy(Protocol):
    """Proposes replies, with as many requests in flight as its caller likes.

    The caller submits requests as they arise and collects answers as they come, in any order. What
    a reply is never depends on the other requests in flight. `submit` and `collect` raise
    `EngineDead` and `BudgetSpent`; what one request alone meets is its `Answer.error`.
    """

    name: str
    tokenizer_fingerprint: str
    """Identifies the tokenizer behind `Reply.token_ids`; empty where there is none."""
    usage: Usage

    def submit(self, key: Hashable, request: Request) -> None:
        """Take up `request`, to be answered under `key`. Does not wait for the answer."""
        ...

    def collect(self) -> list[Answer]:
        """What is answered by now. Waits for the first answer; empty only where nothing is in flight."""
        ...

    def withdraw(self, key: Hashable) -> None:
        """Forget a request in flight: its answer is not wanted any more."""
        ...

    def close(self) -> None: ...


def answer_all(policy: Policy, requests: Sequence[Request]) -> list[list[Reply]]:
    """The replies to each of `requests`, in order; raises what any of them met."""
    for key, request in enumerate(requests):
        policy.submit(key, request)
    replies: dict[Hashable, list[Reply]] = {}
    while len(replies) < len(requests):
        for answer in policy.collect():
            if answer.error is not None:
                raise answer.error
            replies[answer.key] = answer.replies
    return [replies[key] for key in range(len(requests))]


class Immediate:
    """The waiting list of a policy that answers at once: subclasses say how, in `reply`."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._answers: dict[Hashable, Answer] = {}

    def reply(self, request: Request) -> list[Reply]:
        raise NotImplementedError

    def submit(self, key: Hashable, request: Request) -> None:
        try:
            self._answers[key] = Answer(key, self.reply(request))
        except (EngineDead, BudgetSpent):
            raise
        except Exception as error:
            self._answers[key] = Answer(key, error=error)
        self.usage.count(self._answers[key].replies)

    def collect(self) -> list[Answer]:
        answers = list(self._answers.values())
        self._answers.clear()
        return answers

    def withdraw(self, key: Hashable) -> None:
        self._answers.pop(key, None)

    def close(self) -> None:
        self._answers.clear()


_ACTION = re.compile(r"^\s*action\s*:[ \t]*(?:\n(?!\s*action\s*:)[ \t]*)?(.*)$", re.IGNORECASE | re.MULTILINE)
# Policies trained on AgentGym's trajectories put the action on the line below its word.
_THOUGHT = re.compile(r"^\s*thought\s*:", re.IGNORECASE)


def parse_reply(text: str) -> tuple[str, str, bool]:
    """Split a ReAct reply into (thought, action, malformed).

    Well-formed is a thought followed by exactly one `Action:` with something on its line, or on the
    next one. A malformed reply keeps its text as the thought and has an empty action.
    """
    found = list(_ACTION.finditer(text))
    thought = _THOUGHT.sub("", text[: found[0].start()] if found else text, count=1).strip()
    if len(found) != 1 or not found[0].group(1).strip():
        return thought, "", True
    return thought, found[0].group(1).strip(), False


def action_start(text: str) -> int | None:
    """Where the word `Action:` of a well-formed reply begins (index in `text`); None for a malformed one."""
    if parse_reply(text)[2]:
        return None
    found = next(_ACTION.finditer(text))
    line = found.group(0)
    return found.start() + len(line) - len(line.lstrip())


def format_reply(thought: str, action: str) -> str:
    """The ReAct text of a thought and an action, as `parse_reply` reads it."""
    return f"Thought: {thought}\nAction: {action}"
