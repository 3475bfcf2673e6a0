"""Labelled trajectories for other tools: TRL, LLaMA-Factory, AgentGym, OpenAI, Hugging Face datasets.

A row holds what `depo import` needs to read the same trajectory back. What a format cannot hold is left out
and told, never written as something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depo.config.base import ConfigError
from depo.config.schema import AnnotationConfig
from depo.data.conversations import acknowledges
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
        ("success", pa.bool_()),
    ]
)
# JSON allows these as they are; readers that split lines at all that Unicode calls a line break do not.
_LINE_BREAKS = {ord(c): json.dumps(c)[1:-1] for c in "\x85\u2028\u2029"}


def export_samples(
    trajectories_dir: Path,
    annotation: AnnotationConfig | None,
    format_: str,
    out: Path,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> int:
    """Write a round's labelled trajectories as `depo export --format` has it; returns the number of rows.

    `say` gets a line on each thing that the format cannot hold, with its count. Raises `ConfigError` where
    nothing is left to write.
    """
    labelled, _ = label_all(read_trajectories(trajectories_dir), annotation or AnnotationConfig())
    kept = _held(labelled, format_, say)
    rows = _trl_dpo(kept, seed, say) if format_ == "trl-dpo" else _ROWS[format_](kept)
    if not rows:
        what = "no task with both labels" if format_ == "trl-dpo" else "no trajectory that is kept"
        raise ConfigError(f"export: {trajectories_dir} has {what}; change the annotation's thresholds")
    write_atomic(out, _encoded(rows, format_))
    if format_ == "llama-factory":
        say("LLaMA-Factory's KTO trains the last reply of a row only; its SFT trains all of them")
    context = sum(len(step.context) for t, _ in kept for step in t.steps)
    if context and format_ in ("llama-factory", "trl-sft"):
        say(f"{context} assistant's messages are marked as context; the tool itself trains on them too")
    return len(rows)


def _held(labelled: Labelled, format_: str, say: Callable[[str], None]) -> Labelled:
    """What the format can hold; the others are counted."""
    turns = [(t, [turn for step in t.steps[1:] for turn in step.context]) for t, _ in labelled]
    wrong = {
        "with an empty reply, which no tool takes": [
            not all(s.text.strip() for s in t.steps) for t, _ in turns
        ],
        "undesirable: the format holds demonstrations": [
            format_ in _DEMONSTRATIONS and mark == "U" for _, mark in labelled
        ],
        "with context between the agent's turns, which the format cannot mark": [
            format_ in _PROMPTED and bool(inside) for _, inside in turns
        ],
    }
    left_out = [False] * len(labelled)
    for why, found in wrong.items():
        new = [one and not out for one, out in zip(found, left_out, strict=True)]
        if any(new):
            say(f"{sum(new)} of {len(labelled)} trajectories left out: {why}")
        left_out = [out or one for out, one in zip(left_out, new, strict=True)]
    return [one for one, out in zip(labelled, left_out, strict=True) if not out]


def messages(trajectory: Trajectory) -> list[dict[str, str]]:
    """The episode as chat messages."""
    result = [{"role": "system", "content": trajectory.system}] if trajectory.system else []
    for seen, said, _ in _turns(trajectory):
        result += [{"role": "user", "content": seen}, {"role": "assistant", "content": said}]
    return result


def _turns(trajectory: Trajectory) -> list[tuple[str, str, bool]]:
    """(what was seen, what was said, whether the agent said it) of all turns, context among them."""
    turns = []
    for step in trajectory.steps:
        turns += [(turn.observation, turn.text, False) for turn in step.context]
        turns.append((step.observation, step.text, True))
    return turns


def _encoded(rows: list[Row], format_: str) -> bytes:
    if format_ == "hf":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=_HF_SCHEMA), sink, compression="zstd")
        return sink.getvalue().to_pybytes()
    lines = [json.dumps(row, ensure_ascii=False).translate(_LINE_BREAKS) for row in rows]
    if format_ in ("agentgym", "llama-factory"):  # one array, as these tools' own files are
        return ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    return "".join(f"{line}\n" for line in lines).encode()


def _outcome(trajectory: Trajectory, mark: Label, label: str = "label") -> Row:
    return {
        label: mark == "D",
        "task_id": trajectory.task.id,
        "reward": trajectory.reward,
        "success": trajectory.success,
    }


def _openai(labelled: Labelled) -> list[Row]:
    """Messages; those that are context have OpenAI's weight of 0."""
    weighed = any(_marked(t) for t, _ in labelled)
    rows = []
    for t, mark in labelled:
        chat: list[dict[str, Any]] = list(messages(t))
        if weighed:
            said = [message for message in chat if message["role"] == "assistant"]
            for message, (_, _, own) in zip(said, _turns(t), strict=True):
                message["weight"] = int(own)
        rows.append({"messages": chat, **_outcome(t, mark)})
    return rows


