"""The tiny student: tokenizer and model made from scripted episodes, then pre-trained on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from depo.config.runtime import RuntimeConfig
from depo.config.schema import MethodConfig, StudentConfig
from depo.data.samples import make_sample
from depo.data.store import read_trajectories, write_table
from depo.policies.chat import ChatRenderer
from depo.policies.checkpoint import load_renderer as load_renderer
from depo.records import Sample, Trajectory
from depo.stages.base import Outcome
from depo.stages.cluster import absolute, connect
from depo.stages.train import run_training
from depo.training.spec import TrainSpec
from depo.training.tiny import make_tiny


def make_student(
    episodes_dir: Path,
    student: StudentConfig,
    seed: int,
    runtime: RuntimeConfig,
    out_dir: Path,
    progress: Callable[[Mapping[str, Any]], None],
) -> Outcome:
    """Make, initialise and pre-train the tiny student into `out_dir/model`."""
    tiny = student.tiny
    trajectories = [t for t in read_trajectories(episodes_dir) if t.steps]
    initial = out_dir / "initial"
    tokenizer = make_tiny(tiny, corpus(trajectories), student.max_length, seed, initial)
    renderer = ChatRenderer(tokenizer)
    samples = [make_sample(t, "D", "raw", renderer) for t in trajectories]
    samples_file = out_dir / "samples.parquet"
    write_table(samples_file, samples, Sample)
    method = MethodConfig(
        objective="sft",
        view="raw",
        learning_rate=tiny.learning_rate,
        epochs=tiny.epochs,
        batch_size=tiny.batch_size,
        scheduler="cosine",
        seed=seed,
    )
    connect(runtime)
    spec = TrainSpec(
        method=method,
        model_dir=absolute(initial),
        samples=absolute(samples_file),
        reference=None,
        out_dir=absolute(out_dir),
        dtype=student.dtype,
        max_length=student.max_length,
        full_parameters=True,
        observation_weight=tiny.observation_weight,
        runtime=runtime.training,
    )
    metrics = run_training(spec, out_dir / "ray", progress)
    return Outcome(rows=len(samples), metrics=metrics)


def corpus(trajectories: list[Trajectory]) -> list[str]:
    """All text the student will read or write, for its tokenizer."""
    texts = sorted({t.system for t in trajectories})
    for trajectory in trajectories:
        for step in trajectory.steps:
            texts += [step.observation, step.text]
    return texts
