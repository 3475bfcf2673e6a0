"""The DEPO stage against stock TRL: same model, data, tokens, precision and machine.

    python experiments/benchmarks/training.py [--json] [--repeats N] [--samples N]

Trainings run one after the other, each in a process of its own, with LoRA on all linear layers of a random
Llama of the demo's shape:

trl              TRL's `KTOTrainer` as its documentation shows it: a data set of `prompt` and `completion`
                 messages and `label`, the reference from the same weights without the adapter.
trl_precomputed  The same with `precompute_ref_log_probs=True`. Its reference pass is not counted.
depo             `depo.training.run.train` with objective depo and a table of reference log-probs, which
                 every method and trial of a run shares. Making the table is not counted either.

Timed is the training loop, from its first step to its last, with everything in it: collating, KL pairs,
logging, our gradient audit. All take the same samples in equal steps; TRL trains on all tokens after
the prompt, ours on the agent's own, so speed is in samples (and the agent's tokens, the same count for all)
a second, and a ratio is one of times. Precision (float32) and batch are equal, and none computes activations
anew; `*_checkpointing` are the same with both sides doing so, which is TRL's default: slower, less memory.

Of `--repeats` the fastest counts. `*_cpu` are ratios of CPU time, which other processes disturb less.
Memory is the peak resident set of the process, its imports and data included.

Loss curves are compared on samples of one turn, where both train on the same tokens, with TRL's own KL
partners written into our table and its order of samples.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

AGAINST = {"trl": "depo", "trl_precomputed": "depo", "trl_checkpointing": "depo_checkpointing"}
"""Each of TRL's ways, and ours that it is compared with."""
BATCH, DEVICE_BATCH = 16, 8
"""Samples a step; samples at once, which is TRL's default."""
RATE, BETA, SEED = 6e-4, 1.0, 0
"""The demo's."""
LORA_R, LORA_ALPHA = 16, 32
FILES = {"samples": "samples.parquet", "reference": "reference.parquet", "conversations": "chats.parquet"}


def prepare(folder: Path, options: argparse.Namespace) -> None:
    """Make model and data in `folder/many` (whole episodes) and `folder/single` (one turn each)."""
    import training_data as data

    from depo.data.store import write_table
    from depo.records import Sample

    labelled = data.episodes(options.samples)
    renderer = data.make_model(folder / "model", labelled, options.hidden_size, options.layers)
    many = data.fitting(labelled, renderer)[: options.samples]
    if len(many) < options.samples or options.samples % BATCH:
        raise SystemExit(f"--samples: {options.samples} must be a multiple of {BATCH}, at most {len(many)}")
    for name, chosen in (("many", many), ("single", data.one_turn(many[: options.curve]))):
        samples = data.samples_of(chosen, renderer)
        if name == "single":
            samples = data.pair_as_trl(samples, BATCH)
        place = folder / name
        place.mkdir()
        write_table(place / FILES["samples"], samples, Sample)
        data.write_reference(place / FILES["samples"], folder / "model", place / FILES["reference"])
        data.conversations(chosen).to_parquet(str(place / FILES["conversations"]))


class Clock:
    """Wall and CPU time of the training loop, started and stopped by its trainer."""

    def __init__(self) -> None:
        from transformers import TrainerCallback
        from transformers.trainer import DEFAULT_CALLBACKS

        clock = self

        class Tell(TrainerCallback):
            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                clock.wall, clock.cpu = time.perf_counter(), time.process_time()

            def on_train_end(self, *args: Any, **kwargs: Any) -> None:
                clock.wall, clock.cpu = time.perf_counter() - clock.wall, time.process_time() - clock.cpu
                # In KiB; what comes after training (saving) is not training's.
                clock.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        self.wall = self.cpu = 0.0
        self.peak = 0
        DEFAULT_CALLBACKS.append(Tell)

    def read(self) -> dict[str, float]:
        return {"wall": self.wall, "cpu": self.cpu, "peak": self.peak}


