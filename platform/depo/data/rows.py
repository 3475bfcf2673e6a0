"""The rows of another tool's file: JSON, JSON Lines, Parquet, Arrow, or a data set's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from depo.config.base import ConfigError

_WHITE = re.compile(r"[ \t\r\n]*")  # all that JSON allows between its values
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError)


class BadRow(ValueError):
    """What is wrong with a row, and the mend."""


def rows_of(path: Path) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and content of each row; in the place of one that cannot be read, its `BadRow`.

    JSON is one array, or JSON Lines, which end at a line feed and at nothing else; it is read in UTF-8,
    UTF-16 or UTF-32, with or without a byte order mark. Raises `ConfigError` for a file that is none of
    these, or that breaks off in the middle.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such file; check the path")
    if path.is_dir():
        yield from enumerate(_dataset_rows(path), 1)
        return
    data = path.read_bytes()
    if data[:4] in (b"PAR1", b"ARRO", b"\xff\xff\xff\xff"):
        yield from enumerate(_arrow_rows(path, data[:4]), 1)
        return
    encoding = json.detect_encoding(data)
    try:  # bytes that are no UTF-8 stay in their row, as lone surrogates
        text = data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "strict")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: neither JSON, Parquet nor Arrow; check --format and the path") from None
    if text.lstrip().startswith("["):
        yield from _array_rows(text, path)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                yield number, _not_json(error)


def _array_rows(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The elements of one JSON array, each by itself, so that an error has its row."""
    number, at = 1, _after_white(text, text.index("[") + 1)
    more = text[at : at + 1] != "]"
    while more:
        try:
            row, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: row {number}: {_not_json(error)}") from None
        yield number, row
        at = _after_white(text, at)
        more = text[at : at + 1] == ","
        if more:
            number, at = number + 1, _after_white(text, at + 1)
    if text[at : at + 1] != "]" or text[at + 1 :].strip():
        raise ConfigError(f"{path}: after row {number} the array does not end as it should; mend the file")


def _after_white(text: str, at: int) -> int:
    found = _WHITE.match(text, at)
    return found.end() if found else at


def _not_json(error: Exception) -> BadRow:
    if isinstance(error, json.JSONDecodeError):
        return BadRow(f"not JSON ({error.msg} at line {error.lineno}, column {error.colno}); mend the file")
    what = "nested too deep" if isinstance(error, RecursionError) else str(error).splitlines()[0]
    return BadRow(f"not JSON that can be read ({what}); mend the file")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} stands twice in one object")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _arrow_rows(path: Path, magic: bytes) -> Iterator[Any]:
    """Rows of a Parquet file, or of an Arrow file or stream."""
    try:
        if magic == b"PAR1":
            table = pq.read_table(path, page_checksum_verification=True)
        else:
            table = (pa.ipc.open_file if magic == b"ARRO" else pa.ipc.open_stream)(path).read_all()
        table.validate(full=True)
        rows = table.to_pylist()
    except _BROKEN as error:
        raise ConfigError(f"{path}: cannot be read ({_first_line(error)}); write it anew") from None
    yield from rows


def _dataset_rows(path: Path) -> Iterator[Any]:
    """Rows of what `datasets.Dataset.save_to_disk` wrote; the cache files of its `map` are not among them."""
    from datasets import load_from_disk

    if (path / "dataset_dict.json").is_file():
        raise ConfigError(f"{path}: holds several data sets; give the folder of one of them")
    try:
        dataset = load_from_disk(str(path))
        rows = dataset.with_format(None).to_list()
    except _BROKEN as error:
        raise ConfigError(
            f"{path}: no data set that can be read ({_first_line(error)}); give a file, or the folder that "
            "Dataset.save_to_disk wrote"
        ) from None
    yield from rows


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).splitlines()), type(error).__name__)[:300]
    return "".join(c if c.isprintable() else "?" for c in line)


def shown(value: Any, length: int = 40) -> str:
    """A value as an error line shows it: short, and without control characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= length else f"{text[:length]}..."
