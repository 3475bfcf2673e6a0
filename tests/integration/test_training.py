"""Training with the real libraries on a tiny model: in process, and on Ray Train with DeepSpeed."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from training_help import DEPO, KTO, SFT, gap, make_home, parted, samples_of, score, spec, write_reference
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import KTOConfig, KTOTrainer

from depo.config.base import ConfigError
from depo.config.runtime import TrainingRuntime
from depo.config.schema import MethodConfig
from depo.objectives.preference import kl_estimate
from depo.objectives.registry import Scores, objective
from depo.policies.chat import ChatRenderer
from depo.training.collator import pad
from depo.training.logprobs import Head, prepare_scoring, sequence_logps
from depo.training.reference import ReferenceScorer
from depo.training.run import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("training"))


def test_log_probs_are_those_of_the_agents_tokens_whatever_the_batch(home):
    samples = samples_of(home)[:5]
    model = AutoModelForCausalLM.from_pretrained(home / "start/model").eval()
    expected = []
    for s in samples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([s["token_ids"]])).logits[0].double().log_softmax(-1)
        chosen = range(1, len(s["token_ids"]))
        expected.append(sum(logits[i - 1, s["token_ids"][i]].item() for i in chosen if s["agent_mask"][i]))
    head = prepare_scoring(model)
    ids = pad([np.array([*s["token_ids"], *[0] * 9]) for s in samples], 7)
    mask = pad([np.minimum(s["agent_mask"], 1) for s in samples], 0)
    mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]))
    with torch.no_grad():
        whole = sequence_logps(model, ids, mask, head)
        tiled = sequence_logps(model, ids, mask, replace(head, whole=0))
    assert whole.tolist() == pytest.approx(expected, rel=1e-5)
    assert tiled.tolist() == pytest.approx(expected, rel=1e-5)


def test_reference_scores_do_not_depend_on_order_or_company(home):
    conversations = [(np.array(s["token_ids"]), np.array(s["agent_mask"])) for s in samples_of(home)]
    scorer = ReferenceScorer(str(home / "start/model"))
    together = scorer.score(conversations)
    for some in (range(24)[::-1], [5]):
        for number, scored in zip(some, scorer.score([conversations[i] for i in some]), strict=True):
            assert len(scored) == (conversations[number][1] > 0).sum()
            assert scored.tolist() == pytest.approx(together[number].tolist(), rel=1e-5, abs=1e-5)


def test_pretraining_learns_and_logs(home):
    rows = [json.loads(line) for line in (home / "start/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == rows[-1]["total_steps"] == 12
    assert rows[-1]["nll"] < 0.9 * rows[0]["nll"]
    assert not (home / "start/adapter").exists()


def test_bc_writes_an_adapter_and_the_same_policy_merged(home):
    summary = train(spec(home, "bc", **SFT | {"max_steps": 3}))
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


def test_the_bonus_is_what_depo_adds_to_kto(home):
    train(spec(home, "kto", **KTO))
    train(spec(home, "depo3", **DEPO))
    assert gap(home / "kto/model", home / "depo3/model") > 1e-4


@pytest.mark.parametrize("full", [False, True])
def test_in_bfloat16_policy_and_reference_compute_alike(home, full):
    low = home / "bfloat16"
    low.mkdir(exist_ok=True)
    for name in ("start", "samples.parquet"):
        if not (low / name).exists():
            (low / name).symlink_to(home / name)
    write_reference(low, "samples.parquet", "reference.parquet", "bfloat16")
    rows: list[dict] = []
    method = KTO | {"max_steps": 4, "full_parameters": full}
    train(spec(low, f"full-{full}", **method, dtype="bfloat16"), report=rows.append)
    assert abs(rows[0]["logratio_desirable"]) < 1e-3 and abs(rows[0]["logratio_undesirable"]) < 1e-3
    assert rows[-1]["logratio_desirable"] > rows[-1]["logratio_undesirable"] + 0.01


def test_bfloat16_trains_and_saves_bfloat16(home):
    assert np.isfinite(train(spec(home, "low", **DEPO | {"max_steps": 2}, dtype="bfloat16"))["loss"])
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
    head = Head(model.get_output_embeddings(), model.config.vocab_size)
    # Move the policy off the reference, towards the KL pairs, so that z0 is above 0.
    optimizer = torch.optim.Adam(trl.model.parameters(), lr=1e-2)
    for _ in range(3):
        (-sequence_logps(trl.model, *whole["KL_"], head)).mean().backward()
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

    policy = [sequence_logps(trl.model, *whole[p], head) for p in ("", "KL_")]
    with torch.no_grad(), trl.model.disable_adapter():
        reference = [sequence_logps(trl.model, *whole[p], head) for p in ("", "KL_")]
    kl = kl_estimate((policy[1] - reference[1]).sum(), torch.tensor(4.0))
    unread = torch.zeros(4)
    scores = Scores(policy[0], reference[0], batch["label"], unread, unread, unread, unread, unread)
    method = MethodConfig(objective="kto", beta=0.3, lambda_desirable=1.2, lambda_undesirable=0.7)
    losses = objective("kto").loss(scores, kl, method).loss
    losses.mean().backward()
    assert kl > 0
    assert losses.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in trl.model.named_parameters():
        if parameter.grad is not None:
            off, size = (parameter.grad - slopes[name]).norm(), slopes[name].norm()
            assert off <= 1e-4 * size, name


def _padded(samples: list[dict], shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    moved = samples[shift:] + samples[:shift]
    ids = pad([np.array(s["token_ids"]) for s in moved], 0)
    return ids, pad([np.minimum(s["agent_mask"], 1) for s in moved], 0)


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

        told: list[str] = []

        def progress(row: dict) -> None:
            if "lost" in row:
                told.append(row["lost"])
                return
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
        assert told and "all start again from the last checkpoint" in told[0]
        assert steps == sorted(set(steps)) and steps[-1] == summary["steps"] == 60
        logged = [
            json.loads(line)["step"] for line in (home / "ranks/metrics.jsonl").read_text().splitlines()
        ]
        assert logged == sorted(set(logged))
        assert parted(home / "alone/model", home / "ranks/model", home) < 1e-2
        assert list((home / "ranks/ray").iterdir()) == []
        with pytest.raises(ConfigError, match="do not divide over 2 workers"):
            run_training(
                spec(home, "odd", runtime=runtime, **DEPO | {"batch_size": 5}), home / "odd/ray", steps.append
            )
    finally:
        ray.shutdown()
