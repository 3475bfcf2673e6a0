"""Reference log-probs kept by content, so that whatever was scored once is never scored again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depo.config.base import ConfigError
from depo.data.store import shard_files, write_atomic
from depo.identity import weights_hash
from depo.records import content_hash

CACHE = ".reference-cache"
"""The cache's folder below the runs directory."""
_VERSION = 1
_SCHEMA = pa.schema([("key", pa.string()), ("logps", pa.list_(pa.float32()))])

FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.floating]]


@dataclass(frozen=True)
class ReferenceCache:
    """The cached log-probs of one policy: shards of finished batches, each written whole or not at all."""

    folder: Path

    def write(self, scored: Mapping[str, FloatArray]) -> None:
        """Add a finished batch: key of a sequence to the log-probs of its own tokens."""
        columns = {"key": list(scored), "logps": [values.tolist() for values in scored.values()]}
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, schema=_SCHEMA), sink, compression="zstd")
        write_atomic(self.folder / f"{content_hash(sorted(scored))}.parquet", sink.getvalue().to_pybytes())

    def read(self, keys: Iterable[str]) -> dict[str, FloatArray]:
        """The log-probs of those of `keys` that are there. Raises `ConfigError` naming a damaged shard."""
        wanted = pa.array(keys, pa.string())
        found: dict[str, FloatArray] = {}
        for file in shard_files(self.folder):
            try:
                table = pq.read_table(file, schema=_SCHEMA)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OSError):
                raise ConfigError(f"{file}: damaged; delete it, what it held is scored again") from None
            table = table.filter(pc.is_in(table["key"], wanted))
            logps = table["logps"].combine_chunks()
            ends = np.cumsum(logps.value_lengths().to_numpy(zero_copy_only=False))
            values = np.split(logps.flatten().to_numpy(zero_copy_only=False), ends[:-1])
            found.update(zip(table["key"].to_pylist(), values, strict=False))
        return found


def sequence_key(ids: np.ndarray, own: np.ndarray) -> str:
    """Key of a sequence: its ids, and which of them are the agent's own."""
    digest = hashlib.sha256(np.asarray(ids, dtype="<i4").tobytes())
    digest.update((np.asarray(own) != 0).astype(np.uint8).tobytes())
    return digest.hexdigest()[:32]


def open_cache(runs_dir: Path, model_dir: str, tokenizer: str, dtype: str) -> ReferenceCache:
    """The cache of the policy in `model_dir`: named by its weights, tokenizer and template, and dtype.

    So the same weights in another run share it.
    """
    name = content_hash([_VERSION, weights_hash(model_dir), tokenizer, dtype], length=24)
    return ReferenceCache(runs_dir / CACHE / name)
