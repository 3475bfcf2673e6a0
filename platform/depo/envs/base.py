"""The contract every text environment keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from depo.records import Task


class SnapshotUnsupported(RuntimeError):
    """The environment cannot save its state; search replays actions instead."""


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
