"""What a sweep tries, how it chooses, and by what it judges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from depo.config.base import Count, Strict

Value = bool | int | float | str


class RangeConfig(Strict):
    """Values between two bounds, for searchers that draw."""

    low: float
    high: float
    log: bool = False
    """Draw evenly over the logarithm."""
    integer: bool = False


class SweepConfig(Strict):
    """Trials of one method's settings, each trained and evaluated on validation tasks."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Names the sweep's directory, `sweep/<name>`; None: as the method."""
    method: str = "depo"
    space: dict[str, list[Value] | RangeConfig] = {"alpha_tokens": [0.0, 3.0], "alpha_steps": [0.0, 3.0]}
    """Field of the method (`lora.r` for one of a section) to the values tried, or a range."""
    searcher: Literal["grid", "random", "optuna"] = "grid"
    """"grid": the product of all values; "random": draws; "optuna": draws that learn from finished trials,
    towards all `objectives` at a time."""
    scheduler: Literal["none", "asha", "pbt"] = "none"
    """"asha" stops trials that lag behind at a rung; "pbt" trains a population, whose laggards go on from
    the weights and changed settings of its leaders."""
    trials: Count | None = None
    """Of searchers that draw, and of "pbt" the population; a grid has as many as its product."""
    rungs: Count = 1
    """Evaluations of a trial: at equal distances during training, the last at its end. "asha" and "pbt"
    judge at each and need two at least."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """Of "asha": one in so many trials goes on past a rung."""
    objectives: dict[str, Literal["min", "max"]] = {"tokens_all": "min"}
    """Metrics that are to be small or large. The first orders the trials, and is what schedulers judge by."""
    tasks: Count = 100
    """Validation tasks a trial is evaluated on."""
    keep: Count | None = None
    """Trials, the best, whose weights stay on disk; None keeps all. Metrics of all trials stay."""
    seed: int = 0
    """Of what searchers draw."""

    @property
    def directory(self) -> str:
        """Name of the sweep's directory below `sweep/`."""
        return self.name or self.method
