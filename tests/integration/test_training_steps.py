"""What a step may not depend on: how it is cut up, where it was resumed; and when it must not be taken."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from training_help import DEPO, KTO, SFT, drift, gap, make_home, plain_sgd, samples_of, score, spec
from training_ranks import Job, run_ranks
from transformers import AutoModelForCausalLM

from depo.config.base import ConfigError
from depo.config.runtime import TrainingRuntime
from depo.training.build import build_trainer
from depo.training.rows import training_rows
from depo.training.run import Checkpoints, load_table, train
from depo.training.saving import save_policy

pytestmark = pytest.mark.slow

# Moves far enough in two steps for z0 to be above 0.
FAR = {"full_parameters": True, "learning_rate": 2e-3, "lambda_desirable": 2.0}
METHODS = {
    "sft": SFT,
    "weighted_bc": SFT | {"objective": "weighted_bc", "weighting_temperature": 0.2},
    "depo": DEPO,
    "pairs": KTO | FAR,
    "batch": KTO | FAR | {"kl": "batch"},
    "moving": KTO | FAR | {"kl": "moving", "kl_decay": 0.5},
    "dpo": KTO | {"objective": "dpo"},
    "dmpo": DEPO | {"objective": "dmpo", "turn_discount": 0.5},
    "simpo": DEPO | {"objective": "simpo", "beta": 2.0},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("training"))


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", METHODS)
def test_weights_do_not_depend_on_how_a_step_is_cut(home, name, monkeypatch):
    """Batches of one hold one class each; seven samples cannot be cut but into ones."""
    plain_sgd(monkeypatch)
    for batch_size in (8, 7):
        for device in (1, 2 * batch_size):
            runtime = TrainingRuntime(device_batch_size=device)
            method = METHODS[name] | {"max_steps": 4, "batch_size": batch_size}
            train(spec(home, f"{name}-{batch_size}-{device}", **method, runtime=runtime))
        one, all_ = (home / f"{name}-{batch_size}-{d}" for d in (1, 2 * batch_size))
        assert drift(one / "model", all_ / "model", home / "start/model") < 1e-4
        assert gap(one / "model", home / "start/model") > 1e-3
        if name in ("pairs", "batch", "moving"):
            first, second = ([row["kl"] for row in rows_of(out)] for out in (one, all_))
            assert max(first) > 0.1 and first == pytest.approx(second, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ["sft", "depo", "dpo"])
def test_an_uneven_last_batch_counts_by_its_samples(home, name, monkeypatch):
    """Ten of twelve places of a step are filled: four, four and two samples, or ten times one."""
    plain_sgd(monkeypatch)
    for device in (4, 1):
        told = spec(
            home, f"uneven-{name}-{device}", **METHODS[name] | {"max_steps": 1, "batch_size": 12},
            runtime=TrainingRuntime(device_batch_size=2 * device if name == "dpo" else device),
        )  # fmt: skip
        trainer, tokenizer = build_trainer(told, training_rows(load_table(told), told.method), 1, None)
        trainer.train_dataset = Dataset.from_dict({"row": trainer.train_dataset["row"][:10]})
        trainer.train()
        save_policy(trainer, tokenizer, told.model_dir, "float32", Path(told.out_dir))
    few, many = (home / f"uneven-{name}-{device}/model" for device in (4, 1))
    assert drift(few, many, home / "start/model") < 1e-4
    assert gap(home / f"uneven-{name}-4/model", home / "start/model") > 1e-3


def test_kl_of_pairs_is_their_mean_log_ratio_over_the_whole_step(home):
    """z0 of the second step, under the policy that the first one left."""
    runtime = TrainingRuntime(device_batch_size=4, save_steps=1)
    two = spec(home, "two-steps", **KTO | FAR | {"max_steps": 2}, runtime=runtime)
    train(two, None, Checkpoints(home / "two-checkpoints", None, lambda *_: None))
    table = load_table(two)
    audit = pq.read_table(home / "two-steps/audit.parquet").to_pandas()
    rows = [table.ids.index(name) for name in audit["sample_id"][audit["step"] == 2]]
    pairs = [table.kl_sequence(row) for row in rows]
    conversations = [{"token_ids": ids, "agent_mask": weights} for ids, weights in pairs]
    policy = score(AutoModelForCausalLM.from_pretrained(home / "two-checkpoints/checkpoint-1"), conversations)
    expected = float(np.mean(policy.numpy() - table.ref_kl_logp[rows]))
    assert expected > 0.1
    assert rows_of(home / "two-steps")[1]["kl"] == pytest.approx(expected, rel=1e-3)


def test_other_kl_estimates_are_means_of_the_steps_own_log_ratios(home):
    for kl in ("zero", "batch", "moving"):
        decay = {"kl_decay": 0.5} if kl == "moving" else {}
        train(spec(home, f"kl-{kl}", **KTO | FAR | {"kl": kl} | decay))
        found = [row["kl"] for row in rows_of(home / f"kl-{kl}")]
        audit = pq.read_table(home / f"kl-{kl}/audit.parquet").to_pandas()
        means = audit.groupby("step")["log_ratio"].mean().tolist()
        average, averages = 0.0, []
        for mean in means:
            averages.append(average)
            average = 0.5 * average + 0.5 * mean
        expected = {"zero": [0.0] * 6, "batch": means, "moving": averages}[kl]
        assert found == pytest.approx([max(z, 0) for z in expected], rel=1e-4, abs=1e-4)
        assert kl == "zero" or max(found) > 0.1


class Killed(Exception):
    """Stands for the end of a process: nothing after it is written."""


@pytest.mark.parametrize("name", ["sft", "moving", "dpo"])
def test_a_resumed_training_ends_as_an_undisturbed_one(home, name):
    runtime = TrainingRuntime(device_batch_size=4, save_steps=4)
    method = METHODS[name] | {"max_steps": 9}
    whole, cut = (spec(home, f"{name}-{part}", **method, runtime=runtime) for part in ("whole", "cut"))
    train(whole)
    saved: list[Path] = []

    def stop(row: dict) -> None:
        if row["step"] == 6:
            raise Killed

    folder = home / f"{name}-checkpoints"
    with pytest.raises(Killed):
        train(cut, stop, Checkpoints(folder, None, lambda _, path: saved.append(path)))
    assert [path.name for path in saved] == ["checkpoint-4"]
    summary = train(cut, None, Checkpoints(folder, saved[0], lambda *_: None))
    assert summary["resumed_at"] == 4 and summary["steps"] == 9
    # Killed again after the last step, before the stage was done.
    again = train(cut, None, Checkpoints(folder, folder / "checkpoint-9", lambda *_: None))
    assert again["resumed_at"] == 9 and again["loss"] == summary["loss"]
    assert gap(home / f"{name}-whole/model", home / f"{name}-cut/model") == 0
    assert [row["step"] for row in rows_of(home / f"{name}-cut")] == list(range(1, 10))
    if name != "sft":
        first, second = (pq.read_table(home / f"{name}-{part}/audit.parquet") for part in ("whole", "cut"))
        assert first.equals(second) and first.num_rows == 9 * 8 * (2 if name == "dpo" else 1)


@pytest.mark.parametrize(
    ("name", "field", "message"),
    [
        ("depo", "bonus", r"step 1: the loss is no finite number for sample s9;"),
        ("pairs", "ref_kl_logp", r"step 1: the log-prob of the KL pair is no finite number for sample s9;"),
        ("dpo", "ref_logp", r"step 1: the loss is no finite number for sample s8, s9, s10;"),
    ],
)
def test_a_loss_that_is_no_number_stops_by_name(home, name, field, message):
    pairs = {"pairs_per_task": 4} if name == "dpo" else {}
    told = spec(home, f"nan-{name}", **METHODS[name] | {"batch_size": 24} | pairs)
    table = load_table(told)
    values = getattr(table, field).copy()
    values[table.ids.index("s9")] = np.nan
    rows = training_rows(replace(table, **{field: values}), told.method)
    trainer, _ = build_trainer(told, rows, 1, None)
    with pytest.raises(ConfigError, match=message):
        trainer.train()


def test_all_ranks_stop_where_one_has_a_sample_without_a_number(home, capfd):
    reference = pq.read_table(home / "reference.parquet")
    rows = reference.to_pylist()
    for row in rows:
        if row["sample_id"] == "s9":  # finite, but not their sum in float32
            row["logps"] = [-3e38] * len(row["logps"])
    pq.write_table(pa.Table.from_pylist(rows, schema=reference.schema), home / "broken.parquet")
    told = spec(
        home, "broken", **DEPO | {"batch_size": 24, "max_steps": 1},
        runtime=TrainingRuntime(num_workers=2, device_batch_size=4, deepspeed_stage=0),
    )  # fmt: skip
    assert run_ranks(home, [Job(replace(told, reference=str(home / "broken.parquet")))]) == [1, 1]
    named = "step 1: the loss is no finite number for sample s9; look"
    assert capfd.readouterr().err.count(f"ConfigError: {named}") == 2
    assert not (home / "broken/model").exists()


@pytest.mark.parametrize("name", ["sft", "depo"])
def test_a_policy_that_ran_away_stops_and_is_not_saved(home, name):
    with pytest.raises(ConfigError, match=r"no finite number for sample s\d+, .*; .*lower learning_rate"):
        train(spec(home, f"away-{name}", **METHODS[name] | {"learning_rate": 1e30}))
    assert not (home / f"away-{name}/model").exists()


@pytest.mark.parametrize("name", ["kto", "dpo"])
def test_training_stops_once_undesirable_samples_are_far_below_the_reference(home, name):
    method = KTO | {"objective": name, "max_steps": 40, "learning_rate": 1e-2, "beta": 0.1}
    summary = train(spec(home, f"stop-{name}", **method, stop_logratio=-8.0))
    rows = rows_of(home / f"stop-{name}")
    assert summary["stopped_early"] == 1 and 1 < summary["steps"] < 40
    assert rows[-1]["stopped_early"] == 1 and rows[-1]["step"] == summary["steps"]
    assert rows[-1]["logratio_undesirable"] < -8 <= min(row["logratio_undesirable"] for row in rows[:-1])
    policy = AutoModelForCausalLM.from_pretrained(home / f"stop-{name}/model")
    undesirable = samples_of(home)[1::2]
    before = score(AutoModelForCausalLM.from_pretrained(home / "start/model"), undesirable)
    assert torch.mean(score(policy, undesirable) - before) < -6
    assert (
        train(spec(home, f"go-{name}", **method | {"max_steps": 2}, stop_logratio=-8.0))["stopped_early"] == 0
    )
