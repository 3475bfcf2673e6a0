"""Trajectories from other tools' files: TRL, LLaMA-Factory, AgentGym, OpenAI, Hugging Face datasets.

Whatever the format, a row becomes chat messages and what the format tells of the episode, and these
become a `Trajectory`. What a row lacks is filled in as `import_trajectories` says.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depo.config.base import ConfigError
from depo.data.store import write_table
from depo.policies.base import parse_reply
from depo.records import Step, Task, Trajectory, content_hash

IMPORTED = "imported.parquet"
_FROM = {"human": "user", "gpt": "assistant", "system": "system"}
_TASK_ID = re.compile(r"(?P<env>[^/]+)/(?P<level>.*)/(?P<seed>\d{1,18})")
_ITEM_ID = re.compile(r"(?P<level>.*?)[_-]?(?P<seed>\d{1,18})")


_KINDS: dict[Any, str] = {
    list: "a list",
    str: "text",
    bool: "true or false",
    (int, float): "a number",
    (list, str): "a list or text",
    (str, int): "text or a number",
}


class _Bad(ValueError):
    """What is wrong with a row, and the mend."""


@dataclass(frozen=True)
class Conversation:
    """A row as every format has it."""

    messages: list[tuple[str, str]]
    """(role, content), as the row has them."""
    task: str = ""
    reward: float | None = None
    label: bool | None = None


def import_trajectories(path: Path, format_: str, env: str, out_dir: Path) -> int:
    """Read a file of one of `IMPORTS` into trajectories of environment `env` in `out_dir`; their number.

    The annotate stage reads them. A row's return is its `reward`, else 1 or 0 by its label, else 1 (a
    demonstration); a return above 0 is a success. A task is named by `task_id` or `item_id`, and rows
    without one are of the same task where they begin alike. Thoughts and actions are read from the
    replies. Raises `ConfigError` naming file and row for a row that is malformed.
    """
    trajectories: list[Trajectory] = []
    seen: Counter[str] = Counter()
    for place, row in _rows(path):
        try:
            conversation = IMPORTS[format_](row)
            trajectory = _trajectory(conversation, env, seen)
        except _Bad as error:
            raise ConfigError(f"{path}: {place}: {error}") from None
        seen[trajectory.task.id] += 1
        trajectories.append(trajectory)
    if not trajectories:
        raise ConfigError(f"{path}: holds no row; give a file with at least one conversation")
    write_table(out_dir / IMPORTED, trajectories, Trajectory)
    return len(trajectories)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and content of each row of a JSON, JSON Lines, Parquet or Arrow file, or folder of the latter."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file; check the path")
    start = b"" if path.is_dir() else path.read_bytes()[:4]
    if path.is_dir() or start in (b"PAR1", b"ARRO", b"\xff\xff\xff\xff"):
        yield from _arrow_rows(path)
        return
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: neither JSON, Parquet nor Arrow; check --format and the path") from None
    if text.lstrip().startswith("["):
        yield from ((f"row {number}", row) for number, row in enumerate(_json(text, f"{path}"), 1))
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield f"row {number}", _json(line, f"{path}: row {number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise ConfigError(f"{where}: not JSON ({error.msg} at {at}); mend the file") from None


def _arrow_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a Parquet file, or of what `datasets.Dataset.save_to_disk` wrote."""
    files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
    if not files:
        raise ConfigError(f"{path}: no .arrow file in this folder; give what Dataset.save_to_disk wrote")
    number = 0
    for file in files:
        try:
            table = pq.read_table(file) if file.suffix != ".arrow" else pa.ipc.open_stream(file).read_all()
        except pa.ArrowInvalid as error:
            raise ConfigError(
                f"{file}: cannot be read ({str(error).splitlines()[0]}); write it anew"
            ) from None
        for row in table.to_pylist():
            number += 1
            yield f"row {number}", row


def _trajectory(conversation: Conversation, env: str, seen: Mapping[str, int]) -> Trajectory:
    chat = list(conversation.messages)
    system = chat.pop(0)[1] if chat and chat[0][0] == "system" else ""
    for number, (role, _) in enumerate(chat):
        if role != ("user", "assistant")[number % 2]:
            raise _Bad(
                f"message {number + 1} is of role {role!r}; user and assistant must alternate, the user first"
            )
    if not chat or len(chat) % 2:
        raise _Bad("the conversation must end with an assistant's message; complete it or leave the row out")
    steps = [_step(seen_, said) for (_, seen_), (_, said) in zip(chat[::2], chat[1::2], strict=True)]
    reward = _reward(conversation)
    steps[-1] = Step(**{**_fields(steps[-1]), "reward": reward})
    task = _task(conversation.task, env, [system, chat[0][1]])
    return Trajectory(
        task=task,
        policy="imported",
        tokenizer="",
        system=system,
        steps=tuple(steps),
        reward=reward,
        success=reward > 0,
        stop_reason="terminated",
        index=seen.get(task.id, 0),
    )


