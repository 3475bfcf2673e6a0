"""What policies are tried on, how they decode, and how their episodes are judged."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence, Set
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from depo.config.base import ConfigError, Count, Positive, Seed, Strict
from depo.config.endpoint import PriceConfig
from depo.config.env import EnvConfig

MethodName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


Decoding = Literal["sampled", "greedy"]


class ControlledConfig(Strict):
    """A policy that is held to fewer tokens or turns while it acts: a baseline that takes no training."""

    method: str
    """Whose policy acts."""
    tokens: Count | None = None
    """Tokens it is asked, in its prompt, to stay within in each reply; only `max_tokens` holds it to any."""
    max_steps: Count | None = None
    """Turns after which its episodes are cut, where that is fewer than the evaluation's `max_steps`."""
    show_turns: bool = False
    """Every observation ends with the number of turns that are left."""
    remind_at: Count | None = None
    """With so many turns left, the observation ends with a reminder to finish."""
    stop_after_repeats: Count | None = None
    """End the episode after so many turns running that repeat a turn (same observation, same action) or
    that the environment could not carry out."""

    @model_validator(mode="after")
    def _controls_something(self) -> Self:
        if not self.model_dump(exclude={"method"}, exclude_defaults=True):
            raise ValueError(
                "controls nothing; set tokens, max_steps, show_turns, remind_at or stop_after_repeats"
            )
        return self

    def turns(self, most: int) -> int:
        """Turns of an episode that others may play for `most`."""
        return most if self.max_steps is None else min(most, self.max_steps)


class SuiteConfig(Strict):
    """Further tasks for every evaluated policy: another environment, or other levels.

    They are decoded as the evaluation's first `decoding`, with its seeds and temperature.
    """

    env: EnvConfig
    split: Literal["train", "validation", "test"] = "test"
    tasks: Count | None = None
    """Tasks of the split; None takes all, where the environment can say how many there are."""
    skip: Annotated[int, Field(ge=0)] = 0
    max_steps: Count = 12
    max_tokens: Count = 64
    """Most tokens of one reply."""
    success_reward: float | None = None
    """As the evaluation's."""


