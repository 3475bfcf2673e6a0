"""Schedulers of Ray Tune as sweeps use them: who stops at a rung, and who goes on from whom."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, PopulationBasedTraining, TrialScheduler

from depo.config.schema import SweepConfig
from depo.config.sweep import RangeConfig
from depo.stages.sweep.proposals import rounded

WORST = 1e18
"""Stands for an objective that a rung did not measure, so that schedulers hold it for the worst."""


@dataclass(frozen=True)
class _Past:
    """A trial of an earlier start, as far as a scheduler asks."""

    trial_id: str


def halving(config: SweepConfig, past_trials: Mapping[str, list[dict[str, Any]]]) -> TrialScheduler:
    """Asynchronous successive halving (Li et al., 2020), one of its rungs at each of ours but the last.

    `past_trials` holds the rungs (`rung` and metrics) of trials that ended in earlier starts, by name: the
    others are judged beside them.
    """
    name, mode = config.judged_by
    scheduler = AsyncHyperBandScheduler(
        time_attr="judged",
        metric="score",
        mode=mode,
        grace_period=1,
        max_t=config.reduction ** (config.rungs - 1) + 1,
        reduction_factor=config.reduction,
    )
    for key, rungs in past_trials.items():
        past: Any = _Past(key)
        nobody: Any = None
        scheduler.on_trial_add(nobody, past)
        for row in rungs:
            if row["rung"] < config.rungs:
                score = row.get(name, WORST if mode == "min" else -WORST)
                judged = config.reduction ** (row["rung"] - 1)
                scheduler.on_trial_result(nobody, past, {"judged": judged, "score": score})
    return scheduler


class _Generations(PopulationBasedTraining):  # type: ignore[misc]
    """Population-based training (Jaderberg et al., 2017) whose members wait for each other at every rung.

    So what becomes of them depends on the seed alone, not on who was faster, and a start after a kill comes
    to the same decisions again.
    """

    def __init__(self, seed: int, **settings: Any) -> None:
        super().__init__(synch=True, time_attr="judged", metric="score", perturbation_interval=1, **settings)
        self._seed = seed

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        # Tune draws from these two, and all of a rung's draws are made in this one call.
        random.seed(f"{self._seed}/{result['judged']}")
        np.random.seed(random.getrandbits(32))
        return str(super().on_trial_result(tune_controller, trial, result))

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        chosen = super().choose_trial_to_run(tune_controller)
        trials = tune_controller.get_trials()
        waiting = [trial for trial in trials if trial.status == "PAUSED"]
        if chosen is None and waiting and all(t in waiting or t.is_finished() for t in trials):
            # All wait for a member that has failed meanwhile, and Tune would wait for ever.
            states: dict[Any, Any] = self._trial_state
            for trial in trials:
                if trial.status == "ERROR":
                    states[trial].last_train_time = self._next_perturbation_sync
            self.on_trial_result(tune_controller, waiting[-1], states[waiting[-1]].last_result)
            chosen = super().choose_trial_to_run(tune_controller)
        return chosen


def population_based(config: SweepConfig) -> TrialScheduler:
    """Population-based training whose changed settings stay inside the space."""
    space = config.space

    def inside(job: dict[str, Any]) -> dict[str, Any]:
        settings = {name: rounded(v, space[name]) for name, v in job["job"]["settings"].items()}
        return {**job, "job": {**job["job"], "settings": settings}}

    return _Generations(
        config.seed,
        mode=config.judged_by[1],
        hyperparam_mutations={"job": {"settings": {n: _mutation(v) for n, v in space.items()}}},
        custom_explore_fn=inside,
        log_config=False,
    )


def _mutation(values: list[Any] | RangeConfig) -> Any:
    if isinstance(values, list):
        return values
    low, high = values.low, values.high
    if values.integer:
        draw = tune.lograndint if values.log else tune.randint
        return draw(int(low), int(high) + 1)
    return (tune.loguniform if values.log else tune.uniform)(low, high)
