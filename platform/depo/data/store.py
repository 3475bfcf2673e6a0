"""Tables on disk: atomic Parquet files, read back as records."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from depo.records import (
    EPISODE_SCHEMA,
    REFERENCE_SCHEMA,
    SAMPLE_SCHEMA,
    TRAJECTORY_SCHEMA,
    Episode,
    ReferenceLogProbs,
    Sample,
    Trajectory,
    to_table,
)

SCHEMAS: dict[type, pa.Schema] = {
    Trajectory: TRAJECTORY_SCHEMA,
    Sample: SAMPLE_SCHEMA,
    ReferenceLogProbs: REFERENCE_SCHEMA,
    Episode: EPISODE_SCHEMA,
}
Record = TypeVar("Record", Trajectory, Sample, ReferenceLogProbs, Episode)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write a whole file or none: a reader, or a later start, never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.write_bytes(data.encode() if isinstance(data, str) else data)
    os.replace(temporary, path)


def write_table(path: Path, rows: Iterable[Any], kind: type) -> None:
    """Write records of one kind as a Parquet file, whole or not at all."""
    sink = pa.BufferOutputStream()
    pq.write_table(to_table(rows, SCHEMAS[kind]), sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def read_table(path: Path, kind: type[Record]) -> list[Record]:
    """All records of one kind below `path`, a Parquet file or a folder of them.

    Raises `FileNotFoundError` naming the path; `ValueError` naming a file that is no such table.
    """
    files = [path] if path.is_file() else sorted(path.glob("[!.]*.parquet"))
    if not files:
        raise FileNotFoundError(f"{path}: no Parquet file there; run the stage that writes it")
    records: list[Record] = []
    for file in files:
        try:
            table = pq.read_table(file, schema=SCHEMAS[kind])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(f"{file}: not a table of {kind.__name__} ({error}); delete it") from None
        records += [kind.from_row(row) for row in table.to_pylist()]
    return records


def read_trajectories(folder: Path) -> list[Trajectory]:
    """The trajectories of a round: each once, in an order that does not depend on the shards."""
    unique = {t.id: t for t in read_table(folder, Trajectory)}
    return sorted(unique.values(), key=lambda t: (t.task.level, t.task.seed, t.policy, t.index, t.seed))
