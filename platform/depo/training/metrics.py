"""What a training logs: the rows of `metrics.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

METRICS = "metrics.jsonl"
AUDIT = "audit.parquet"


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows logged so far; a last line still being written is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