class EvaluationConfig(Strict):
    """Which policies are tried, on how many held-out tasks, how they decode, and what counts as success."""

    methods: list[str] = []
    """Methods in the table; empty means all, those of `controlled` included."""
    controlled: dict[MethodName, ControlledConfig] = {}
    """Further rows of the table: policies held to fewer tokens or turns at run time."""
    suites: dict[MethodName, SuiteConfig] = {}
    """Further task sets, out of domain for instance; each gets a table of its own."""
    split: Literal["validation", "test"] = "test"
    tasks: Count = 90
    """Held-out tasks; every method is tried on the same ones. A change keeps the episodes there are."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Tasks of the split to pass over first: those that earlier recipes were already judged on."""
    decoding: list[Decoding] = ["sampled", "greedy"]
    """The first one is the table's and the comparisons'."""
    temperature: Positive = 0.7
    """Of "sampled"."""
    max_steps: Count = 12
    max_tokens: Count = 64
    success_reward: float | None = None
    """A return of at least this is a success; None asks the environment, which says how its tasks end."""
    difficulty: dict[str, list[str]] = {}
    """Group name to patterns (`*` stands for anything) of the levels in it; each group gets a table of its
    own. A level belongs to the first group that names it."""
    seeds: list[Seed] = [0]
    """Of the draws of "sampled": every task is tried once with each. "greedy" draws nothing and takes the
    first alone. Further seeds, put after it, keep the episodes there are."""
    reference: str = "bc"
    """The method every other one is compared with."""
    comparisons: list[tuple[str, str]] = []
    """Pairs (a, b) to compare, beside each method with the reference, and each method with an efficiency
    bonus with those that have none, are otherwise of its objective, and start from the same policy."""
    prices: dict[str, PriceConfig] = {}
    """Policy name to what its tokens cost, for cost-of-pass; "default" for those not named. Without it
    nothing is priced."""
    thought_utility: Annotated[int, Field(ge=0)] = 0
    """Episodes of each method (first decoding, first seed) whose actions are scored with and without their
    thoughts; 0 scores none."""
    bootstrap: Count = 10000
    """Resamples behind the interval of an interquartile mean, 2,000 at most; no other interval draws any."""

    @field_validator("seeds", "decoding")
    @classmethod
    def _each_once(cls, values: list[int | str]) -> list[int | str]:
        if not values:
            raise ValueError("empty; name one at least, or leave the key out")
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} stands there twice, and would count twice; leave one out")
        return values

    @field_validator("difficulty")
    @classmethod
    def _groups_hold_levels(cls, groups: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, patterns in groups.items():
            if not patterns:
                raise ValueError(f"{name!r} names no level; give it patterns such as ['GoTo*'], or drop it")
        return groups

    def on(self, suite: str) -> EvaluationConfig:
        """How policies act on a suite and are judged there; "" is the evaluation's own tasks."""
        if not suite:
            return self
        own = self.suites[suite]
        return self.model_copy(
            update={
                "max_steps": own.max_steps,
                "max_tokens": own.max_tokens,
                "success_reward": own.success_reward,
                "decoding": self.decoding[:1],
            }
        )

    def difficulty_of(self, levels: Iterable[str]) -> dict[str, str]:
        """Each level to its group of `difficulty`; a level that no pattern matches has none.

        Raises `ConfigError` for a pattern that matches no level: it is misspelt, or a level is not tried.
        """
        known = sorted(set(levels))
        for group, patterns in self.difficulty.items():
            for pattern in patterns:
                if not any(fnmatchcase(level, pattern) for level in known):
                    raise ConfigError(
                        f"evaluation.difficulty.{group}: {pattern!r} matches no level; the levels tried are "
                        f"{', '.join(known)}"
                    )
        groups = {level: self._groups_with(level) for level in known}
        return {level: found[0] for level, found in groups.items() if found}

    def _groups_with(self, level: str) -> list[str]:
        return [
            group
            for group, patterns in self.difficulty.items()
            if any(fnmatchcase(level, pattern) for pattern in patterns)
        ]

    def check_names(self, policies: Sequence[str], reserved: Set[str]) -> None:
        """Raise `ValueError`, naming the key, where a name here is taken, or is none of `policies`."""
        known = [*policies, *self.controlled]
        tried = self.methods or [name for name in known if name != "student"]
        for name, controlled in self.controlled.items():
            key = f"evaluation.controlled.{name}"
            if name in policies or name in reserved:
                raise ValueError(f"{key}: the name is taken; rename it")
            require(controlled.method, policies, f"{key}.method")
            self._check_turns(controlled, key)
        for name in self.suites:
            if name in known or name in reserved:
                raise ValueError(f"evaluation.suites.{name}: the name is taken; rename it")
        for name in self.methods:
            require(name, known, "evaluation.methods")
            if self.methods.count(name) > 1:
                raise ValueError(f"evaluation.methods: {name!r} stands there twice; leave one out")
        for key, name in [
            ("reference", self.reference),
            *(("comparisons", name) for pair in self.comparisons for name in pair),
        ]:
            require(name, known, f"evaluation.{key}")
            if name not in tried:
                raise ValueError(f"evaluation.{key}: {name!r} is not tried; add it to evaluation.methods")
        for a, b in self.comparisons:
            if a == b:
                raise ValueError(f"evaluation.comparisons: {a!r} with itself says nothing; drop the pair")
        for name in self.prices:
            require(name, [*known, "default"], "evaluation.prices")

    def _check_turns(self, controlled: ControlledConfig, key: str) -> None:
        longest = max([self.max_steps, *(suite.max_steps for suite in self.suites.values())])
        if controlled.max_steps is not None and controlled.max_steps >= longest:
            raise ValueError(
                f"{key}.max_steps: {controlled.max_steps} cuts nothing off the {longest} turns that all "
                "have; lower it"
            )
        cap = controlled.turns(self.max_steps)
        for name, value in (
            ("remind_at", controlled.remind_at),
            ("stop_after_repeats", controlled.stop_after_repeats),
        ):
            if value is not None and value >= cap:
                raise ValueError(
                    f"{key}.{name}: must be less than the {cap} turns of an episode, not {value}"
                )


def require(name: str, known: Sequence[str], key: str) -> None:
    """Raise `ValueError` where `name`, given at `key`, is none of the `known`."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{key}: {name!r} is not defined; known: {', '.join(known)}{hint}")
