"""The reference stage on Ray: per-token scores, cached by content, resumed batch by batch."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import ray
from tiny_llama import save_model

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.config.schema import StudentConfig
from depo.data.reference_cache import CACHE
from depo.data.samples import make_samples
from depo.data.store import TOKENIZER_KEY, write_table
from depo.policies.base import format_reply
from depo.policies.checkpoint import load_renderer
from depo.records import Sample, Step, Task, Trajectory
from depo.stages.reference import score
from depo.training.dataset import load_samples, with_reference
from depo.training.reference import ReferenceScorer, score_table
from depo.training.spec import LOG_PROBS

pytestmark = pytest.mark.slow

RUNTIME = RuntimeConfig.model_validate({"num_cpus": 2, "generation": {"actors": 1}})
STUDENT = StudentConfig(max_length=400)


def trajectory(number: int) -> Trajectory:
    steps = [
        Step("You see a door.", format_reply(thought, "go"), thought, "go", 0.0, True, False, 9)
        for thought in (f"Thought {number}.", "Again.", "Once more.", "At last.")[: 1 + number % 4]
    ]
    task = Task("babyai", "GoToRedBall", number, "train")
    return Trajectory(task, "teacher", "", "Act.", tuple(steps), 0.9, True, "terminated")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model and samples of both views, some of them too long; Ray, shut down at the end."""
    home = tmp_path_factory.mktemp("reference")
    model = save_model(home / "model", seed=3)
    renderer = load_renderer(str(model))
    labelled = [(trajectory(n), "DU"[n % 2]) for n in range(90)]
    samples = make_samples(labelled, {}, renderer, seed=0)
    write_table(home / "samples.parquet", samples, Sample, {TOKENIZER_KEY: renderer.fingerprint.encode()})
    yield home
    ray.shutdown()


def run(home: Path, name: str, view: str = "raw", model: str = "model", runs: str = "runs", **student):
    return score(
        home / "samples.parquet", view, str(home / model), STUDENT.model_copy(update=student), RUNTIME,
        home / runs, home / runs / name,
    ).metrics  # fmt: skip


def test_scores_are_kept_by_content_and_only_unfinished_batches_are_scored_again(home):
    whole = run(home, "a")
    assert whole["scored"] > 64 and whole["cached"] == 0
    written = (home / "runs/a" / LOG_PROBS).read_bytes()
    # The same weights in another place, for another run.
    shutil.copytree(home / "model", home / "copy")
    again = run(home, "b", model="copy")
    assert again["scored"] == 0 and again["cached"] == whole["scored"]
    assert (home / "runs/b" / LOG_PROBS).read_bytes() == written
    # What a kill leaves: some batches, no table.
    (folder,) = (home / "runs" / CACHE).iterdir()
    shards = sorted(folder.glob("*.parquet"))
    assert len(shards) > 1
    shards[0].unlink()
    (home / "runs/a" / LOG_PROBS).unlink()
    resumed = run(home, "a")
    assert 0 < resumed["scored"] < whole["scored"]
    assert (home / "runs/a" / LOG_PROBS).read_bytes() == written


def test_what_the_stage_writes_is_what_training_reads(home):
    run(home, "cut", too_long="cut", max_length=100)
    table = load_samples(str(home / "samples.parquet"), "raw", 100, "cut")
    assert table.cut > 10 and table.dropped == 0
    joined = with_reference(table, str(home / "runs/cut" / LOG_PROBS))
    here = score_table(table, ReferenceScorer(str(home / "model")))
    own = {row.sample_id: sum(row.logps) for row in here}
    kl = {row.sample_id: sum(row.kl_logps) for row in here}
    for row in table.rows:
        assert joined.ref_logp[row] == pytest.approx(own[table.ids[row]], rel=1e-5)
        assert joined.ref_kl_logp[row] == pytest.approx(kl[table.ids[row]], rel=1e-5)


def test_samples_of_another_tokenizer_are_refused_before_anything_is_scored(home):
    shutil.copytree(home / "model", home / "template")
    (home / "template/chat_template.jinja").write_text(
        (home / "template/chat_template.jinja").read_text().replace("<|end|>", "<|end|> ")
    )
    with pytest.raises(ConfigError, match=r"samples\.parquet: made with another tokenizer or chat template"):
        run(home, "e", model="template")