def _marked(trajectory: Trajectory) -> bool:
    """Whose a turn is must be written down: by its form alone it would be read otherwise."""
    return any(s.context for s in trajectory.steps) or acknowledges([s.text for s in trajectory.steps])


def _trl_kto(labelled: Labelled) -> list[Row]:
    return [{**_split(t), **_outcome(t, mark)} for t, mark in labelled]


def _trl_dpo(labelled: Labelled, seed: int, say: Callable[[str], None]) -> list[Row]:
    trajectories = [t for t, _ in labelled]
    # Only what begins alike can be compared; a task begins alike for one system prompt.
    begins = [json.dumps([t.task.id, _split(t)["prompt"]]) for t in trajectories]
    desirable = [mark == "D" for _, mark in labelled]
    pairs = pair_up(begins, desirable, [t.id for t in trajectories], _PAIRS_PER_TASK, seed)
    pairs = [(c, r) for c, r in pairs if messages(trajectories[c]) != messages(trajectories[r])]
    if alone := len(trajectories) - len({place for pair in pairs for place in pair}):
        say(f"{alone} of {len(trajectories)} trajectories left out: in no pair of one task and prompt")
    rows = []
    for places in pairs:
        row: Row = {}
        for name, t in zip(("chosen", "rejected"), (trajectories[place] for place in places), strict=True):
            row |= {"prompt": _split(t)["prompt"], name: _split(t)["completion"], "task_id": t.task.id}
            row |= {f"{name}_reward": t.reward, f"{name}_success": t.success}
        rows.append(row)
    return rows


def _split(trajectory: Trajectory) -> Row:
    """Prompt and completion; the prompt ends where the agent's own first turn begins."""
    chat = messages(trajectory)
    prompt = 1 + bool(trajectory.system) + 2 * len(trajectory.steps[0].context)
    return {"prompt": chat[:prompt], "completion": chat[prompt:]}


def _llama_factory(labelled: Labelled) -> list[Row]:
    """ShareGPT conversations with LLaMA-Factory's column for KTO."""
    marked = any(_marked(t) for t, _ in labelled)
    return [
        {
            "system": t.system,
            "conversations": _shared(_turns(t), marked),
            **_outcome(t, mark, "kto_tag"),
        }
        for t, mark in labelled
    ]


def _agentgym(labelled: Labelled) -> list[Row]:
    """AgentTraj's form, desirable trajectories only: they are there to be imitated."""
    rows = []
    for t, mark in labelled:
        turns = _turns(t)
        row = {"item_id": t.task.id, **_outcome(t, mark)}
        del row["task_id"]
        if t.system:
            turns = [(t.system, ACKNOWLEDGED, False), *turns]
        elif t.steps[0].context:
            row["system"] = ""  # else the opening turn would be read as the system prompt
        rows.append({"conversations": _shared(turns, True), **row})
    return rows


def _shared(turns: Sequence[tuple[str, str, bool]], marked: bool) -> list[dict[str, Any]]:
    """ShareGPT's messages, with AgentGym's `loss` where it is to be marked whose a turn is."""
    result: list[dict[str, Any]] = []
    for seen, said, own in turns:
        for who, value, loss in (("human", seen, None), ("gpt", said, own)):
            result.append({"from": who, "value": value, **({"loss": loss} if marked else {})})
    return result


_DEMONSTRATIONS = ("agentgym", "openai", "trl-sft")
_PROMPTED = ("trl-kto", "trl-dpo", "hf")
_ROWS: dict[str, Callable[[Labelled], list[Row]]] = {
    "trl-kto": _trl_kto,
    "trl-sft": _openai,
    "llama-factory": _llama_factory,
    "agentgym": _agentgym,
    "openai": _openai,
    "hf": _trl_kto,
}
