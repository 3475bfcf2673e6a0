"""Which settings a sweep tries: the whole grid, draws, or draws of Optuna that learn from trials.

Nothing here knows Ray: the searcher of Ray Tune asks, and is told by whoever knows a trial's end.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from depo.config.schema import SweepConfig
from depo.config.sweep import RangeConfig
from depo.records import content_hash

Settings = dict[str, Any]

_DIGITS = 6
"""Significant digits of a drawn number, so that it can be read, and typed again."""
_TRIES = 200


class Proposals(Protocol):
    """Where the settings of further trials come from."""

    def ask(self) -> Settings | None:
        """Settings that no trial has yet; None where there are no more."""

    def tell(self, settings: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """The end of a trial: what it measured, or None where it failed."""


def key_of(settings: Mapping[str, Any]) -> str:
    """The same for equal settings, whatever their order; 3 and 3.0 are equal, and 1 and true are not."""
    same = {k: float(v) if isinstance(v, int) and not isinstance(v, bool) else v for k, v in settings.items()}
    return content_hash(same)


def combinations(sweep: SweepConfig) -> list[Settings]:
    """The product of the grid's values, in the grid's order."""
    values = [v for v in sweep.space.values() if isinstance(v, list)]
    return [dict(zip(sweep.space, chosen, strict=True)) for chosen in itertools.product(*values)]


def draws(sweep: SweepConfig, count: int, distinct: bool = True) -> list[Settings]:
    """The first `count` draws from the space; the n-th is the same however many are drawn.

    Draws that came before are passed over where they are to be `distinct`; a space too small for it gives
    fewer.
    """
    found: list[Settings] = []
    seen: set[str] = set()
    number = 0
    while len(found) < count and number < count + _TRIES * count:
        rng = np.random.default_rng([sweep.seed & 0xFFFFFFFF, number])
        settings = {name: _draw(values, rng) for name, values in sweep.space.items()}
        number += 1
        if distinct and key_of(settings) in seen:
            continue
        seen.add(key_of(settings))
        found.append(settings)
    return found


def within(sweep: SweepConfig, settings: Mapping[str, Any]) -> bool:
    """Whether the settings lie in the space."""
    if set(settings) != set(sweep.space):
        return False
    return all(_holds(values, settings[name]) for name, values in sweep.space.items())


class Listed:
    """Settings known beforehand: a grid's, or random draws."""

    def __init__(self, settings: list[Settings]) -> None:
        self._left = list(settings)

    def ask(self) -> Settings | None:
        return self._left.pop(0) if self._left else None

    def tell(self, settings: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Nothing is learnt."""


class Learning:
    """Optuna's tree-structured Parzen estimator over all objectives at a time (Bergstra et al., 2011;
    multi-objective: Ozaki et al., 2022). Further trials are drawn where the good ones were."""

    def __init__(self, sweep: SweepConfig, known: int = 0) -> None:
        """`known` trials are already decided; a start with more of them draws differently."""
        self._sweep = sweep
        self._space = {name: _distribution(values) for name, values in sweep.space.items()}
        self._seen: set[str] = set()
        self._open: dict[str, optuna.trial.Trial] = {}
        self._budget = (sweep.trials or 0) - known
        seed = int(content_hash([sweep.seed, known], length=8), 16)
        startup = max(2, min(10, (sweep.trials or 0) // 3))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._study = optuna.create_study(
                sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup),
                directions=[
                    "minimize" if mode == "min" else "maximize" for mode in sweep.objectives.values()
                ],
            )

    def ask(self) -> Settings | None:
        for _ in range(_TRIES):
            if self._budget <= 0:
                return None
            trial = self._study.ask(self._space)
            settings = {name: rounded(trial.params[name], self._sweep.space[name]) for name in self._space}
            key = key_of(settings)
            if key in self._seen:
                # Another trial has or will have the answer; asked again with it, Optuna looks elsewhere.
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            self._seen.add(key)
            self._open[key] = trial
            self._budget -= 1
            return settings
        left = (s for s in combinations(self._sweep) if key_of(s) not in self._seen)
        last = next(left, None) if self._sweep.size is not None else None
        if last is not None:
            self._seen.add(key_of(last))
            self._budget -= 1
        return last

    def tell(self, settings: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        values = [(metrics or {}).get(name, math.nan) for name in self._sweep.objectives]
        measured = all(math.isfinite(value) for value in values)
        state = optuna.trial.TrialState.COMPLETE if measured else optuna.trial.TrialState.FAIL
        key = key_of(settings)
        self._seen.add(key)
        trial = self._open.pop(key, None)
        if trial is not None:
            self._study.tell(trial, values if measured else None, state=state)
        elif measured:
            self._study.add_trial(
                optuna.trial.create_trial(
                    params=self._params(settings), distributions=self._space, values=values, state=state
                )
            )

    def take(self, settings: Mapping[str, Any]) -> None:
        """These settings are another's to try: never propose them."""
        self._seen.add(key_of(settings))

    def _params(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as Optuna's distributions hold them: with the very values of a list."""
        params = {}
        for name, value in settings.items():
            tried = self._sweep.space[name]
            same = (
                [v for v in tried if key_of({"": v}) == key_of({"": value})]
                if isinstance(tried, list)
                else []
            )
            params[name] = same[0] if same else value
        return params


class Noted:
    """What was proposed and never ended, then what `further` proposes, each noted before it starts."""

    def __init__(
        self, left: Sequence[Settings], further: Proposals, note: Callable[[Settings], None]
    ) -> None:
        self._left, self._further, self._note = list(left), further, note

    def ask(self) -> Settings | None:
        if self._left:
            return self._left.pop(0)
        settings = self._further.ask()
        if settings is not None:
            self._note(settings)
        return settings

    def tell(self, settings: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        self._further.tell(settings, metrics)


def _draw(values: list[Any] | RangeConfig, rng: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(rng.integers(len(values)))]
    if values.integer and not values.log:
        return int(rng.integers(int(values.low), int(values.high) + 1))
    if not values.log:
        return rounded(rng.uniform(values.low, values.high), values)
    # Half a unit beyond each bound, so that a whole number at a bound has its full share.
    slack = 0.5 if values.integer else 0.0
    low, high = math.log(max(values.low - slack, 1e-300)), math.log(values.high + slack)
    return rounded(math.exp(rng.uniform(low, high)), values)


def rounded(value: Any, values: list[Any] | RangeConfig) -> Any:
    """A drawn number as it is tried: of few digits, inside its range."""
    if isinstance(values, list):
        return value
    bounded = min(max(float(f"{value:.{_DIGITS}g}"), values.low), values.high)
    return round(bounded) if values.integer else bounded


def _holds(values: list[Any] | RangeConfig, value: Any) -> bool:
    if isinstance(values, list):
        return key_of({"": value}) in {key_of({"": v}) for v in values}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return values.low <= value <= values.high and not (values.integer and value % 1)


def _distribution(values: list[Any] | RangeConfig) -> BaseDistribution:
    if isinstance(values, list):
        return CategoricalDistribution(tuple(values))
    if values.integer:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)
