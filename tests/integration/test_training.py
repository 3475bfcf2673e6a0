"""Training with the real libraries on a tiny model: in process, and on Ray Train with DeepSpeed."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

from depo.config.base import ConfigError
from depo.config.runtime import TrainingRuntime
from depo.config.schema import LoraConfig as LoraSection
from depo.config.schema import MethodConfig, TinyConfig
from depo.objectives.preference import kl_estimate, kto_loss
from depo.policies.chat import ChatRenderer
from depo.records import REFERENCE_SCHEMA, SAMPLE_SCHEMA, ReferenceLogProbs, to_table
from depo.training.collator import pad
from depo.training.logprobs import prepare_scoring, sequence_logps
from depo.training.reference import ReferenceScorer
from depo.training.run import TrainSpec, train
from depo.training.tiny import make_tiny

pytestmark = pytest.mark.slow

SYSTEM = "Reply with a thought and an action."
SEEN = ["You see: a red ball 1.", "You see: a grey key 2 to the left of you.", "A wall."]
REPLIES = [
    "Thought: The ball is near.\nAction: go to red ball 1",
    "Thought: A wall, so turn.\nAction: turn left",
]
TINY = TinyConfig(hidden_size=32, layers=2, heads=2, intermediate_size=64, vocab_size=400)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with non-uniform predictions, 24 samples of 1 to 3 turns, and their reference log-probs."""
    folder = tmp_path_factory.mktemp("training")
    tokenizer = make_tiny(TINY, [SYSTEM, *SEEN, *REPLIES], 256, 0, folder / "initial")
    samples = [_sample(ChatRenderer(tokenizer), number) for number in range(24)]
    pq.write_table(to_table(samples, SAMPLE_SCHEMA), folder / "samples.parquet")
    train(spec(folder, "start", objective="sft", max_steps=12, learning_rate=3e-3, full_parameters=True))
    scored = ReferenceScorer(str(folder / "start/model"), "float32")(_batch(samples))
    rows = [ReferenceLogProbs(*map(_plain, row)) for row in zip(*scored.values(), strict=True)]
    pq.write_table(to_table(rows, REFERENCE_SCHEMA), folder / "reference.parquet")
    return folder


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def _sample(renderer: ChatRenderer, number: int) -> dict:
    ids, mask, turns = [], [], 1 + number % 3
    for turn in range(turns):
        seen, reply = SEEN[(number + turn) % 3], renderer.reply(REPLIES[(number + turn) % 2])
        context = renderer.following(seen) if turn else renderer.first(SYSTEM, seen)
        ids, mask = [*ids, *context, *reply], [*mask, *[0] * len(context), *[1] * len(reply)]
    return {
        "id": f"s{number}", "trajectory_id": f"t{number}", "task_id": "k", "env": "e", "level": "l",
        "policy": "p", "label": "DU"[number % 2], "view": "raw", "reward": 1.0, "success": True,
        "num_steps": turns,
        "num_tokens": sum(mask) - turns, "token_ids": ids, "agent_mask": mask,
        "prompt_length": len(renderer.first(SYSTEM, SEEN[number % 3])),
        "kl_partner": f"s{(number * 7 + 3) % 24}",
    }  # fmt: skip


def _batch(samples: list[dict]) -> dict[str, list]:
    by_id = {s["id"]: s for s in samples}
    names = ("token_ids", "agent_mask", "prompt_length")
    own = {name: [s[name] for s in samples] for name in ("id", *names)}
    return own | {f"partner_{name}": [by_id[s["kl_partner"]][name] for s in samples] for name in names}


def spec(folder: Path, out: str, **changes) -> TrainSpec:
    full = changes.pop("full_parameters", False)
    runtime = changes.pop("runtime", TrainingRuntime(device_batch_size=4))
    method = {
        "objective": "depo",
        "view": "raw",
        "batch_size": 8,
        "lora": LoraSection(r=4, alpha=8),
    } | changes
    return TrainSpec(
        method=MethodConfig(**method),
        model_dir=str(folder / ("initial" if out == "start" else "start/model")),
        samples=str(folder / "samples.parquet"),
        reference=str(folder / "reference.parquet"),
        out_dir=str(folder / out),
        dtype="float32",
        max_length=256,
        full_parameters=full,
        observation_weight=0.1 if full else 0.0,
        runtime=runtime,
    )


DEPO = {
    "max_steps": 6, "learning_rate": 5e-3, "beta": 0.5, "alpha_tokens": 3.0, "alpha_steps": 2.0,
    "nll_coefficient": 0.2, "warmup_ratio": 0.0, "scheduler": "constant",
}  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(path).state_dict()


def gap(first: Path, second: Path) -> float:
    other = weights(second)
    return max((value - other[name]).abs().max().item() for name, value in weights(first).items())


