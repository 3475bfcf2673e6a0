"""A training that was killed goes on from its last checkpoint and ends as if nothing had happened."""

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from training_help import DEPO, gap, make_home, spec
from training_ranks import Job, run_ranks

from depo.config.runtime import TrainingRuntime

pytestmark = pytest.mark.slow

# The scheduler and the moving average have to come back.
METHOD = {**DEPO, "max_steps": 12, "scheduler": "cosine", "warmup_ratio": 0.2, "kl": "moving"}
KILLED_AT, SAVE_STEPS = 7, 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("resume"))


def job(home: Path, name: str, runtime: TrainingRuntime, **changes) -> Job:
    folder = home / f"{name}-checkpoints"
    folder.mkdir(exist_ok=True)
    return Job(spec(home, name, runtime=runtime, **METHOD), checkpoints=folder, **changes)


def rows(path: Path) -> list[dict]:
    read = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read]


@pytest.mark.parametrize(("world", "stage"), [(1, 0), (2, 2), (2, 3)])
def test_killed_and_resumed_is_undisturbed_bit_for_bit(home, world, stage):
    runtime = TrainingRuntime(
        num_workers=world, device_batch_size=2, deepspeed_stage=stage, save_steps=SAVE_STEPS
    )
    whole, broken = f"whole-{world}-{stage}", f"broken-{world}-{stage}"
    # Both in the same processes: the second is killed.
    codes = run_ranks(
        home, [job(home, whole, runtime), job(home, broken, runtime, killed_at=KILLED_AT)], world
    )
    assert codes[0] == -signal.SIGKILL and 0 not in codes
    assert not (home / broken / "model").exists()
    saved = Path(json.loads((home / f"{broken}-checkpoints" / "saved.json").read_text()))
    assert saved.name == f"checkpoint-{SAVE_STEPS}"
    assert (saved / "adapter_model.safetensors").exists()
    assert (saved / ("optimizer.safetensors" if stage == 0 else f"global_step{SAVE_STEPS}")).exists()
    assert not (saved / "optimizer.pt").exists()

    assert run_ranks(home, [job(home, broken, runtime)], world) == [0] * world
    assert gap(home / whole / "model", home / broken / "model") == 0
    assert gap(home / whole / "model", home / "start/model") > 1e-3
    assert [row["step"] for row in rows(home / broken)] == list(range(1, 13))
    assert rows(home / broken) == rows(home / whole)
    audits = [pq.read_table(home / name / "audit.parquet") for name in (whole, broken)]
    assert audits[0].equals(audits[1]) and audits[0].num_rows == 12 * 8
