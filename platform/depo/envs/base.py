"""The contract every text environment keeps."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, ClassVar, NoReturn, Protocol, TypeGuard, runtime_checkable

from depo.records import Task, valid_text


class SnapshotUnsupported(RuntimeError):
    """The environment cannot save its state; search replays actions instead."""


class BrokenContract(RuntimeError):
    """An environment handed out what cannot be used; the message says what, and what belongs there."""


@dataclass(frozen=True)
class StepResult:
    """What came of one action.

    `observation` is the text for the agent, `reward` what this action earned, `terminated` that
    the task ended (in success or failure), `truncated` that a step limit ended it.
    `info["valid"]` tells whether the action could be carried out, `info["success"]`, present once
    the episode ended, whether the task was solved.
    """

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any] = field(default_factory=dict)


def received(result: Any) -> StepResult:
    """What an environment's `step` gave, fit to be kept: a finite reward, flags, text that can be written.

    Raises `BrokenContract` for anything else; no number is ever made of what is none.
    """
    if not isinstance(result, StepResult):
        _refuse("a result", result, "a StepResult")
    text = received_text(result.observation)
    reward = result.reward
    if not finite_number(reward):
        _refuse("a reward", reward, "a finite number")
    if not isinstance(result.info, Mapping):
        _refuse("an info", result.info, "a dictionary")
    flags: dict[str, Any] = {name: result.info[name] for name in ("valid", "success") if name in result.info}
    flags |= {"terminated": result.terminated, "truncated": result.truncated}
    for name, value in flags.items():
        # An equal number, such as NumPy's own true, will do; NaN and words are no answer.
        if not isinstance(value, Hashable) or value not in (True, False):
            _refuse(f"{name!r}", value, "true or false")
    ends = bool(result.terminated), bool(result.truncated)
    return StepResult(text, float(reward), *ends, dict(result.info))


def received_text(observation: Any) -> str:
    """An observation as text that every file and tokenizer takes: a lone surrogate becomes U+FFFD.

    Raises `BrokenContract` for what is no text.
    """
    if not isinstance(observation, str):
        _refuse("an observation", observation, "text")
    if observation.isascii():
        return observation
    # Two halves that belong together become the character that they stand for.
    return valid_text(observation)


def finite_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number that can be reckoned with: no NaN, no infinity, no truth value, no text."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that is larger than any float
        return False


def _refuse(what: str, value: Any, wanted: str) -> NoReturn:
    shown = ascii(value)[:80]
    raise BrokenContract(f"the environment gave {shown} as {what}; it must be {wanted}")


@runtime_checkable
class TextEnv(Protocol):
    """One episode at a time, in text. Picklable, no globals; every instance stands alone.

    A restored state has the exact same future. An invalid action is an ordinary observation with
    `info["valid"]` false, never an exception.
    """

    id: ClassVar[str]
    system: str
    """The system prompt: rules, the list of action forms, the reply format."""

    def reset(self, task: Task) -> str:
        """Start `task`; the first observation, which states the goal."""
        ...

    def step(self, action: str) -> StepResult: ...

    def available_actions(self) -> list[str]:
        """Action strings that `step` can carry out in the present state."""
        ...

    def snapshot(self) -> Any:
        """The state, to hand to `restore` of any instance. Raises `SnapshotUnsupported`."""
        ...

    def restore(self, state: Any) -> None: ...

    def tasks(self, split: str, count: int) -> list[Task]:
        """The first `count` tasks of "train", "validation" or "test", spread evenly over the levels.

        No task of one split is in another, nor twice in its own. Raises `ValueError` for an
        unknown split.
        """
        ...


@runtime_checkable
class Counted(Protocol):
    """What an environment offers besides where it knows how many tasks it has."""

    def task_count(self, split: str) -> int | None:
        """Tasks of a split; None where they have no end."""
        ...
