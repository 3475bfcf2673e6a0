"""Trajectories and samples as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from depo.records import Sample, Trajectory

_GREEN, _PLAIN = "\x1b[32m", "\x1b[0m"


def trajectory_text(trajectory: Trajectory) -> str:
    """An episode as a dialogue, its outcome first."""
    outcome = "success" if trajectory.success else f"failure ({trajectory.stop_reason})"
    lines = [
        f"── {trajectory.task.id} · {trajectory.policy} · {outcome} · reward {trajectory.reward:.3f} · "
        f"{trajectory.num_steps} steps · {trajectory.num_tokens} tokens"
    ]
    for number, step in enumerate(trajectory.steps, 1):
        mark = "" if step.valid else " (malformed)" if step.malformed else " (invalid)"
        lines += [f"   {line}" for line in step.observation.splitlines()]
        lines += [f"{number:>2} {line}" for line in step.text.splitlines()]
        if mark:
            lines[-1] += mark
    if trajectory.error:
        lines.append(f"   error: {trajectory.error}")
    return "\n".join(lines)


def sample_text(sample: Sample, decode: Callable[[Sequence[int]], str]) -> str:
    """A sample's text, the tokens that are trained on in green."""
    head = (
        f"── {sample.task_id} · {sample.label} · {sample.view} · {sample.num_steps} steps · "
        f"{sample.num_tokens} tokens · reward {sample.reward:.3f}\n"
    )
    pieces = []
    for own, run in groupby(zip(sample.token_ids, sample.agent_mask, strict=True), key=lambda pair: pair[1]):
        text = decode([token for token, _ in run])
        pieces.append(f"{_GREEN}{text}{_PLAIN}" if own else text)
    return head + "".join(pieces)
