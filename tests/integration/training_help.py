"""A tiny model with samples and their reference log-probs, and what the training tests do with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, Trainer

from depo.config.runtime import TrainingRuntime
from depo.config.schema import LoraConfig, MethodConfig, TinyConfig
from depo.policies.chat import ChatRenderer
from depo.records import REFERENCE_SCHEMA, SAMPLE_SCHEMA, to_table
from depo.training.dataset import load_samples
from depo.training.logprobs import prepare_scoring, sequence_logps
from depo.training.reference import ReferenceScorer, score_table
from depo.training.run import TrainSpec, train
from depo.training.tiny import make_tiny

SYSTEM = "Reply with a thought and an action."
SEEN = ["You see: a red ball 1.", "You see: a grey key 2 to the left of you.", "A wall."]
REPLIES = [
    "Thought: The ball is near.\nAction: go to red ball 1",
    "Thought: A wall, so turn.\nAction: turn left",
]
TINY = TinyConfig(hidden_size=32, layers=2, heads=2, intermediate_size=64, vocab_size=400)

DEPO = {
    "max_steps": 6, "learning_rate": 5e-3, "beta": 0.5, "alpha_tokens": 3.0, "alpha_steps": 2.0,
    "nll_coefficient": 0.2, "warmup_ratio": 0.0, "scheduler": "constant",
}  # fmt: skip
KTO = {name: value for name, value in DEPO.items() if not name.startswith("alpha")} | {"objective": "kto"}
SGD = 40.0
SFT = {"objective": "sft", "max_steps": 6, "learning_rate": 5e-3}


def make_home(folder: Path) -> Path:
    """Fill `folder`: a model with non-uniform predictions, 24 samples of 1 to 3 turns, their reference."""
    tokenizer = make_tiny(TINY, [SYSTEM, *SEEN, *REPLIES], 256, 0, folder / "initial")
    samples = [sample(ChatRenderer(tokenizer), number) for number in range(24)]
    pq.write_table(to_table(samples, SAMPLE_SCHEMA), folder / "samples.parquet")
    train(spec(folder, "start", objective="sft", max_steps=12, learning_rate=3e-3, full_parameters=True))
    write_reference(folder, "samples.parquet", "reference.parquet")
    return folder


def write_reference(folder: Path, samples: str, reference: str, dtype: str = "float32") -> None:
    """Score a file of samples with the model that trainings start from."""
    table = load_samples(str(folder / samples), None, 256)
    scored = score_table(table, ReferenceScorer(str(folder / "start/model"), dtype))
    pq.write_table(to_table(scored, REFERENCE_SCHEMA), folder / reference)


def sample(renderer: ChatRenderer, number: int) -> dict:
    """Sample `number`; every four share a task and hold both labels."""
    ids, mask, turns = [], [], 1 + number % 3
    for turn in range(turns):
        seen, reply = SEEN[(number + turn) % 3], renderer.reply(REPLIES[(number + turn) % 2])
        context = renderer.following(seen) if turn else renderer.first(SYSTEM, seen)
        thought = len(reply) // 2
        ids = [*ids, *context, *reply]
        mask = [*mask, *[0] * len(context), *[1] * thought, *[2] * (len(reply) - thought)]
    return {
        "id": f"s{number}", "trajectory_id": f"t{number}", "task_id": f"k{number // 4}", "env": "e",
        "level": "l", "policy": "p", "label": "DU"[number % 2], "view": "raw",
        "reward": 1.0 - number / 48, "success": True, "num_steps": turns,
        "num_tokens": sum(own > 0 for own in mask) - turns, "token_ids": ids, "agent_mask": mask,
        "prompt_length": len(renderer.first(SYSTEM, SEEN[number % 3])),
        "kl_partner": f"s{(number * 7 + 3) % 24}",
    }  # fmt: skip


def spec(folder: Path, out: str, **changes) -> TrainSpec:
    """A training below `folder`; `changes` are the method's, `runtime` and `dtype` aside."""
    runtime = changes.pop("runtime", TrainingRuntime(device_batch_size=4))
    dtype = changes.pop("dtype", "float32")
    method = {"objective": "depo", "view": "raw", "batch_size": 8} | changes
    if not method.get("full_parameters"):
        method["lora"] = LoraConfig(r=4, alpha=8)
    return TrainSpec(
        method=MethodConfig(**method),
        model_dir=str(folder / ("initial" if out == "start" else "start/model")),
        samples=str(folder / "samples.parquet"),
        reference=str(folder / "reference.parquet"),
        out_dir=str(folder / out),
        dtype=dtype,
        max_length=256,
        observation_weight=0.1 if out == "start" else 0.0,
        runtime=runtime,
    )


def samples_of(folder: Path) -> list[dict]:
    return pq.read_table(folder / "samples.parquet").to_pylist()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(path).state_dict()


def gap(first: Path, second: Path) -> float:
    """Largest difference between the weights of two saved models."""
    other = weights(second)
    return max((value - other[name]).abs().max().item() for name, value in weights(first).items())


def drift(first: Path, second: Path, start: Path) -> float:
    """Distance between two saved models that were trained from `start`, relative to the way that one went.

    Rounding leaves some 1e-6 of it after steps of plain SGD; after Adam's it says nothing, since that makes a
    whole step of a gradient that is all rounding.
    """
    one, other, before = weights(first), weights(second), weights(start)
    apart = sum((one[name].double() - other[name].double()).square().sum() for name in one)
    moved = sum((one[name].double() - before[name].double()).square().sum() for name in one)
    return float((apart / moved).sqrt())


def parted(first: Path, second: Path, home: Path) -> float:
    """How far two policies that were trained from the start are apart in what they say of the samples,
    relative to how far they have come. For steps of Adam, whose noise is in weights that say nothing."""
    one, other, before = (
        score(AutoModelForCausalLM.from_pretrained(path), samples_of(home))
        for path in (first, second, home / "start/model")
    )
    return float((one - other).abs().max() / (one - before).abs().max())


def plain_sgd(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on trainings of this process step along their gradient, `SGD` times the learning rate far."""

    def create(trainer: Trainer, model: object = None) -> torch.optim.Optimizer:
        trained = [p for p in trainer.model.parameters() if p.requires_grad]
        trainer.optimizer = torch.optim.SGD(trained, lr=SGD * trainer.args.learning_rate)
        return trainer.optimizer

    monkeypatch.setattr(Trainer, "create_optimizer", create)


def score(model, samples: list[dict]) -> torch.Tensor:
    """Sums of the log-probs of the samples' own tokens, one at a time `[samples]`."""
    head = prepare_scoring(model)
    with torch.no_grad():
        scored = [
            sequence_logps(model, _row(s["token_ids"]), _row(s["agent_mask"]) > 0, head) for s in samples
        ]
    return torch.cat(scored)


def _row(values: Sequence[int] | np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values))[None]