def score(model, samples: list[dict]) -> torch.Tensor:
    vocab_size = prepare_scoring(model)
    with torch.no_grad():
        return torch.cat(
            [
                sequence_logps(
                    model, torch.tensor([s["token_ids"]]), torch.tensor([s["agent_mask"]]), vocab_size
                )
                for s in samples
            ]
        )


def samples_of(home: Path) -> list[dict]:
    return pq.read_table(home / "samples.parquet").to_pylist()


def test_log_probs_are_those_of_the_agents_tokens_whatever_the_batch(home):
    samples = samples_of(home)[:5]
    model = AutoModelForCausalLM.from_pretrained(home / "start/model").eval()
    expected = []
    for s in samples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([s["token_ids"]])).logits[0].double().log_softmax(-1)
        chosen = range(1, len(s["token_ids"]))
        expected.append(sum(logits[i - 1, s["token_ids"][i]].item() for i in chosen if s["agent_mask"][i]))
    vocab_size = prepare_scoring(model)
    ids = pad([np.array([*s["token_ids"], *[0] * 9]) for s in samples], 7)
    mask = pad([np.array(s["agent_mask"]) for s in samples], 0)
    mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]))
    with torch.no_grad():
        whole = sequence_logps(model, ids, mask, vocab_size)
        tiled = sequence_logps(model, ids, mask, 2**40)
    assert whole.tolist() == pytest.approx(expected, rel=1e-5)
    assert tiled.tolist() == pytest.approx(expected, rel=1e-5)


def test_reference_scores_do_not_depend_on_order_or_company(home):
    samples = samples_of(home)
    scorer = ReferenceScorer(str(home / "start/model"), "float32")
    stored = {row["sample_id"]: row for row in pq.read_table(home / "reference.parquet").to_pylist()}
    for part in (samples[::-1], samples[5:6]):
        partners = [s for s in samples if s not in part]
        scored = scorer({k: v[: len(part)] for k, v in _batch([*part, *partners]).items()})
        for name in ("ref_logp", "ref_kl_logp"):
            expected = [stored[s][name] for s in scored["sample_id"]]
            assert scored[name].tolist() == pytest.approx(expected, rel=1e-5)


def test_pretraining_learns_and_logs(home):
    rows = [json.loads(line) for line in (home / "start/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == rows[-1]["total_steps"] == 12
    assert rows[-1]["nll"] < 0.9 * rows[0]["nll"]
    assert not (home / "start/adapter").exists()


def test_bc_writes_an_adapter_and_the_same_policy_merged(home):
    summary = train(spec(home, "bc", objective="sft", max_steps=3, learning_rate=5e-3))
    assert summary["samples"] == summary["desirable"] == 12 and summary["nll"] > 0
    samples = samples_of(home)[:4]
    base = AutoModelForCausalLM.from_pretrained(home / "start/model")
    before = score(base, samples)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(home / "start/model"), str(home / "bc/adapter")
    ).merge_and_unload()
    merged = AutoModelForCausalLM.from_pretrained(home / "bc/model")
    assert torch.allclose(score(adapted, samples), score(merged, samples), rtol=1e-5)
    assert (score(merged, samples) - before).abs().min() > 0.1
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(home / "bc/model"))
    assert renderer.fingerprint == ChatRenderer(AutoTokenizer.from_pretrained(home / "initial")).fingerprint


def test_depo_starts_at_the_reference_and_parts_the_labels(home):
    rows: list[dict] = []
    train(spec(home, "depo", **DEPO | {"nll_coefficient": 0.0, "max_steps": 12}), report=rows.append)
    assert abs(rows[0]["logratio_desirable"]) < 1e-3 and abs(rows[0]["logratio_undesirable"]) < 1e-3
    assert rows[-1]["logratio_desirable"] > rows[-1]["logratio_undesirable"] + 0.1
    assert rows[0]["bonus"] > 0 and rows[0]["reward_desirable"] == pytest.approx(
        0.5 * rows[0]["logratio_desirable"]
    )


def test_without_alphas_depo_is_kto(home):
    plain = DEPO | {"alpha_tokens": 0.0, "alpha_steps": 0.0}
    train(spec(home, "kto", **plain | {"objective": "kto"}))
    train(spec(home, "depo0", **plain))
    train(spec(home, "depo3", **DEPO))
    assert gap(home / "kto/model", home / "depo0/model") == 0
    assert gap(home / "kto/model", home / "depo3/model") > 1e-4


@pytest.mark.parametrize("objective", ["sft", "depo"])
def test_one_batch_of_eight_is_eight_batches_of_one(home, objective):
    method = DEPO if objective == "depo" else {"max_steps": 6, "learning_rate": 5e-3}
    for size in (1, 8):
        runtime = TrainingRuntime(device_batch_size=size)
        train(spec(home, f"{objective}-of-{size}", **method | {"objective": objective, "runtime": runtime}))
    assert gap(home / f"{objective}-of-1/model", home / f"{objective}-of-8/model") < 2e-5
    assert gap(home / f"{objective}-of-1/model", home / "start/model") > 1e-2


