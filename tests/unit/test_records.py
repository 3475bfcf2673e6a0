"""Records survive the way to disk and back; tables are whole or absent."""

import pytest
from builders import said, trajectory

from depo.data.store import read_table, read_trajectories, write_atomic, write_table
from depo.records import Episode, ReferenceLogProbs, Sample, Trajectory

EXAMPLES = {
    Trajectory: trajectory(
        [said("Éa.", token_ids=(1, 2), logprob=-1.5)],
        nodes=(1, 4),
        visits=(3, 1),
        values=(0.5, 0.25),
        index=2,
    ),
    Sample: Sample(
        "s", "t", "k", "babyai", "L", "p", "D", "raw", 0.9, True, 1, 2, (5, 6, 7), (0, 1, 1), 1, "s"
    ),
    ReferenceLogProbs: ReferenceLogProbs("s", -3.25, -9.0),
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


def test_a_round_is_read_once_each_and_in_the_same_order_whatever_the_shards(tmp_path):
    episodes = [trajectory([said(f"T{n}.")], seed=n % 3, index=n) for n in range(9)]
    for name, part in {"a": episodes[:5], "b": episodes[4:]}.items():
        write_table(tmp_path / "one" / f"{name}.parquet", part, Trajectory)
    write_table(tmp_path / "two" / "x.parquet", reversed(episodes), Trajectory)
    assert read_trajectories(tmp_path / "one") == read_trajectories(tmp_path / "two")
    assert len(read_trajectories(tmp_path / "one")) == 9


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


def test_writing_replaces_the_whole_file(tmp_path):
    write_atomic(tmp_path / "d" / "f", "long content")
    write_atomic(tmp_path / "d" / "f", b"short")
    assert (tmp_path / "d" / "f").read_text() == "short"
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["f"]
