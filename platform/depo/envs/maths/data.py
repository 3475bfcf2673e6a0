"""Loaders of the public files of GSM8K, MATH and SimulEq."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from depo.config.base import ConfigError
from depo.envs.cases import read_cases
from depo.envs.maths.answers import Answer, boxed

_IDS = ("id", "unique_id", "iIndex", "idx")
_QUESTION = ("question", "problem", "sQuestion", "Input")
_ANSWER = ("answer", "answers", "lSolutions", "solution", "solutions", "Output Answer")


@dataclass(frozen=True)
class Row:
    """One problem of a file: `index` is its place in it, from 0."""

    index: int
    question: str
    answer: Answer
    level: str


def load(dataset: str, path: str) -> tuple[Row, ...]:
    """All problems of a JSONL, JSON or Parquet file, or of a folder of JSON files; read once a process.

    Raises `ConfigError` naming file, row and field for whatever is missing, empty, cut off, of the wrong
    type, or has the id of another row.
    """
    place = Path(path)
    try:
        changed = place.stat().st_mtime_ns
    except OSError as error:
        raise ConfigError(f"path: {path}: cannot be read ({error.strerror}); check the path") from None
    return _load(dataset, place, changed)


@functools.lru_cache(maxsize=8)
def _load(dataset: str, path: Path, changed: int) -> tuple[Row, ...]:
    rows, ids = [], dict[Any, str]()
    for index, (where, record) in enumerate(_records(path)):
        for key in _IDS:
            if key in record:
                earlier = ids.setdefault((key, repr(record[key])), where)
                if earlier != where:
                    raise ConfigError(
                        f"path: {where}: {key}: {record[key]!r} is that of {earlier} too; drop one"
                    )
        rows.append(_READERS[dataset](index, where, record))
    if not rows:
        raise ConfigError(f"path: {path}: holds no problem; copy the file again")
    return tuple(rows)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record with the name of its place, for messages."""
    if path.is_dir():
        for file in sorted(path.rglob("*.json"), key=lambda f: (f.parent, len(f.name), f.name)):
            yield str(file), _object(str(file), _json(file))
    elif path.suffix == ".parquet":
        try:
            table = pa.parquet.read_table(path)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"path: {path}: not a Parquet file ({reason}); copy it again") from None
        for number, record in enumerate(table.to_pylist(), start=1):
            yield f"{path}: row {number}", record
    elif path.suffix == ".json":
        records = _json(path)
        if not isinstance(records, list):
            raise ConfigError(f"path: {path}: expected a list of problems, got {type(records).__name__}")
        for number, record in enumerate(records, start=1):
            yield f"{path}: row {number}", _object(f"{path}: row {number}", record)
    else:
        try:
            for number, record in read_cases(path):
                yield f"{path}: row {number}", record
        except ConfigError as error:
            raise ConfigError(f"path: {str(error).removeprefix('path: ')}") from None


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"path: {file}: not JSON ({error}); is the file complete?") from None


def _object(where: str, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ConfigError(f"path: {where}: expected an object, got {type(record).__name__}")
    return record


def _field(where: str, record: dict[str, Any], names: tuple[str, ...]) -> tuple[str, Any]:
    """The first of `names` that `record` has, and its value."""
    for name in names:
        if record.get(name) is not None:
            return name, record[name]
    raise ConfigError(f"path: {where}: {names[0]}: missing; give one of {', '.join(names)}")


def _text(where: str, record: dict[str, Any], names: tuple[str, ...]) -> str:
    name, value = _field(where, record, names)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"path: {where}: {name}: expected some text, got {value!r}")
    return value.strip()


def _gsm8k(index: int, where: str, record: dict[str, Any]) -> Row:
    solution = _text(where, record, ("answer",))
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise ConfigError(f"path: {where}: answer: nothing after '####'; is this GSM8K's file?")
    question = _text(where, record, ("question",))
    return Row(index, question, Answer((answer.strip().replace(",", ""),)), "gsm8k")


def _math(index: int, where: str, record: dict[str, Any]) -> Row:
    solution = record.get("solution")
    answer = boxed(solution) if isinstance(solution, str) else ""
    if not answer and record.get("answer") is not None:
        answer = _text(where, record, ("answer",))
    if not answer:
        _text(where, record, ("solution",))
        raise ConfigError(f"path: {where}: solution: holds no \\boxed{{answer}}; is this MATH's file?")
    _, level = _field(where, record, ("level",))
    digit = str(level).removeprefix("Level ").strip()
    return Row(index, _text(where, record, ("problem",)), Answer((answer,)), f"math-{digit}")


def _simuleq(index: int, where: str, record: dict[str, Any]) -> Row:
    question = _text(where, record, _QUESTION)
    name, value = _field(where, record, _ANSWER)
    if isinstance(value, dict):
        answer = Answer(tuple(_value(where, name, v) for v in value.values()), tuple(map(str, value)))
    else:
        values = value if isinstance(value, list) else [value]
        answer = Answer(tuple(_value(where, name, v) for v in values))
    if not answer.values:
        raise ConfigError(f"path: {where}: {name}: empty; give the solution")
    return Row(index, question, answer, "simuleq")


def _value(where: str, name: str, value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str) or not str(value).strip():
        raise ConfigError(f"path: {where}: {name}: expected a number or text, got {value!r}")
    return str(value).strip()


_READERS: dict[str, Callable[[int, str, dict[str, Any]], Row]] = {
    "gsm8k": _gsm8k,
    "math": _math,
    "simuleq": _simuleq,
}
