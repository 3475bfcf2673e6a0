"""Tables on disk: atomic Parquet files, read back as records."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from depo.config.base import ConfigError
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
    version_problem,
)

TOKENIZER_KEY = b"tokenizer"
"""Schema metadata of samples: fingerprint of the tokenizer and chat template that they were made with."""

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
    try:
        temporary.write_bytes(data.encode(errors="replace") if isinstance(data, str) else data)
        os.replace(temporary, path)
    except OSError:  # a full disk, or a folder in the file's place
        temporary.unlink(missing_ok=True)
        raise


def write_table(
    path: Path, rows: Iterable[Any], kind: type, metadata: Mapping[bytes, bytes] | None = None
) -> None:
    """Write records of one kind as a Parquet file, whole or not at all, with `metadata` in its schema."""
    sink = pa.BufferOutputStream()
    table = to_table(rows, SCHEMAS[kind])
    if metadata:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    pq.write_table(table, sink, compression="zstd")
    write_atomic(path, sink.getvalue().to_pybytes())


def read_table(path: Path, kind: type[Record]) -> list[Record]:
    """All records of one kind below `path`, a Parquet file or a folder of them.

    Raises `FileNotFoundError` naming the path; `ConfigError` naming a file that is no such table, or one of
    another schema version.
    """
    files = [path] if path.is_file() else sorted(path.glob("[!.]*.parquet"))
    if not files:
        raise FileNotFoundError(f"{path}: no Parquet file there; run the stage that writes it")
    records: list[Record] = []
    for file in files:
        try:
            problem = version_problem(pq.read_schema(file).metadata, kind.__name__)
            if problem:
                raise ConfigError(f"{file}: {problem}")
            table = pq.read_table(file, schema=SCHEMAS[kind])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"{file}: not a table of {kind.__name__} ({first}); delete it") from None
        records += [kind.from_row(row) for row in table.to_pylist()]
    return records


def shard_files(folder: Path) -> list[Path]:
    """The finished shards of a folder, by name."""
    return sorted(folder.glob("[!.]*.parquet"))


def finished_ids(folder: Path) -> pa.Array:
    """Ids of the tasks that have rows in a folder of trajectory shards, each once."""
    parts = [_tasks_of(file)["id"].unique() for file in shard_files(folder)]
    return pa.chunked_array(parts, pa.string()).unique()


def passed_over(folder: Path) -> dict[Path, set[str]]:
    """Tasks whose rows in a shard do not count, since another shard has them as well.

    That happens when a worker is lost after it wrote a shard and before anybody learnt of it, and
    when a task that had failed is done again. The rows that count are those of a shard where the
    task did not fail, and of the first of these by name.
    """
    files = shard_files(folder)
    parts = []
    for number, file in enumerate(files):
        own = _tasks_of(file).group_by("id").aggregate([("failed", "min")])
        parts.append(own.append_column("file", pa.array([number] * len(own), pa.int32())))
    if not parts:
        return {}
    claims = pa.concat_tables(parts)
    counts = claims.group_by("id").aggregate([("id", "count")])
    doubled = counts.filter(pc.greater(counts["id_count"], 1))["id"]
    contested = claims.filter(pc.is_in(claims["id"], doubled.combine_chunks())).to_pylist()
    best: dict[str, tuple[bool, int]] = {}
    for claim in contested:
        rank = (claim["failed_min"], claim["file"])
        best[claim["id"]] = min(best.get(claim["id"], rank), rank)
    over: dict[Path, set[str]] = {}
    for claim in contested:
        if best[claim["id"]][1] != claim["file"]:
            over.setdefault(files[claim["file"]], set()).add(claim["id"])
    return over


def _tasks_of(file: Path) -> pa.Table:
    """Columns `id` of the task and `failed` (the rollout ended in an error), a row a trajectory."""
    table = pq.read_table(file, columns=["task", "stop_reason"])
    task = table["task"].combine_chunks()
    parts = [task.field("env"), task.field("level"), task.field("seed").cast(pa.string())]
    ids = pc.binary_join_element_wise(*parts, "/")
    return pa.table({"id": ids, "failed": pc.equal(table["stop_reason"], "error")})


def shard_columns(folder: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of a round's trajectories, a shard at a time, each task's rows once.

    A field of a list's elements is named as Parquet does: `steps.list.element.num_tokens`.
    """
    over = passed_over(folder)
    for file in shard_files(folder):
        with pq.ParquetFile(file) as shard:
            table = shard.read(columns=columns)
        if file in over:
            passed = pc.is_in(_tasks_of(file)["id"], pa.array(over[file], pa.string()))
            table = table.filter(pc.invert(passed))
        yield table


def read_trajectories(folder: Path) -> list[Trajectory]:
    """The trajectories of a round: each once, in an order that does not depend on the shards.

    Raises as `read_table` does.
    """
    if not shard_files(folder):
        return read_table(folder, Trajectory)
    over = passed_over(folder)
    unique = {
        t.id: t
        for file in shard_files(folder)
        for t in read_table(file, Trajectory)
        if t.task.id not in over.get(file, ())
    }
    return sorted(unique.values(), key=lambda t: (t.task.level, t.task.seed, t.policy, t.index, t.seed))