def _fields(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in Step.__dataclass_fields__}


def _step(observation: str, text: str) -> Step:
    thought, action, malformed = parse_reply(text)
    return Step(
        observation=observation,
        text=text,
        thought=thought,
        action=action,
        reward=0.0,
        valid=not malformed,
        malformed=malformed,
        # Nobody knows the tokens of whoever wrote it; samples count by the student's tokenizer.
        num_tokens=len(text.split()),
    )


def _reward(conversation: Conversation) -> float:
    if conversation.reward is not None:
        return conversation.reward
    return 1.0 if conversation.label is None else float(conversation.label)


def _task(name: str, env: str, begins: list[str]) -> Task:
    if match := _TASK_ID.fullmatch(name):
        if match["env"] != env:
            raise _Bad(f"the task {name!r} is of environment {match['env']!r}, not of {env!r}; check --env")
        return Task(env, match["level"], int(match["seed"]), "train")
    if match := _ITEM_ID.fullmatch(name):
        return Task(env, match["level"] or "imported", int(match["seed"]), "train")
    return Task(env, "imported", int(content_hash([name, *begins], length=8), 16) >> 1, "train")


def _openai(row: Any) -> Conversation:
    return Conversation(_messages(_field(row, "messages", list)), **_told(row))


def _trl(row: Any) -> Conversation:
    """TRL's prompt and completion, of messages or of plain text; also with `messages` alone."""
    if isinstance(row, dict) and "messages" in row:
        return Conversation(_messages(_field(row, "messages", list)), **_told(row))
    chat: list[tuple[str, str]] = []
    for name, role in (("prompt", "user"), ("completion", "assistant")):
        part = _field(row, name, (list, str))
        chat += [(role, part)] if isinstance(part, str) else _messages(part, name)
    return Conversation(chat, **_told(row))


def _trl_kto(row: Any) -> Conversation:
    _field(row, "label", bool)
    return _trl(row)


def _llama_factory(row: Any) -> Conversation:
    chat = _shared(row)
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        raise _Bad("`system` must be text; mend it or leave it out")
    return Conversation([("system", system), *chat] if system else chat, **_told(row, "kto_tag"))


def _agentgym(row: Any) -> Conversation:
    """AgentTraj: instructions whose acknowledgement is not trained on are the system prompt."""
    chat = _shared(row)
    turns = row["conversations"]
    if len(turns) > 3 and turns[0]["from"] == "human" and turns[1].get("loss") is False:
        chat = [("system", chat[0][1]), *chat[2:]]
    return Conversation(chat, **_told(row) | {"task": str(_field(row, "item_id", (str, int)))})


def _shared(row: Any) -> list[tuple[str, str]]:
    """Messages of a `conversations` list with `from` and `value`."""
    chat = []
    for number, turn in enumerate(_field(row, "conversations", list), 1):
        where = f"conversations[{number}]"
        role = _field(turn, "from", str, where)
        if role not in _FROM:
            raise _Bad(f"{where}: from {role!r} is not one of {', '.join(_FROM)}; rename it")
        chat.append((_FROM[role], _field(turn, "value", str, where)))
    return chat


def _messages(chat: list[Any], name: str = "messages") -> list[tuple[str, str]]:
    where = [f"{name}[{number}]" for number in range(1, len(chat) + 1)]
    return [
        (_field(turn, "role", str, at), _field(turn, "content", str, at))
        for turn, at in zip(chat, where, strict=True)
    ]


def _told(row: Mapping[str, Any], label: str = "label") -> dict[str, Any]:
    """What a row tells of the episode, where it does."""
    told: dict[str, Any] = {}
    for name, field, kind in (
        ("task", "task_id", str),
        ("reward", "reward", (int, float)),
        ("label", label, bool),
    ):
        if row.get(field) is not None:
            told[name] = _field(row, field, kind)
    return told


def _field(row: Any, name: str, kind: Any, where: str = "") -> Any:
    prefix = f"{where}: " if where else ""
    if not isinstance(row, dict):
        raise _Bad(f"{prefix}is {type(row).__name__}, not an object; check --format")
    if name not in row:
        raise _Bad(f"{prefix}has no `{name}`; check --format, or add it")
    value = row[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = _KINDS[kind]
        raise _Bad(f"{prefix}`{name}` is {json.dumps(value, default=str)[:40]}, not {wanted}; mend it")
    return value


IMPORTS: dict[str, Callable[[Any], Conversation]] = {
    "openai": _openai,
    "trl-kto": _trl_kto,
    "llama-factory": _llama_factory,
    "agentgym": _agentgym,
    "hf": _trl,
}
