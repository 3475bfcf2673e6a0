"""Trajectories and samples as text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from depo.records import Sample, Trajectory

_PLAIN = "\x1b[0m"
# What stands before and after what is not the agent's, its thought, and its action.
_PAINTED = (("", ""), ("\x1b[33m", _PLAIN), ("\x1b[32m", _PLAIN))
_BRACKETED = (("", ""), ("⟨", "⟩"), ("⟪", "⟫"))


def trajectory_text(trajectory: Trajectory) -> str:
    """An episode as a dialogue, its outcome first."""
    outcome = "success" if trajectory.success else f"failure ({trajectory.stop_reason})"
    lines = [
        f"── {trajectory.task.id} · {trajectory.policy} · {outcome} · reward {trajectory.reward:.3f} · "
        f"{trajectory.num_steps} steps · {trajectory.num_tokens} tokens"
    ]
    for number, step in enumerate(trajectory.steps, 1):
        mark = "" if step.valid else " (malformed)" if step.malformed else " (invalid)"
        lines += [f"   {line}" for line in step.seen.splitlines()]
        lines += [f"{number:>2} {line}" for line in step.text.splitlines()]
        if mark:
            lines[-1] += mark
    if trajectory.error:
        lines.append(f"   error: {trajectory.error}")
    return "\n".join(lines)


def sample_text(sample: Sample, decode: Callable[[Sequence[int]], str], color: bool) -> str:
    """A sample's text, each of the agent's turns on lines of its own.

    The agent's thoughts and actions, which are what is trained on, stand in two colours, or without
    `color` between two kinds of brackets; all else, the template included, is plain.
    """
    paint = _PAINTED if color else _BRACKETED
    legend = " ".join(name.join(paint[mark]) for mark, name in ((1, "thought"), (2, "action")))
    lines = [
        f"── {sample.id} · {sample.task_id} · {sample.policy} · {sample.label} · {sample.view}",
        f"   {sample.num_steps} steps · {sample.num_tokens} own tokens of {len(sample.token_ids)} · reward "
        f"{sample.reward:.3f} · trained: {legend}",
    ]
    pieces: list[str] = []
    owner = False
    for mark, run in groupby(zip(sample.token_ids, sample.agent_mask, strict=True), key=lambda pair: pair[1]):
        if bool(mark) != owner:
            pieces.append("\n")
            owner = bool(mark)
        text = decode([token for token, _ in run])
        shown = text.strip("\n")
        # Line breaks stay outside, also where one is part of the token in which the action begins.
        pieces.append(text.replace(shown, f"{paint[mark][0]}{shown}{paint[mark][1]}", 1) if shown else text)
    return "\n".join([*lines, "".join(pieces).lstrip("\n")])
