"""What a sweep tries, how it chooses, and by what it judges."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from depo.config.base import ConfigError, Count, Seed, Strict, explain, set_key
from depo.config.method import OBJECTIVE_FACTS, LoraConfig, MethodConfig, without_bonus

Value = bool | int | float | str

METRIC_NAMES = (
    "success", "reward", "tokens_all", "steps_all", "tokens_success", "steps_success",
    "input_tokens_all", "invalid_rate", "malformed_rate", "repeated_rate",
)  # fmt: skip
"""Metrics of every trial's evaluation; those of its training begin with `train/`."""

_SHARED = ("init", "samples", "view")
_MOST_CHECKED = 4096

_FIXED_IN_POPULATION = {
    "lora": "the shape of the weights",
    "full_parameters": "the shape of the weights",
    "max_steps": "the number of steps",
    "epochs": "the number of steps",
    "batch_size": "the number of steps",
    "data_fraction": "the number of steps",
}


class RangeConfig(Strict):
    """Values between two bounds, for searchers that draw."""

    low: float
    high: float
    """Drawn too, as `low` is."""
    log: bool = False
    """Draw evenly over the logarithm."""
    integer: bool = False

    @model_validator(mode="after")
    def _holds_something(self) -> RangeConfig:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}; exchange or widen them")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, low is {self.low:g}; raise it")
        if self.integer and (self.low % 1 or self.high % 1):
            raise ValueError("an integer range has whole bounds; round low and high")
        return self


def _form(value: Any) -> str:
    return "range" if isinstance(value, Mapping | RangeConfig) else "values"


Tried = Annotated[
    Annotated[list[Value], Tag("values")] | Annotated[RangeConfig, Tag("range")], Discriminator(_form)
]


class SweepConfig(Strict):
    """Trials of one method's settings, each trained and evaluated on validation tasks."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Names the sweep's directory, `sweep/<name>`; None: as the method."""
    method: str = "depo"
    space: dict[str, Tried] = {"alpha_tokens": [0.0, 3.0], "alpha_steps": [0.0, 3.0]}
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
    judge at each but the last and need two at least."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """Of "asha": one in so many trials goes on past a rung."""
    objectives: dict[str, Literal["min", "max"]] = {"tokens_all": "min"}
    """Metrics that are to be small or large. The first orders the trials, and is what schedulers judge by."""
    tasks: Count = 100
    """Validation tasks a trial is evaluated on."""
    keep: Count | None = None
    """Trials, the best, whose weights stay on disk; None keeps all. Metrics of all trials stay."""
    seed: Seed = 0
    """Of what searchers draw."""

    def unread(self) -> dict[str, str]:
        found = {} if self.scheduler == "asha" else {"reduction": f"while scheduler is {self.scheduler!r}"}
        return found | ({"seed": "by a grid, which draws nothing"} if self.searcher == "grid" else {})

    @property
    def directory(self) -> str:
        """Name of the sweep's directory below `sweep/`."""
        return self.name or self.method

    @property
    def judged_by(self) -> tuple[str, Literal["min", "max"]]:
        """The objective that orders the trials: its metric, and whether it is to be small or large."""
        return next(iter(self.objectives.items()))

    @model_validator(mode="after")
    def _space_holds_something(self) -> SweepConfig:
        if not self.space:
            raise ValueError("space: empty, so nothing would be tried; name a field and its values")
        for name, values in self.space.items():
            if values == []:
                raise ValueError(f"space.{name}: no values; give some, or leave the field out")
            if isinstance(values, list) and len({(type(v) is bool, v) for v in values}) < len(values):
                raise ValueError(f"space.{name}: a value stands there twice; leave it out")
        return self

    @model_validator(mode="after")
    def _scheduler_fits_the_rest(self) -> SweepConfig:
        if self.scheduler != "none" and self.rungs < 2:
            raise ValueError(f"rungs: scheduler {self.scheduler!r} judges at rungs; set 2 or more")
        if self.scheduler == "pbt":
            if self.searcher != "random":
                raise ValueError(
                    f"searcher: scheduler 'pbt' changes settings itself and does not go with "
                    f"{self.searcher!r}; set searcher to 'random'"
                )
            if self.trials is not None and self.trials < 2:
                raise ValueError("trials: a population of one has nobody to learn from; set 2 or more")
        return self

    @model_validator(mode="after")
    def _searcher_fits_the_space(self) -> SweepConfig:
        if self.searcher == "grid":
            ranges = [name for name, values in self.space.items() if isinstance(values, RangeConfig)]
            if ranges:
                raise ValueError(
                    f"space.{ranges[0]}: a grid has no use for a range; list values, or set searcher to "
                    "'random' or 'optuna'"
                )
            if self.trials is not None:
                raise ValueError(
                    "trials: a grid has as many as its product; leave trials out, or set searcher to 'random'"
                )
        elif self.trials is None:
            raise ValueError(f"trials: searcher {self.searcher!r} needs to know how many; set it")
        size = self.size
        if size is not None and self.trials is not None and self.trials > size and self.scheduler != "pbt":
            raise ValueError(
                f"trials: {self.trials} are wanted of a space of {size}; lower it, or set searcher to 'grid'"
            )
        return self

    @model_validator(mode="after")
    def _objectives_are_measured(self) -> SweepConfig:
        if not self.objectives:
            raise ValueError("objectives: empty, so no trial would be better than another; name a metric")
        for name in self.objectives:
            if name not in METRIC_NAMES and not name.startswith("train/"):
                near = difflib.get_close_matches(name, METRIC_NAMES, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"objectives.{name}: no trial measures it; {hint}known: {', '.join(METRIC_NAMES)}, "
                    "and train/... for what training logs"
                )
        return self

    @property
    def size(self) -> int | None:
        """Number of different settings in the space; None where a range makes it boundless."""
        product = 1
        for values in self.space.values():
            if isinstance(values, RangeConfig):
                return None
            product *= len(values)
        return product


