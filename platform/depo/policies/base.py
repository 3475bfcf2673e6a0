"""The contract between search and whatever proposes the agent's next step."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 64


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
    """The live `TextEnv`, in the state asked about. Scripted policies read it and leave it as it
    was; engines ignore it."""


class Policy(Protocol):
    """Proposes replies; synchronous for a batch of requests."""

    name: str
    tokenizer_fingerprint: str
    """Identifies the tokenizer behind `Reply.token_ids`; empty where there is none."""

    def sample(self, requests: Sequence[Request]) -> list[list[Reply]]:
        """For each request, in order, its `n` replies."""
        ...


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


def format_reply(thought: str, action: str) -> str:
    """The ReAct text of a thought and an action, as `parse_reply` reads it."""
    return f"Thought: {thought}\nAction: {action}"
