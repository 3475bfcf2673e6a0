"""A trial that starts Ray Train and Ray Data of its own: its rungs break the training up without a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from training_help import DEPO, gap, make_home, parted, spec

from depo.config.runtime import GenerationRuntime, RuntimeConfig, SweepRuntime, TrainingRuntime
from depo.config.schema import EnvConfig, EvaluationConfig, StudentConfig
from depo.stages.cluster import connect
from depo.stages.sweep.rungs import close_shared
from depo.stages.sweep.trial import RungResult, TrialPlan, run_trial, trial_spec
from depo.stages.tasksets import evaluation_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

ENV = EnvConfig(id="babyai", options={"levels": ["GoToObjS6-v1"], "instructions": "brief"})
EVALUATION = EvaluationConfig(split="validation", tasks=2, decoding=["greedy"], max_steps=2, max_tokens=4)
METHOD = {**DEPO, "scheduler": "cosine", "warmup_ratio": 0.2, "kl": "moving", "max_steps": 6}
GENERATION = GenerationRuntime(engine="transformers", actors=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    yield make_home(tmp_path_factory.mktemp("trial"))
    close_shared()
    ray.shutdown()


def plan(home: Path, name: str, **sweep) -> TrialPlan:
    training = TrainingRuntime(num_workers=2, deepspeed_stage=1, device_batch_size=4)
    runtime = RuntimeConfig(num_cpus=4, training=training, generation=GENERATION, sweep=SweepRuntime(**sweep))
    return TrialPlan(
        base=replace(spec(home, "unused", **METHOD), runtime=training),
        tasks=evaluation_tasks(ENV, EVALUATION),
        evaluation=EVALUATION,
        env=ENV,
        student=StudentConfig(max_length=256),
        runtime=runtime,
        inputs={},
        out_dir=str(home / name),
        rungs=2,
        population=True,
    )


def curve(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Gone(BaseException):
    """What ends a trial from outside, as a scheduler does."""


def climb(plan: TrialPlan) -> tuple[RungResult, Path]:
    """A trial up to its first rung, and another that goes on from there with a smaller learning rate."""
    told: list[RungResult] = []

    def stop(result: RungResult) -> None:
        told.append(result)
        raise Gone

    with pytest.raises(Gone):
        run_trial({"alpha_steps": 2.0}, plan, stop)
    settings = {"alpha_steps": 2.0, "learning_rate": 1e-3}
    run_trial(settings, plan, resume=told[0].checkpoint, member="b")
    return told[0], trial_spec(plan, settings, told[0].checkpoint, "b").out_dir


def test_a_trial_of_several_workers_stops_at_its_rung_and_another_goes_on_from_there(home):
    near, far = plan(home, "near"), plan(home, "far", distributed=True)
    connect(far.runtime)
    (rung, folder), (near_rung, near_folder) = climb(far), climb(near)
    assert (rung.rung, rung.metrics["train/steps"]) == (1, 3)
    assert set(rung.metrics) == set(near_rung.metrics) and "tokens_all" in rung.metrics
    # The very steps that one process takes without Ray and ZeRO, on one schedule over the whole length.
    rows, near_rows = curve(folder), curve(near_folder)
    for name in ("step", "learning_rate"):
        assert [row[name] for row in rows] == [row[name] for row in near_rows]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[2]["learning_rate"] > 2e-3 and 0 < rows[3]["learning_rate"] < 1e-3
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in near_rows], rel=1e-3)
    assert parted(folder / "model", near_folder / "model", home) < 1e-2
    assert gap(folder / "model", home / "start/model") > 1e-3
