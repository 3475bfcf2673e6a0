"""What a sweep's configuration refuses, in one line, before anything runs."""

from pathlib import Path

import pytest

from depo.config.base import ConfigError
from depo.config.load import load_config
from depo.config.schema import MethodConfig
from depo.config.sweep import METRIC_NAMES, SweepConfig, with_settings
from depo.evaluation.metrics import METRICS

DEMO = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"
RANGE = "space: {beta: {low: 0.1, high: 1}}"


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("space: {}", "sweep: space: empty"),
        ("space: {beta: []}", "sweep: space.beta: no values"),
        ("space: {beta: [1, 1.0]}", "sweep: space.beta: a value stands there twice"),
        ("space: {alpha_token: [1]}", "sweep.space: 'alpha_token' is not defined; did you mean"),
        ("space: {lora.rank: [1]}", "sweep.space: 'lora.rank' is not defined"),
        ("space: {lora.rr: [1]}", "sweep.space: 'lora.rr' is not defined; did you mean 'lora.r'?"),
        ("space: {lora.r: [8, 0]}", "sweep.space.lora.r: 0 is refused: input should be greater than or"),
        ("space: {beta: [0.1, -1]}", "sweep.space.beta: -1 is refused: input should be greater than 0"),
        ("space: {beta: [x]}", "sweep.space.beta: 'x' is refused: input should be a valid number"),
        ("space: {placement: [margi]}", "sweep.space.placement: 'margi' is refused"),
        ("space: {view: [raw]}", "sweep.space.view: what lies before the training is shared by all trials"),
        (
            "space: {kl: [pairs, moving], kl_decay: [0.5, 0.9]}",
            "sweep.space: kl=pairs kl_decay=0.5 is refused: kl_decay is not read while kl is 'pairs'",
        ),
        ("space: {beta: {low: 1, high: 1}}", "sweep.space.beta.range: low 1 is not below high 1"),
        ("space: {beta: {low: 0, high: 1, log: true}}", "sweep.space.beta.range: a logarithmic range starts"),
        ("space: {lora.r: {low: 1, high: 2.5, integer: true}}", "sweep.space.lora.r.range: an integer"),
        ("searcher: random, trials: 2, space: {beta: {low: -1, high: 1}}", "sweep.space.beta: -1.0"),
        ("searcher: random, trials: 2, space: {lora.r: {low: 4, high: 8}}", "sweep.space.lora.r: 5.3"),
        (RANGE, "sweep: space.beta: a grid has no use for a range"),
        ("trials: 3", "sweep: trials: a grid has as many as its product"),
        ("searcher: optuna", "sweep: trials: searcher 'optuna' needs to know how many"),
        ("searcher: random, trials: 5", "sweep: trials: 5 are wanted of a space of 4"),
        ("scheduler: asha", "sweep: rungs: scheduler 'asha' judges at rungs; set 2 or more"),
        ("scheduler: pbt, rungs: 1", "sweep: rungs: scheduler 'pbt' judges at rungs"),
        ("scheduler: pbt, rungs: 2", "sweep: searcher: scheduler 'pbt' changes settings itself"),
        (
            "scheduler: pbt, rungs: 2, searcher: optuna, trials: 4",
            "sweep: searcher: scheduler 'pbt' changes settings itself and does not go with 'optuna'",
        ),
        ("scheduler: pbt, rungs: 2, searcher: random, trials: 1", "sweep: trials: a population of one"),
        (
            "scheduler: pbt, rungs: 2, searcher: random, trials: 4, space: {beta: [1, 2], lora.r: [4, 8]}",
            "sweep.space.lora.r: members of a population go on from each other's weights and steps",
        ),
        (
            "scheduler: pbt, rungs: 2, searcher: random, trials: 4, space: {epochs: [1, 2]}",
            "sweep.space.epochs: members of a population go on from each other's weights and steps",
        ),
        ("objectives: {}", "sweep: objectives: empty"),
        ("objectives: {tokens: min}", "sweep: objectives.tokens: no trial measures it; did you mean"),
        ("objectives: {success: up}", "sweep.objectives.success: input should be 'min' or 'max'"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_is_one_line_with_key_and_mend(sweep, message, tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("{" + sweep + "}")
    with pytest.raises(ConfigError) as caught:
        load_config(DEMO, [f"sweep=@{path}"])
    assert str(caught.value).removeprefix(f"{DEMO}: ").startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sweep",
    [
        {"scheduler": "asha", "rungs": 3},
        {"scheduler": "asha", "rungs": 3, "searcher": "optuna", "trials": 4},
        {"scheduler": "pbt", "rungs": 2, "searcher": "random", "trials": 8},
        {"objectives": {"success": "max", "train/loss": "min"}},
        {"space": {"lora.r": {"low": 2, "high": 8, "integer": True}}, "searcher": "random", "trials": 50},
    ],
)
def test_what_goes_together_is_taken(sweep):
    assert SweepConfig(**sweep).judged_by == next(iter(SweepConfig(**sweep).objectives.items()))


def test_a_training_without_reference_cannot_be_swept_into_one_that_has():
    with pytest.raises(ConfigError, match=r"objective: 'kto' compares with a reference that 'sft'"):
        load_config(DEMO, ["sweep={method: bc, space: {objective: [sft, kto]}}"])


def test_the_metrics_that_an_objective_may_name_are_those_that_are_measured():
    assert {metric.key for metric in METRICS} == set(METRIC_NAMES)


def test_settings_reach_into_sections_and_are_checked():
    method = MethodConfig(objective="depo")
    changed = with_settings(method, {"lora.r": 4, "beta": 0.5})
    assert (changed.lora.r, changed.lora.alpha, changed.beta) == (4, method.lora.alpha, 0.5)
    # The corner of a grid that has no bonus is its control.
    margin = MethodConfig(objective="depo", placement="margin", beta=0.5)
    assert with_settings(margin, {"alpha_tokens": 0, "alpha_steps": 0.0}) == MethodConfig(
        objective="kto", beta=0.5
    )
    with pytest.raises(ConfigError, match=r"lora\.r: input should be"):
        with_settings(method, {"lora.r": 0})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("gpus_per_trial=1.5", "gpus_per_trial: 1.5 is neither whole nor part of one GPU"),
        ("distributed=true", "gpus_per_trial: a distributed trial holds no GPU itself"),
    ],
)
def test_gpus_are_whole_or_part_of_one(override, message):
    overrides = ["runtime.sweep.gpus_per_trial=1", f"runtime.sweep.{override}"]
    with pytest.raises(ConfigError, match=message):
        load_config(DEMO, overrides)
