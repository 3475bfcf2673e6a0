"""Who a scheduler stops at a rung, without a cluster."""

from dataclasses import dataclass
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from depo.config.schema import SweepConfig
from depo.stages.sweep.schedulers import WORST, halving


@dataclass(frozen=True)
class Asked:
    """A trial, as far as a scheduler asks."""

    trial_id: str


def config(mode: str) -> SweepConfig:
    return SweepConfig(scheduler="asha", rungs=4, reduction=2, objectives={"tokens_all": mode})


def decided(scheduler: Any, name: str, rung: int, score: float) -> str:
    trial = Asked(name)
    if rung == 1:
        scheduler.on_trial_add(None, trial)
    return scheduler.on_trial_result(None, trial, {"judged": 2 ** (rung - 1), "score": score})


@pytest.mark.parametrize(("mode", "better", "worse"), [("min", 10.0, 20.0), ("max", 20.0, 10.0)])
def test_each_rung_before_the_last_is_judged_and_the_past_counts(mode, better, worse):
    past = {"old": [{"rung": rung, "tokens_all": better} for rung in (1, 2, 3, 4)]}
    for rung in (1, 2, 3):
        scheduler = halving(config(mode), past)
        for reached in range(1, rung):
            assert decided(scheduler, "new", reached, better) == TrialScheduler.CONTINUE
        assert decided(scheduler, "new", rung, worse) == TrialScheduler.STOP
    alone = halving(config(mode), {})
    assert decided(alone, "new", 1, worse) == TrialScheduler.CONTINUE


def test_a_rung_without_the_objective_is_the_worst():
    past = {"old": [{"rung": 1, "tokens_all": 30.0}], "none": [{"rung": 1, "success": 0.0}]}
    scheduler = halving(config("min"), past)
    assert decided(scheduler, "measured", 1, 29.0) == TrialScheduler.CONTINUE
    assert decided(scheduler, "not", 1, WORST) == TrialScheduler.STOP