def with_settings(method: MethodConfig, settings: Mapping[str, Any]) -> MethodConfig:
    """The method with some settings replaced, `lora.r` for one of a section, checked anew.

    Where they leave depo without a bonus it is kto, the control of a grid over both alphas. Raises
    `ConfigError` for a setting that is not there, has no such value, or that nothing reads.
    """
    values = method.model_dump(exclude_unset=True)
    for key, value in settings.items():
        values = set_key(values, key, value)
    try:
        return MethodConfig.model_validate(without_bonus(values))
    except ValidationError as error:
        raise ConfigError(explain(error, MethodConfig)) from None


def check_space(sweep: SweepConfig, method: MethodConfig) -> None:
    """Refuse a space that the method cannot take, before any trial starts.

    Every combination of a grid is checked; of a range its two ends. Raises `ValueError`, one line with the
    field, the value and the mend.
    """
    for name, values in sweep.space.items():
        _known_field(name, method)
        fixed = _FIXED_IN_POPULATION.get(name.partition(".")[0])
        if sweep.scheduler == "pbt" and fixed:
            raise ValueError(
                f"sweep.space.{name}: members of a population go on from each other's weights and steps, and "
                f"{name} changes {fixed}; leave it out, or set scheduler to 'asha'"
            )
        for value in _ends(values):
            _alone(name, value, method)
    for settings in itertools.islice(_corners(sweep), _MOST_CHECKED):
        try:
            tried = with_settings(method, settings)
        except ConfigError as error:
            shown = " ".join(f"{key}={value}" for key, value in settings.items())
            raise ValueError(f"sweep.space: {shown} is refused: {error}") from None
        own, found = (OBJECTIVE_FACTS.get(m.objective) for m in (method, tried))
        if found is not None and found.needs_reference and own is not None and not own.needs_reference:
            raise ValueError(
                f"sweep.space.objective: {tried.objective!r} compares with a reference that "
                f"{method.objective!r}, the objective of sweep.method, does not have; sweep a method that "
                "has one"
            )
        if sweep.scheduler == "pbt" and _kind(tried) != _kind(method):
            raise ValueError(
                f"sweep.space.objective: {tried.objective!r} trains on other rows than {method.objective!r}, "
                "so members of a population cannot go on from each other; leave it out"
            )


def _known_field(name: str, method: MethodConfig) -> None:
    first, _, rest = name.partition(".")
    sections = {"lora": list(LoraConfig.model_fields), "options": [rest]}
    known = [f for f in MethodConfig.model_fields if f not in sections]
    known += [f"lora.{f}" for f in LoraConfig.model_fields]
    if first in _SHARED:
        raise ValueError(
            f"sweep.space.{name}: what lies before the training is shared by all trials; make a method of "
            "its own for each value, and compare them by `depo run`"
        )
    if name in known or (rest and rest in sections.get(first, ())):
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise ValueError(f"sweep.space: {name!r} is not defined; {hint}")


def _alone(name: str, value: Value, method: MethodConfig) -> None:
    """Refuse a value that its field cannot hold, whatever the others are."""
    values = set_key(method.model_dump(exclude_unset=True), name, value)
    try:
        MethodConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        # Without a place it is a matter of several settings together, which the combinations answer.
        if problem["loc"]:
            reason = explain(error, MethodConfig).partition(": ")[2]
            raise ValueError(f"sweep.space.{name}: {value!r} is refused: {reason}") from None


def _kind(method: MethodConfig) -> str:
    facts = OBJECTIVE_FACTS.get(method.objective)
    return facts.kind if facts is not None else method.objective


def _ends(values: list[Value] | RangeConfig) -> list[Value]:
    if isinstance(values, list):
        return values
    ends = (values.low, values.high)
    # What is drawn between two whole numbers is none.
    return (
        [int(end) for end in ends] if values.integer else [*ends, values.low + (values.high - values.low) / 3]
    )


def _corners(sweep: SweepConfig) -> Iterator[dict[str, Value]]:
    for values in itertools.product(*(_ends(v) for v in sweep.space.values())):
        yield dict(zip(sweep.space, values, strict=True))
