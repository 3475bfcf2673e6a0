"""What a rule set decides: texts, actions, rewards and ends. The world itself is always minigrid's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from depo.envs.babyai.episode import Episode
from depo.envs.base import StepResult


class Rules(Protocol):
    """One way to play BabyAI in text. Keeps no state: all of it is in the episode."""

    system: str
    """The system prompt."""

    def opening(self, episode: Episode) -> str:
        """The first observation, which states the goal."""
        ...

    def step(self, episode: Episode, action: str) -> StepResult:
        """Carry out a text action, or say why not."""
        ...

    def available(self, episode: Episode) -> list[str]:
        """Text actions that can be carried out now."""
        ...

    def plan(self, episode: Episode, action: str) -> Sequence[int] | None:
        """The low-level moves of a text action; None where it cannot be carried out."""
        ...

    def run(self, episode: Episode, moves: Sequence[int]) -> int:
        """Take low-level moves until they or the episode end, or the way is blocked; the number taken."""
        ...
