"""Which stages and trials a tracking store has been told of, so that an outage can be made good."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

MIRRORED = "mirrored.jsonl"


class Mirrored:
    """The keys that one store has; lines of `mirrored.jsonl`, added to and never changed."""

    def __init__(self, run_dir: Path, store: str) -> None:
        """`store` names the store; what others have does not count."""
        self._path, self._store = run_dir / MIRRORED, store
        lines = self._path.read_text().splitlines() if self._path.is_file() else []
        # A line that a kill cut short is mirrored once more.
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        self._keys = {row["key"] for row in rows if row["store"] == store}

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def add(self, key: str) -> None:
        """From here on `key` counts as mirrored."""
        if key in self._keys:
            return
        self._keys.add(key)
        # A full disk is no reason to stop what is mirrored; it is mirrored once more.
        with suppress(OSError), self._path.open("a") as file:
            file.write("\n" + json.dumps({"store": self._store, "key": key}))

    def forget(self) -> None:
        """Nothing counts as mirrored: the store is not what it was."""
        self._keys.clear()
