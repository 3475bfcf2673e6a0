"""However weights, gradients and optimizer states are shared out over ranks: the same training."""

import json
from pathlib import Path

import pytest
from training_help import DEPO, drift, gap, make_home, plain_sgd, spec
from training_ranks import Job, run_ranks

from depo.config.runtime import TrainingRuntime
from depo.training.run import train

pytestmark = pytest.mark.slow

FULL = {**DEPO, "full_parameters": True, "learning_rate": 1e-3}
VARIANTS = {
    "ddp": {"deepspeed_stage": 0},
    "zero1": {"deepspeed_stage": 1},
    "zero2": {"deepspeed_stage": 2},
    "zero2-offload": {"deepspeed_stage": 2, "offload": "optimizer"},
    "zero3": {"deepspeed_stage": 3},
    "zero3-offload": {"deepspeed_stage": 3, "offload": "parameters"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All variants trained on two ranks, adapters and all weights, and the same in one process."""
    folder = make_home(tmp_path_factory.mktemp("zero"))
    jobs = []
    for name, changes in VARIANTS.items():
        runtime = TrainingRuntime(num_workers=2, device_batch_size=2, **changes)
        jobs.append(Job(spec(folder, f"lora-{name}", runtime=runtime, **DEPO), sgd=True))
        if name in ("zero1", "zero3"):
            jobs.append(Job(spec(folder, f"full-{name}", runtime=runtime, **FULL), sgd=True))
    assert run_ranks(folder, jobs) == [0, 0]
    alone = TrainingRuntime(device_batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        plain_sgd(patch)
        train(spec(folder, "lora-alone", runtime=alone, **DEPO))
        train(spec(folder, "full-alone", runtime=alone, **FULL))
    return folder


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def agree(first: Path, second: Path) -> None:
    for mine, other in zip(rows(first), rows(second), strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4), mine["step"]
        # Sums over trajectories of some hundred nats: what float32 leaves of them is 1e-4 at best.
        for key in ("kl", "nll", "logratio_desirable", "logratio_undesirable"):
            assert mine[key] == pytest.approx(other[key], rel=1e-4, abs=1e-3), (key, mine["step"])


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_and_weights_of_adapters_are_those_of_one_process(home, name):
    agree(home / f"lora-{name}", home / "lora-alone")
    assert len(rows(home / f"lora-{name}")) == DEPO["max_steps"]
    start = home / "start/model"
    assert drift(home / f"lora-{name}/model", home / "lora-alone/model", start) < 1e-4
    assert gap(home / f"lora-{name}/model", home / "start/model") > 1e-3


@pytest.mark.parametrize("name", ["zero1", "zero3"])
def test_losses_of_full_training_are_those_of_one_process(home, name):
    agree(home / f"full-{name}", home / "full-alone")
    assert drift(home / f"full-{name}/model", home / "full-alone/model", home / "start/model") < 1e-4
    assert gap(home / f"full-{name}/model", home / "start/model") > 1e-3