def train_trl(folder: Path, part: str, precompute: bool, checkpointing: bool, device: int) -> dict[str, Any]:
    """Train with TRL's own trainer; times and losses."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import KTOConfig, KTOTrainer

    rows = Dataset.from_parquet(str(folder / part / FILES["conversations"]), cache_dir=str(folder / "cache"))
    clock = Clock()
    trainer = KTOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32"),
        args=KTOConfig(
            output_dir=str(folder / "trl"),
            per_device_train_batch_size=device,
            gradient_accumulation_steps=BATCH // device,
            num_train_epochs=1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            warmup_steps=0,
            beta=BETA,
            max_length=None,
            seed=SEED,
            precompute_ref_log_probs=precompute,
            gradient_checkpointing=checkpointing,
            bf16=False,
            use_cpu=True,
            logging_steps=1 if part == "single" else 10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=LORA_R, lora_alpha=LORA_ALPHA, target_modules="all-linear"
        ),
    )
    parts = [trainer.train_dataset[name] for name in ("prompt_ids", "completion_ids")]
    tokens = [len(prompt) + len(completion) for prompt, completion in zip(*parts, strict=True)]
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return clock.read() | {"losses": losses, "sequence_tokens": sum(tokens), "samples": len(tokens)}


def train_depo(folder: Path, part: str, checkpointing: bool, device: int) -> dict[str, Any]:
    """Train with ours; times, losses and the share of padding."""
    from depo.config.runtime import TrainingRuntime
    from depo.config.schema import LoraConfig, MethodConfig
    from depo.training.run import TrainSpec, load_table, num_steps, train

    plain = part == "single"
    method = MethodConfig(
        objective="kto" if plain else "depo",
        view="raw",
        learning_rate=RATE,
        scheduler="constant",
        warmup_ratio=0.0,
        epochs=1,
        batch_size=BATCH,
        beta=BETA,
        seed=SEED,
        lora=LoraConfig(r=LORA_R, alpha=LORA_ALPHA),
        **({} if plain else {"alpha_tokens": 3.0, "alpha_steps": 3.0}),
    )
    spec = TrainSpec(
        method=method,
        model_dir=str(folder / "model"),
        samples=str(folder / part / FILES["samples"]),
        reference=str(folder / part / FILES["reference"]),
        out_dir=str(folder / f"depo-{part}"),
        dtype="float32",
        max_length=1024,
        runtime=TrainingRuntime(
            num_workers=1, device_batch_size=device, deepspeed_stage=0, gradient_checkpointing=checkpointing
        ),
    )
    clock = Clock()
    if plain:
        return clock.read() | {"losses": _losses_in_file_order(spec)}
    summary = train(spec)
    table = load_table(spec)
    return clock.read() | {
        "sequence_tokens": int(table.lengths[table.rows].sum()),
        "own_tokens": int(table.num_tokens[table.rows].sum()),
        "samples": num_steps(method, len(table.rows)) * BATCH,
        "summary": summary,
    }


def _losses_in_file_order(spec: Any) -> list[float]:
    """Losses of one pass over the samples as they stand in the file, which is TRL's order."""
    from datasets import Dataset

    from depo.training.build import build_trainer
    from depo.training.loading import load_table
    from depo.training.rows import training_rows

    table = load_table(spec)
    rows = training_rows(table, spec.method)
    trainer, _ = build_trainer(spec, rows, len(table.rows) // BATCH, None)
    trainer.args.logging_steps = 1
    trainer.train_dataset = Dataset.from_dict({"row": table.rows})
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def worker(system: str, part: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    if system == "prepare":
        prepare(folder, options)
        return {}
    device = BATCH if part == "single" else options.device_batch
    checkpointing = system.endswith("checkpointing")
    if system.startswith("depo"):
        return train_depo(folder, part, checkpointing, device)
    return train_trl(folder, part, system == "trl_precomputed", checkpointing, device)


def in_own_process(system: str, part: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one training in a fresh process; what it measured."""
    out = folder / f"{system}-{part}.json"
    command = [sys.executable, __file__, "--worker", system, part, str(folder), str(out)]
    for name in ("device_batch", "samples", "curve", "hidden_size", "layers"):
        command += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{system}: failed\n{done.stderr[-3000:]}")
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    names = list(AGAINST) + sorted(set(AGAINST.values()))
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for repeat in range(options.repeats):
        # The reference that TRL precomputed is cached on disk after the first time.
        for name in names if repeat % 2 == 0 else names[::-1]:
            run = in_own_process(name, "many", folder, options)
            runs[name].append(run)
            print(
                f"{name:19}{run['wall']:7.2f} s{run['cpu']:7.2f} s CPU{run['peak'] / 2**20:7.0f} MiB",
                file=sys.stderr,
                flush=True,
            )
    tokens = {run["sequence_tokens"] for each in runs.values() for run in each}
    if len(tokens) > 1:
        raise SystemExit(f"the systems read different tokens: {sorted(tokens)}")
    curves = {name: in_own_process(name, "single", folder, options)["losses"] for name in ("trl", "depo")}
    wall = {name: min(run["wall"] for run in each) for name, each in runs.items()}
    cpu = {name: min(run["cpu"] for run in each) for name, each in runs.items()}
    peak = {name: min(run["peak"] for run in each) for name, each in runs.items()}
    ours = runs["depo"][0]
    result: dict[str, Any] = {}
    for name, mine in AGAINST.items():
        result[f"vs_{name}"] = wall[name] / wall[mine]
        result[f"vs_{name}_cpu"] = cpu[name] / cpu[mine]
        result[f"memory_vs_{name}"] = peak[mine] / peak[name]
    result["padding_share"] = ours["summary"]["padding_share"]
    pairs = zip(curves["trl"], curves["depo"], strict=True)
    result["max_loss_difference"] = max(abs(a - b) for a, b in pairs)
    result["steps_compared"] = len(curves["trl"])
    result["loss_first"], result["loss_last"] = curves["trl"][0], curves["trl"][-1]
    result["agent_tokens_per_second"] = ours["own_tokens"] / wall["depo"]
    result["peak_mib"] = {name: round(value / 2**20) for name, value in peak.items()}
    result["seconds"] = {name: round(value, 2) for name, value in wall.items()}
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} CPUs, one thread each"
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--samples", type=int, default=192, help="episodes; a multiple of 16")
    parser.add_argument(
        "--curve", type=int, default=192, help="one-turn samples of the loss curves, at most --samples"
    )
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device-batch", type=int, default=DEVICE_BATCH)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        system, part, folder, out = options.worker
        Path(out).write_text(json.dumps(worker(system, part, Path(folder), options)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        # In a process of its own too: what libraries print is no part of the answer.
        in_own_process("prepare", "all", Path(temporary), options)
        result = compare(Path(temporary), options)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