def test_foreign_reference_log_probs_are_refused(home):
    foreign = replace(spec(home, "foreign", **DEPO), model_dir=str(home / "initial"))
    with pytest.raises(ConfigError, match="not those of the policy that is trained"):
        train(foreign)
    assert not (home / "foreign/model").exists()


def test_bfloat16_trains_and_saves_bfloat16(home):
    low = replace(spec(home, "low", **DEPO | {"max_steps": 2}), dtype="bfloat16")
    assert np.isfinite(train(low)["loss"])
    assert AutoModelForCausalLM.from_pretrained(home / "low/model").dtype == torch.bfloat16


def test_kto_loss_is_trls_on_the_same_inputs(home, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(home / "start/model")
    tokenizer = AutoTokenizer.from_pretrained(home / "start/model")
    config = KTOConfig(
        str(tmp_path), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", beta=0.3,
        per_device_train_batch_size=4, desirable_weight=1.2, undesirable_weight=0.7, disable_tqdm=True,
    )  # fmt: skip
    text = Dataset.from_dict({"prompt": ["a"] * 4, "completion": ["b"] * 4, "label": [True, False] * 2})
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trl = KTOTrainer(model, args=config, train_dataset=text, processing_class=tokenizer, peft_config=lora)
    samples = samples_of(home)[:4]
    whole = {"": _padded(samples, 0), "KL_": _padded(samples, 1)}
    # Move the policy off the reference, towards the KL pairs, so that z0 is above 0.
    optimizer = torch.optim.Adam(trl.model.parameters(), lr=1e-2)
    for _ in range(3):
        (-sequence_logps(trl.model, *whole["KL_"], model.config.vocab_size)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    batch = {"label": torch.tensor([True, False, True, False])}
    for prefix, (ids, mask) in whole.items():
        batch |= {
            f"{prefix}input_ids": ids,
            f"{prefix}completion_mask": mask,
            f"{prefix}attention_mask": torch.ones_like(ids),
        }
    expected = trl._compute_loss(trl.model, batch, return_outputs=False)
    expected.backward()
    slopes = {n: p.grad.clone() for n, p in trl.model.named_parameters() if p.grad is not None}
    trl.model.zero_grad()

    vocab_size = model.config.vocab_size
    policy = [sequence_logps(trl.model, *whole[p], vocab_size) for p in ("", "KL_")]
    with torch.no_grad(), trl.model.disable_adapter():
        reference = [sequence_logps(trl.model, *whole[p], vocab_size) for p in ("", "KL_")]
    kl = kl_estimate((policy[1] - reference[1]).sum(), torch.tensor(4.0))
    losses, _ = kto_loss(policy[0], reference[0], batch["label"], kl, 0.3, 1.2, 0.7)
    losses.mean().backward()
    assert kl > 0
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in trl.model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, slopes[name], rtol=1e-3, atol=1e-6), name


def _padded(samples: list[dict], shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    moved = samples[shift:] + samples[:shift]
    ids = pad([np.array(s["token_ids"]) for s in moved], 0)
    return ids, pad([np.array(s["agent_mask"]) for s in moved], 0)


def test_two_ranks_survive_a_kill_and_agree_with_one_process(home):
    import ray

    from depo.stages.train import run_training

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        runtime = TrainingRuntime(num_workers=2, device_batch_size=2, deepspeed_stage=1, save_steps=4)
        method = DEPO | {"max_steps": 60, "learning_rate": 5e-4}
        train(spec(home, "alone", **method))
        killed: list[int] = []
        steps: list[float] = []

        def progress(row: dict) -> None:
            steps.append(row["step"])
            if not killed and row["step"] >= 16:
                victim = next(
                    p
                    for p in psutil.Process().children(recursive=True)
                    if "RayTrainWorker" in " ".join(p.cmdline())
                )
                killed.append(victim.pid)
                victim.kill()

        summary = run_training(spec(home, "ranks", runtime=runtime, **method), home / "ranks/ray", progress)
        assert killed and summary["resumed_at"] >= 4
        assert steps == sorted(set(steps)) and steps[-1] == summary["steps"] == 60
        logged = [
            json.loads(line)["step"] for line in (home / "ranks/metrics.jsonl").read_text().splitlines()
        ]
        assert logged == sorted(set(logged))
        assert gap(home / "alone/model", home / "ranks/model") < 1e-4
        assert list((home / "ranks/ray").iterdir()) == []
        with pytest.raises(ConfigError, match="do not divide over 2 workers"):
            run_training(
                spec(home, "odd", runtime=runtime, **DEPO | {"batch_size": 5}), home / "odd/ray", steps.append
            )
    finally:
        ray.shutdown()
