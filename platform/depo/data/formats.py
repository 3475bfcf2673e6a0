"""Labelled trajectories for other tools, as JSON lines of chat messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from depo.config.schema import AnnotationConfig
from depo.data.labels import label_all
from depo.data.store import read_trajectories, write_atomic
from depo.records import Label, Trajectory


def export_samples(
    trajectories_dir: Path, annotation: AnnotationConfig | None, format_: str, out: Path
) -> int:
    """Write a round's labelled trajectories; returns the number of rows.

    "openai" holds the desirable ones as `{"messages": [...]}`; "trl-kto" all of them as
    `{"prompt", "completion", "label"}`.
    """
    labelled, _ = label_all(read_trajectories(trajectories_dir), annotation or AnnotationConfig())
    rows = [_openai(t) for t, mark in labelled if mark == "D"] if format_ == "openai" else []
    if format_ == "trl-kto":
        rows = [_trl_kto(t, mark) for t, mark in labelled]
    write_atomic(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


def messages(trajectory: Trajectory) -> list[dict[str, str]]:
    """The episode as chat messages."""
    result = [{"role": "system", "content": trajectory.system}] if trajectory.system else []
    for step in trajectory.steps:
        result.append({"role": "user", "content": step.observation})
        result.append({"role": "assistant", "content": step.text})
    return result


def _openai(trajectory: Trajectory) -> dict[str, Any]:
    return {"messages": messages(trajectory)}


def _trl_kto(trajectory: Trajectory, mark: Label) -> dict[str, Any]:
    chat = messages(trajectory)
    prompt = 2 if trajectory.system else 1
    return {"prompt": chat[:prompt], "completion": chat[prompt:], "label": mark == "D"}
