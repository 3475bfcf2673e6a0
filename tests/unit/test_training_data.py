"""Reading samples for training: what is kept, what is refused, in which order it comes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from depo.config.base import ConfigError
from depo.config.schema import MethodConfig
from depo.records import REFERENCE_SCHEMA, SAMPLE_SCHEMA, ReferenceLogProbs, Sample, to_table
from depo.training import dataset
from depo.training.run import TrainSpec, load_table, num_steps


def sample(number: int, label: str = "D", length: int = 6, **changes) -> Sample:
    base = Sample(
        id=f"s{number}", trajectory_id=f"t{number}", task_id="k", env="e", level="l", policy="p", label=label,
        view="raw", reward=1.0, success=True, num_steps=2, num_tokens=length - 3,
        token_ids=tuple(range(10 * number, 10 * number + length)), agent_mask=(0, 0) + (1,) * (length - 2),
        prompt_length=2, kl_partner=f"s{(number + 1) % 4}",
    )  # fmt: skip
    return replace(base, **changes)


def spec(
    folder: Path, samples: list[Sample], scored: list[ReferenceLogProbs] | None = None, **method
) -> TrainSpec:
    pq.write_table(to_table(samples, SAMPLE_SCHEMA), folder / "samples.parquet")
    if scored is not None:
        pq.write_table(to_table(scored, REFERENCE_SCHEMA), folder / "reference.parquet")
    return TrainSpec(
        method=MethodConfig(**{"objective": "kto", "view": "raw", **method}),
        model_dir="unused",
        samples=str(folder / "samples.parquet"),
        reference=str(folder / "reference.parquet"),
        out_dir=str(folder),
        dtype="float32",
        max_length=8,
    )


def scores(*numbers: int, value: float = -1.0) -> list[ReferenceLogProbs]:
    return [ReferenceLogProbs(f"s{n}", value - n, -n) for n in numbers]


def test_sft_reads_desirable_samples_of_its_view(tmp_path):
    samples = [sample(0), sample(1, "U"), sample(2, view="rephrased"), sample(3)]
    table = load_table(spec(tmp_path, samples, objective="sft"))
    assert [table.ids[row] for row in table.rows] == ["s0", "s3"]


def test_too_long_samples_are_left_out_and_counted_but_still_serve_as_partners(tmp_path):
    samples = [sample(0), sample(1, length=12), sample(2, "U"), sample(3, "U")]
    table = load_table(spec(tmp_path, samples, scores(0, 2, 3)))
    assert [table.ids[row] for row in table.rows] == ["s0", "s2", "s3"] and table.dropped == 1
    ids, mask = table.kl_sequence(0)
    assert ids.tolist() == [0, 1, *range(12, 18)]  # its own prompt, its partner's completion cut at 8
    assert mask.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_reference_is_joined_by_id_whatever_its_order(tmp_path):
    samples = [sample(0), sample(1), sample(2, "U"), sample(3, "U")]
    table = load_table(spec(tmp_path, samples, scores(3, 1, 0, 2)))
    assert table.ref_logp.tolist() == [-1, -2, -3, -4]
    assert table.ref_kl_logp.tolist() == [0, -1, -2, -3]


def test_balance_leaves_out_of_the_larger_class_whatever_the_order(tmp_path):
    samples = [sample(n, "D" if n < 9 else "U", kl_partner="s0") for n in range(12)]
    scored = scores(*range(12))
    first = load_table(spec(tmp_path, samples, scored, balance=True))
    second = load_table(spec(tmp_path, samples[::-1], scored, balance=True))
    assert {first.ids[r] for r in first.rows} == {second.ids[r] for r in second.rows}
    assert first.desirable[first.rows].sum() == 3 == (~first.desirable[first.rows]).sum()


U = sample(3, "U", kl_partner="s3")


@pytest.mark.parametrize(
    ("samples", "scored", "message"),
    [
        ([sample(0, agent_mask=(0,) * 6), U], scores(0, 3), "sample s0 has no token of the agent's own"),
        ([sample(0, agent_mask=(1, 0, 0, 0, 0, 0)), U], scores(0, 3), "sample s0 has no token"),
        ([sample(0, agent_mask=(0, 1)), U], scores(0, 3), "s0 has 6 token_ids but 2 in agent_mask"),
        ([sample(0), U], scores(0, 3), "KL partner of sample s0 is missing"),
        ([sample(0, kl_partner="s3"), U], scores(3), "no reference log-probs of 1 samples, s0 the first"),
        (
            [sample(0, kl_partner="s3"), U],
            scores(0, 3, value=float("nan")),
            "ref_logp of sample s0 is not finite",
        ),
        ([sample(0, kl_partner="s0")], scores(0), "no undesirable sample of view 'raw'"),
        ([sample(0, length=9), U], scores(3), "no desirable sample .*1 are longer than max_length=8"),
        ([sample(0), sample(0)], scores(0), "two samples share an id"),
        ([sample(0, view="rephrased")], scores(0), "holds no sample of view 'raw'"),
    ],
)
def test_unusable_data_is_refused_by_name(tmp_path, samples, scored, message):
    with pytest.raises(ConfigError, match=message):
        load_table(spec(tmp_path, samples, scored))


def test_a_missing_or_foreign_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.parquet: no such file"):
        dataset.load_samples(str(tmp_path / "nowhere.parquet"), "raw", 8)
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(ConfigError, match=r"text\.parquet: not the Parquet file expected"):
        dataset.load_samples(str(tmp_path / "text.parquet"), "raw", 8)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 99))
def test_every_pass_takes_each_row_once(count, batch_size, steps, seed):
    rows = np.arange(100, 100 + count)
    order = dataset.training_order(rows, batch_size, steps, seed)
    assert len(order) == batch_size * steps
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == rows.tolist()
    assert order.tolist() == dataset.training_order(rows, batch_size, steps, seed).tolist()


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8))
def test_labels_are_spread_evenly(desirable, undesirable, batch_size):
    labels = np.array([True] * desirable + [False] * undesirable)
    steps = -(-len(labels) // batch_size)
    order = dataset.training_order(np.arange(len(labels)), batch_size, steps, 0, desirable=labels)
    share = desirable / len(labels)
    for start in range(0, len(labels) - batch_size + 1, batch_size):
        assert abs(labels[order[start : start + batch_size]].sum() - share * batch_size) <= 2


def test_grouping_by_length_keeps_the_rows_and_saves_padding():
    lengths = np.random.default_rng(0).integers(10, 400, 640)
    plain = dataset.training_order(np.arange(640), 16, 40, 0)
    grouped = dataset.training_order(np.arange(640), 16, 40, 0, lengths=lengths)
    assert sorted(grouped) == list(range(640))

    def padded(order: np.ndarray) -> int:
        return int((lengths[order].reshape(-1, 16).max(axis=1) * 16).sum())

    assert padded(grouped) < 1.1 * lengths.sum() < padded(plain)
    assert not (np.diff(lengths[grouped].reshape(-1, 16).mean(axis=1)) > 0).all()


def test_number_of_steps():
    assert num_steps(MethodConfig(objective="sft", epochs=1.5, batch_size=16), 100) == 10
    assert num_steps(MethodConfig(objective="sft", max_steps=7), 100) == 7
