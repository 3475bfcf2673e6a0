"""Labelled trajectories for other tools: TRL, LLaMA-Factory, AgentGym, OpenAI, Hugging Face datasets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depo.config.base import ConfigError
from depo.config.schema import AnnotationConfig
from depo.data.labels import label_all
from depo.data.pairing import pair_up
from depo.data.store import read_trajectories, write_atomic
from depo.records import Label, Trajectory

Labelled = Sequence[tuple[Trajectory, Label]]
Row = dict[str, Any]

ACKNOWLEDGED = "OK."
"""The agent's untrained answer to its instructions, with which AgentGym's conversations begin."""
_PAIRS_PER_TASK = 8
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_HF_SCHEMA = pa.schema(
    [
        ("prompt", _MESSAGES),
        ("completion", _MESSAGES),
        ("label", pa.bool_()),
        ("task_id", pa.string()),
        ("reward", pa.float64()),
    ]
)


def export_samples(
    trajectories_dir: Path, annotation: AnnotationConfig | None, format_: str, out: Path, seed: int = 0
) -> int:
    """Write a round's labelled trajectories as `depo export --format` has it; returns the number of rows.

    Raises `ConfigError` where nothing is left to write.
    """
    labelled, _ = label_all(read_trajectories(trajectories_dir), annotation or AnnotationConfig())
    rows = _trl_dpo(labelled, seed) if format_ == "trl-dpo" else _ROWS[format_](labelled)
    if not rows:
        what = "no task with both labels" if format_ == "trl-dpo" else "no trajectory that is kept"
        raise ConfigError(f"export: {trajectories_dir} has {what}; change the annotation's thresholds")
    write_atomic(out, _encoded(rows, format_))
    return len(rows)


def messages(trajectory: Trajectory) -> list[dict[str, str]]:
    """The episode as chat messages."""
    result = [{"role": "system", "content": trajectory.system}] if trajectory.system else []
    for step in trajectory.steps:
        result.append({"role": "user", "content": step.observation})
        result.append({"role": "assistant", "content": step.text})
    return result


def _encoded(rows: list[Row], format_: str) -> bytes:
    if format_ == "hf":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=_HF_SCHEMA), sink, compression="zstd")
        return sink.getvalue().to_pybytes()
    if format_ in ("agentgym", "llama-factory"):  # one array, as these tools' own files are
        return ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _openai(labelled: Labelled) -> list[Row]:
    return [{"messages": messages(t)} for t, mark in labelled if mark == "D"]


def _trl_kto(labelled: Labelled) -> list[Row]:
    return [
        {**_split(t), "label": mark == "D", "task_id": t.task.id, "reward": t.reward} for t, mark in labelled
    ]


def _trl_dpo(labelled: Labelled, seed: int) -> list[Row]:
    trajectories = [t for t, _ in labelled]
    # Only what begins alike can be compared; a task begins alike for one system prompt.
    begins = [json.dumps([t.task.id, t.system, t.steps[0].observation]) for t in trajectories]
    desirable = [mark == "D" for _, mark in labelled]
    pairs = pair_up(begins, desirable, [t.id for t in trajectories], _PAIRS_PER_TASK, seed)
    rows = []
    for chosen, rejected in pairs:
        one, other = _split(trajectories[chosen]), _split(trajectories[rejected])
        rows.append({"prompt": one["prompt"], "chosen": one["completion"], "rejected": other["completion"]})
    return rows


def _split(trajectory: Trajectory) -> Row:
    chat = messages(trajectory)
    prompt = 2 if trajectory.system else 1
    return {"prompt": chat[:prompt], "completion": chat[prompt:]}


def _llama_factory(labelled: Labelled) -> list[Row]:
    """ShareGPT conversations with LLaMA-Factory's column for KTO."""
    return [
        {
            "system": t.system,
            "conversations": [turn for step in t.steps for turn in _turns(step.observation, step.text)],
            "kto_tag": mark == "D",
            "task_id": t.task.id,
            "reward": t.reward,
        }
        for t, mark in labelled
    ]


def _agentgym(labelled: Labelled) -> list[Row]:
    """AgentTraj's form, desirable trajectories only: they are there to be imitated."""
    rows = []
    for t, mark in labelled:
        if mark == "D":
            turns = _turns(t.system, ACKNOWLEDGED) if t.system else []
            trained = [turn for step in t.steps for turn in _turns(step.observation, step.text)]
            loss = [False] * len(turns) + [True] * len(trained)
            conversation = [
                {**turn, "loss": of if turn["from"] == "gpt" else None}
                for turn, of in zip([*turns, *trained], loss, strict=True)
            ]
            rows.append({"item_id": t.task.id, "conversations": conversation, "reward": t.reward})
    return rows


def _turns(said: str, answered: str) -> list[dict[str, Any]]:
    return [{"from": "human", "value": said}, {"from": "gpt", "value": answered}]


_ROWS: dict[str, Callable[[Labelled], list[Row]]] = {
    "trl-kto": _trl_kto,
    "trl-sft": _openai,
    "llama-factory": _llama_factory,
    "agentgym": _agentgym,
    "openai": _openai,
    "hf": _trl_kto,
}
