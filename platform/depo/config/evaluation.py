"""What policies are tried on, how they decode, and how their episodes are judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from depo.config.base import Count, Positive, Strict
from depo.config.endpoint import PriceConfig
from depo.config.env import EnvConfig

MethodName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


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
    def _controls_something(self) -> ControlledConfig:
        if not self.model_fields_set - {"method"}:
            raise ValueError(
                "controls nothing; set tokens, max_steps, show_turns, remind_at or stop_after_repeats"
            )
        return self


class SuiteConfig(Strict):
    """Further tasks for every evaluated policy: another environment, or other levels."""

    env: EnvConfig
    split: Literal["train", "validation", "test"] = "test"
    tasks: Count | None = None
    """Tasks of the split; None takes all."""
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
    """Held-out tasks; every method is tried on the same ones."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Tasks of the split to pass over first: those that earlier recipes were already judged on."""
    decoding: list[Literal["sampled", "greedy"]] = ["sampled", "greedy"]
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
    seeds: Annotated[list[int], Field(min_length=1)] = [0]
    """Of the draws of "sampled": every task is tried once with each. "greedy" draws nothing and takes the
    first alone."""
    reference: str = "bc"
    """The method every other one is compared with."""
    compare: list[tuple[str, str]] = []
    """Further pairs (a, b) to compare."""
    prices: dict[str, PriceConfig] = {}
    """Policy name to what its tokens cost, for cost-of-pass; "default" for those not named. Without it
    nothing is priced."""
    thought_utility: Annotated[int, Field(ge=0)] = 0
    """Episodes of each method (first decoding, first seed) whose actions are scored with and without their
    thoughts; 0 scores none."""
    bootstrap: Count = 10000
    """Resamples behind each interval."""

    @model_validator(mode="after")
    def _no_seed_twice(self) -> EvaluationConfig:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one stands there twice, and would count twice; leave it out")
        return self
