"""Many JSON records in one file, read one by one from a memory map."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


def load_array(path: Path) -> NDArray:
    """A read-only array on a memory map: processes share its pages."""
    return np.asarray(np.load(path, mmap_mode="r"))


class HeapWriter:
    """Appends records to `<name>.bin`; `close` writes where each of them is to `<name>.npy`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._spans_path = folder / f"{name}.npy"
        self._stream = (folder / f"{name}.bin").open("wb")
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, record: Any) -> None:
        data = _ENCODE(record).encode("ascii")
        self._stream.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def close(self, order: Sequence[int] | NDArray | None = None) -> None:
        """Finish; record i of the heap is then the `order[i]`-th appended one (all in turn by default)."""
        self._stream.write(b"\n")  # an empty file could not be mapped
        self._stream.close()
        ends = np.frombuffer(self._ends, np.int64)
        spans = np.stack([ends[:-1], ends[1:]], axis=1)
        np.save(self._spans_path, spans if order is None else spans[np.asarray(order, np.int64)])


class Heap:
    """The records that a `HeapWriter` left."""

    def __init__(self, folder: Path, name: str) -> None:
        self._spans = load_array(folder / f"{name}.npy")
        self._data = np.asarray(np.memmap(folder / f"{name}.bin", np.uint8, "r"))

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, at: int) -> Any:
        start, end = self._spans[at].tolist()
        return json.loads(self._data[start:end].tobytes())
