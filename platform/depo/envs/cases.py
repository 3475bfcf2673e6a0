"""Recorded cases of an environment, and what came of replaying them."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError

REPLAYED = {"babyai": "depo.envs.babyai.cases", "webshop": "depo.envs.webshop.cases"}
"""Environments with recorded cases, and where each replays its own."""


@dataclass(frozen=True)
class CaseReport:
    """How many cases were replayed, and in one line where the first of them differed ("" for nowhere).

    `difference` tells the case (line number, level and seed or session), the step, the field, what was
    recorded and what came.
    """

    checked: int
    difference: str = ""
    note: str = ""
    """What else there is to say of how they were replayed."""


def replay_cases(env: str, cases: Path, compat: str, catalogue: Path | None = None) -> CaseReport:
    """Replay the cases recorded in a file under the rules `compat` of an environment in `REPLAYED`.

    Raises `ConfigError` for a malformed file or unknown rules.
    """
    report: CaseReport = import_module(REPLAYED[env]).check_cases(cases, compat, catalogue)
    return report


def read_cases(path: Path | str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers (from 1) and records of a `.jsonl` or `.jsonl.gz` file; blank lines are passed over.

    Raises `ConfigError` naming file and row for a file that is missing, empty, truncated, not UTF-8 or not
    gzip, and for a row that is not a JSON object.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    row, found = 0, False
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for row, line in enumerate(lines, start=1):
                if line.strip():
                    found = True
                    yield row, _record(path, row, line)
    except (gzip.BadGzipFile, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: row {row + 1}: cannot be read ({error}); copy the file again") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give a .jsonl or .jsonl.gz") from None
    if not found:
        raise ConfigError(f"{path}: holds no case; copy the file again")


def _record(path: Path, row: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{path}: row {row}: not JSON ({error}); is the file complete?") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{path}: row {row}: expected an object, got {type(record).__name__}")
    return record
