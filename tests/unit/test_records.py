"""Records survive the way to disk and back; tables are whole or absent."""

from dataclasses import replace
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import said, trajectory

from depo.config.base import ConfigError
from depo.data.store import finished_ids, read_table, read_trajectories, write_atomic, write_table
from depo.records import ContextTurn, Episode, ReferenceLogProbs, Sample, Told, Trajectory

EXAMPLES = {
    Trajectory: trajectory(
        [said("Éa.", token_ids=(1, 2), logprob=-1.5, context=(ContextTurn("Rules.", "OK."),))],
        nodes=(1, 4),
        visits=(3, 1),
        values=(0.5, 0.25),
        index=2,
        told=Told("U", 7, 401),
    ),
    Sample: Sample(
        "s", "t", "k", "babyai", "L", "p", "D", "raw", 0.9, True, 1, 2, (5, 6, 7), (0, 1, 2), 1, "s"
    ),
    ReferenceLogProbs: ReferenceLogProbs("s", (-3.25, -0.5), (-9.0,)),
    Episode: Episode("bc", "greedy", "k", "L", False, 0.0, 7, 2, 90, "max_steps", "t"),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_a_record_reads_back_equal(kind, tmp_path):
    write_table(tmp_path / "a.parquet", [EXAMPLES[kind]], kind)
    assert read_table(tmp_path / "a.parquet", kind) == [EXAMPLES[kind]]
    assert read_table(tmp_path, kind) == [EXAMPLES[kind]]


def test_an_id_tells_replies_apart_and_nothing_else():
    base = trajectory([said("One.")])
    assert base.id == trajectory([said("One.")], reward=0.1).id
    assert base.id != trajectory([said("Two.")]).id
    assert base.id != trajectory([said("One.")], index=1).id


def of_task(seed: int, text: str = "T", stop: str = "terminated") -> list[Trajectory]:
    """Three rollouts of one task."""
    task = replace(trajectory([said("x")]).task, seed=seed)
    return [
        replace(trajectory([said(f"{text}{n}.")], index=n, stop_reason=stop), task=task) for n in range(3)
    ]


def test_a_round_is_read_once_each_and_in_the_same_order_whatever_the_shards(tmp_path):
    trees = [of_task(seed) for seed in range(4)]
    for name, part in {"a": trees[:3], "b": trees[2:]}.items():
        write_table(tmp_path / "one" / f"{name}.parquet", [*chain(*part)], Trajectory)
    write_table(tmp_path / "two" / "x.parquet", reversed([*chain(*trees)]), Trajectory)
    assert read_trajectories(tmp_path / "one") == read_trajectories(tmp_path / "two")
    assert len(read_trajectories(tmp_path / "one")) == 12
    assert set(finished_ids(tmp_path / "one").to_pylist()) == {tree[0].task.id for tree in trees}


def test_two_shards_with_other_rows_of_one_task_give_those_of_one(tmp_path):
    # A policy that is not deterministic, and a worker that died after it wrote.
    write_table(tmp_path / "a.parquet", of_task(1, "A") + of_task(2, "A"), Trajectory)
    write_table(tmp_path / "b.parquet", of_task(2, "B") + of_task(3, "B"), Trajectory)
    texts = {(t.task.seed, t.steps[0].thought[0]) for t in read_trajectories(tmp_path)}
    assert texts == {(1, "A"), (2, "A"), (3, "B")}


def test_a_task_that_failed_and_was_done_again_counts_as_done(tmp_path):
    write_table(tmp_path / "a.parquet", of_task(1, "A", stop="error")[:1], Trajectory)
    write_table(tmp_path / "b.parquet", of_task(1, "B"), Trajectory)
    assert [t.steps[0].thought for t in read_trajectories(tmp_path)] == ["B0.", "B1.", "B2."]


def test_a_file_half_written_is_not_read(tmp_path):
    write_table(tmp_path / "a.parquet", [EXAMPLES[Episode]], Episode)
    (tmp_path / ".b.parquet.1234").write_bytes(b"PAR1 cut short")
    assert len(read_table(tmp_path, Episode)) == 1


def test_a_missing_or_foreign_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no Parquet file"):
        read_table(tmp_path, Episode)
    (tmp_path / "a.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"a\.parquet"):
        read_table(tmp_path, Episode)


@pytest.mark.parametrize(
    ("version", "problem"),
    [("1", "schema version 1, this depo reads version 2 to 4; delete it"), ("5", "upgrade depo")],
)
def test_a_table_of_another_schema_version_is_one_clear_line(version, problem, tmp_path):
    write_table(tmp_path / "a.parquet", [EXAMPLES[Sample]], Sample, {b"version": version.encode()})
    with pytest.raises(ConfigError, match=rf"a\.parquet: a Sample table of .*{problem}") as error:
        read_table(tmp_path, Sample)
    assert "\n" not in str(error.value)


def test_records_that_did_not_change_are_read_from_older_files(tmp_path):
    write_table(tmp_path / "a.parquet", [EXAMPLES[Trajectory]], Trajectory, {b"version": b"1"})
    assert read_table(tmp_path, Trajectory) == [EXAMPLES[Trajectory]]
    with pytest.raises(ConfigError, match="not a table of Episode"):
        read_table(tmp_path, Episode)


def test_writing_replaces_the_whole_file(tmp_path):
    write_atomic(tmp_path / "d" / "f", "long content")
    write_atomic(tmp_path / "d" / "f", b"short")
    assert (tmp_path / "d" / "f").read_text() == "short"
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["f"]


def test_trajectories_of_the_schema_before_are_read_as_nobodys_import(tmp_path):
    write_table(tmp_path / "a.parquet", [EXAMPLES[Trajectory]], Trajectory)
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    for row in table:
        del row["told"]
        for step in row["steps"]:
            del step["context"]
    metadata = {b"record": b"Trajectory", b"version": b"3"}
    pq.write_table(pa.Table.from_pylist(table).replace_schema_metadata(metadata), tmp_path / "a.parquet")
    (read,) = read_table(tmp_path / "a.parquet", Trajectory)
    assert (read.told, read.steps[0].context, read.id) == (None, (), EXAMPLES[Trajectory].id)
