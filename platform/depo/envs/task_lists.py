"""Which task numbers each split has: a range, a list of ids, or a file of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError

SPLITS = ("train", "validation", "test")
_ID = re.compile(r"(?:(?P<env>[\w-]*)_)?(?P<number>[0-9]{1,18})")
_FIELDS = ("item_id", "data_idx", "id")
"""Where a row of a file has its id, as AgentGym's data sets have it; the first that is there counts."""
_ENVIRONMENTS = frozenset(
    ("academia", "alfworld", "babyai", "maze", "movie", "sciworld", "searchqa", "sheet", "sqlgym",
     "textcraft", "todo", "weather", "webarena", "webshop", "wordle")
)  # fmt: skip
"""AgentGym's environments, as the ids of their tasks begin."""
_FORMS = "give [first, end), a list of ids such as [babyai_12, babyai_40], or a file of ids"


class TaskNumbers:
    """The task numbers of each split, none in two of them, in the order given.

    `splits` maps a split to two whole numbers [first, end), end excluded; to a list of ids; or to the path of
    a file: a JSON array, JSON Lines, or plain text with an id a line. An id is a number, or AgentGym's
    NAME_NUMBER; a row that is an object has it as `item_id`, `data_idx` or `id`. One that stands twice in a
    split counts once. `own` is the environment: where AgentGym has it, ids of its others are refused. `keep`
    picks numbers. Raises `ConfigError` naming split, file and row.
    """

    def __init__(self, splits: Any, own: str, keep: Callable[[int], bool] | None = None) -> None:
        if not isinstance(splits, Mapping) or not splits:
            raise ConfigError("splits: give tasks such as {train: [0, 800], test: [800, 1000]}")
        self._others = _ENVIRONMENTS - {own} if own in _ENVIRONMENTS else frozenset()
        self._numbers: dict[str, Sequence[int]] = {}
        for split, given in splits.items():
            if split not in SPLITS:
                raise ConfigError(f"splits.{split}: unknown split; use {', '.join(SPLITS)}")
            numbers = self._read(f"splits.{split}", given)
            for other, taken in self._numbers.items():
                both = _shared(numbers, taken)
                if both is not None:
                    raise ConfigError(f"splits.{split}: overlaps {other} (task {both}); a task has one split")
            self._numbers[split] = numbers
        if keep is not None:
            self._numbers = {split: tuple(filter(keep, each)) for split, each in self._numbers.items()}

    def of(self, split: str) -> Sequence[int]:
        """A split's numbers, none where it is not named. Raises `ConfigError` for an unknown split."""
        if split not in SPLITS:
            raise ConfigError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
        return self._numbers.get(split, ())

    def first(self, split: str, count: int) -> Sequence[int]:
        """The first `count` of them. Raises `ConfigError` where there are fewer."""
        numbers = self.of(split)
        if len(numbers) < count:
            raise ConfigError(f"splits.{split}: {len(numbers)} tasks, {count} were asked for; widen it")
        return numbers[:count]

    def _read(self, key: str, given: Any) -> Sequence[int]:
        if isinstance(given, list | tuple) and len(given) == 2 and all(type(end) is int for end in given):
            if not 0 <= given[0] < given[1]:
                raise ConfigError(f"{key}: give [first, end) with 0 <= first < end, not {list(given)!r}")
            return range(*given)
        if isinstance(given, str):
            rows = ((f"{key}: {given}: row {row}", entry) for row, entry in _rows(key, Path(given)))
        elif isinstance(given, list | tuple):
            rows = ((f"{key}: entry {entry}", each) for entry, each in enumerate(given, start=1))
        else:
            raise ConfigError(f"{key}: {_FORMS}, not {given!r:.80}")
        numbers = tuple(dict.fromkeys(self._number(where, entry) for where, entry in rows))
        if not numbers:
            raise ConfigError(f"{key}: holds no task; {_FORMS}")
        return numbers

    def _number(self, where: str, entry: Any) -> int:
        if isinstance(entry, dict):
            entry = next((entry[field] for field in _FIELDS if field in entry), entry)
        found = _ID.fullmatch(str(entry).strip()) if type(entry) in (int, str) else None
        if found is None:
            raise ConfigError(f"{where}: {entry!r:.80} is no task id; give a number or NAME_NUMBER")
        if found["env"] in self._others:
            raise ConfigError(f"{where}: {entry!r:.80} is a task of {found['env']}; leave it out")
        return int(found["number"])


def task_numbers(splits: Any, own: str, keep: Callable[[int], bool] | None = None) -> TaskNumbers:
    """`TaskNumbers` of what stands in a configuration, or those that were read before as they are."""
    return splits if isinstance(splits, TaskNumbers) else TaskNumbers(splits, own, keep)


def _shared(one: Sequence[int], other: Sequence[int]) -> int | None:
    """A number that is in both, None where there is none."""
    if isinstance(one, range) and isinstance(other, range):
        first = max(one.start, other.start)
        return first if first < min(one.stop, other.stop) else None
    few, many = sorted((one, other), key=len)
    known = many if isinstance(many, range) else set(many)
    return next((number for number in few if number in known), None)


def _rows(key: str, path: Path) -> Iterator[tuple[int, Any]]:
    """Row numbers, from 1, and what stands there; of plain text, the lines that are not blank."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: {path}: cannot be read ({error}); {_FORMS}") from None
    if path.suffix == ".json":
        listed = _json(f"{key}: {path}", text)
        if not isinstance(listed, list):
            raise ConfigError(f"{key}: {path}: expected an array of ids, got {type(listed).__name__}")
        yield from enumerate(listed, start=1)
        return
    for row, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{key}: {path}: row {row}"
            yield row, _json(where, line) if path.suffix == ".jsonl" else line


def _json(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not JSON ({error}); is the file complete?") from None
