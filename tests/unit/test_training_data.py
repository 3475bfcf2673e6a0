"""Reading samples for training: what is kept, what is refused, in which order it comes."""

from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import renderer
from hypothesis import given
from hypothesis import strategies as st

from depo.config.base import ConfigError
from depo.config.schema import MethodConfig
from depo.data.store import TOKENIZER_KEY, write_table
from depo.objectives.turns import turn_discounts
from depo.records import REFERENCE_SCHEMA, SAMPLE_SCHEMA, ReferenceLogProbs, Sample, to_table
from depo.training import dataset
from depo.training.loading import require_tokenizer, with_bonus
from depo.training.order import length_groups, padding_share, training_order
from depo.training.pairs import make_pairs
from depo.training.run import TrainSpec, load_table, num_steps
from depo.training.weights import Trained


def sample(number: int, label: str = "D", length: int = 6, **changes) -> Sample:
    base = Sample(
        id=f"s{number}", trajectory_id=f"t{number}", task_id="k", env="e", level="l", policy="p", label=label,
        view="raw", reward=1.0, success=True, num_steps=2, num_tokens=length - 3,
        token_ids=tuple(range(10 * number, 10 * number + length)),
        agent_mask=(0, 0) + (1,) * (length - 3) + (2,),
        prompt_length=2, kl_partner=f"s{(number + 1) % 4}",
    )  # fmt: skip
    return replace(base, **changes)


def spec(
    folder: Path,
    samples: list[Sample],
    scored: list[ReferenceLogProbs] | None = None,
    too_long="drop",
    **method,
) -> TrainSpec:
    pq.write_table(to_table(samples, SAMPLE_SCHEMA), folder / "samples.parquet")
    if scored is not None:
        pq.write_table(to_table(scored, REFERENCE_SCHEMA), folder / "reference.parquet")
    return TrainSpec(
        method=MethodConfig(**{"objective": "kto", "view": "raw", "batch_size": 1, **method}),
        model_dir="unused",
        samples=str(folder / "samples.parquet"),
        reference=str(folder / "reference.parquet"),
        out_dir=str(folder),
        dtype="float32",
        max_length=8,
        too_long=too_long,
    )


def scores(*numbers: int, value: float = -1.0, own: int = 4, kl: int = 4) -> list[ReferenceLogProbs]:
    """Reference rows: of sample n, `value` and then -n for every other own token; -n in the KL pair."""
    return [ReferenceLogProbs(f"s{n}", (value, *[-n] * (own - 1)), (-n,) * kl) for n in numbers]


def test_sft_reads_desirable_samples_of_its_view(tmp_path):
    samples = [sample(0), sample(1, "U"), sample(2, view="rephrased"), sample(3)]
    table = load_table(spec(tmp_path, samples, objective="sft"))
    assert [table.ids[row] for row in table.rows] == ["s0", "s3"]


def test_too_long_samples_are_left_out_and_counted_but_still_serve_as_partners(tmp_path):
    samples = [sample(0), sample(1, length=12), sample(2, "U"), sample(3, "U")]
    table = load_table(spec(tmp_path, samples, [*scores(0, kl=6), *scores(2, 3)]))
    assert [table.ids[row] for row in table.rows] == ["s0", "s2", "s3"] and table.dropped == 1
    ids, weights = table.kl_sequence(0)
    assert ids.tolist() == [0, 1, *range(12, 18)]  # its own prompt, its partner's completion cut at 8
    assert weights.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert table.kl_lengths.tolist() == [8, 6, 6, 6]


def test_reference_is_joined_by_id_whatever_its_order(tmp_path):
    samples = [sample(0), sample(1), sample(2, "U"), sample(3, "U")]
    table = load_table(spec(tmp_path, samples, scores(3, 1, 0, 2)))
    assert table.ref_logp.tolist() == [-1, -4, -7, -10]
    assert table.ref_kl_logp.tolist() == [0, -4, -8, -12]


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
            "logps of sample s0 is not finite",
        ),
        ([sample(0, kl_partner="s3"), U], scores(0, 3, own=3), "logps of sample s0 has 3 values for 4 own"),
        ([sample(0, kl_partner="s0")], scores(0), "no undesirable sample of view 'raw'"),
        ([sample(0, length=9), U], scores(3), "no desirable sample .*; 1 are longer than max_length=8"),
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
    order = training_order(rows, batch_size, steps, seed)
    assert len(order) == batch_size * steps
    for start in range(0, len(order) - count + 1, count):
        assert sorted(order[start : start + count]) == rows.tolist()
    assert order.tolist() == training_order(rows, batch_size, steps, seed).tolist()


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 8))
def test_labels_are_spread_evenly(desirable, undesirable, batch_size):
    labels = np.array([True] * desirable + [False] * undesirable)
    steps = -(-len(labels) // batch_size)
    order = training_order(np.arange(len(labels)), batch_size, steps, 0, desirable=labels)
    share = desirable / len(labels)
    for start in range(0, len(labels) - batch_size + 1, batch_size):
        assert abs(labels[order[start : start + batch_size]].sum() - share * batch_size) <= 2


def test_grouping_by_length_keeps_the_rows_and_saves_padding():
    lengths = np.random.default_rng(0).integers(10, 400, 640)
    plain = training_order(np.arange(640), 16, 40, 0)
    grouped = training_order(np.arange(640), 16, 40, 0, lengths=lengths)
    assert sorted(grouped) == list(range(640))

    def padded(order: np.ndarray) -> int:
        return int((lengths[order].reshape(-1, 16).max(axis=1) * 16).sum())

    assert padded(grouped) < 1.1 * lengths.sum() < padded(plain)
    assert not (np.diff(lengths[grouped].reshape(-1, 16).mean(axis=1)) > 0).all()


def test_number_of_steps():
    assert num_steps(MethodConfig(objective="sft", epochs=1.5, batch_size=16), 100) == 10
    assert num_steps(MethodConfig(objective="sft", max_steps=7), 100) == 7


def episodes(*turns: tuple[tuple[int, int], ...]) -> tuple[list[int], list[list[int]]]:
    """Lengths and masks of sequences of a two-token prompt and turns of (thought, action) tokens, each but
    the last followed by one token of the template."""
    masks = []
    for sequence in turns:
        parts = [[1] * thought + [2] * action for thought, action in sequence]
        masks.append([0, 0, *parts[0], *[mark for part in parts[1:] for mark in (0, *part)]])
    return [len(mask) for mask in masks], masks


def masked(number: int, turns: tuple[tuple[int, int], ...], **changes) -> Sample:
    (length,), (mask,) = episodes(turns)
    ids = tuple(range(100 * number, 100 * number + length))
    return sample(number, agent_mask=tuple(mask), token_ids=ids, **changes)


def table_of(samples: list[Sample], max_length=8, trained=Trained(), too_long="drop"):  # noqa: B008
    return dataset.from_arrow(
        to_table(samples, SAMPLE_SCHEMA), max_length, too_long=too_long, trained=trained
    )


@pytest.mark.parametrize(
    ("tokens", "weights"),
    [
        ("all", [0, 0, 1, 1, 0, 1, 1]),
        ("last", [0, 0, 0, 0, 0, 1, 1]),
        ("actions", [0, 0, 0, 1, 0, 0, 1]),
        ("thoughts", [0, 0, 1, 0, 0, 1, 0]),
    ],
)
def test_trained_tokens_choose_among_the_own_ones(tokens, weights):
    # The second sequence begins right where the first ends.
    table = table_of([masked(n, ((1, 1), (1, 1))) for n in range(2)], trained=Trained(tokens))
    assert table.weights.tolist() == weights * 2 and table.weights.dtype == np.float32


def test_dmpo_weighs_the_tokens_of_a_turn_by_its_discount():
    one, two = ((1, 2),), ((1, 1), (0, 2), (1, 0))
    table = table_of([masked(0, one), masked(1, two)], max_length=12, trained=Trained("all", 0.5))
    first, second, third = turn_discounts(3, 0.5)
    assert table.sequence(0)[1].tolist() == [0, 0, 1, 1, 1]
    expected = [0, 0, first, first, 0, second, second, 0, third]
    assert table.sequence(1)[1].tolist() == pytest.approx(expected)


def test_the_reference_follows_the_weights(tmp_path):
    samples = [masked(0, ((1, 1), (1, 1)), kl_partner="s1"), masked(1, ((2, 1),), label="U", kl_partner="s0")]
    scored = [
        ReferenceLogProbs("s0", (1, 2, 4, 8), (16, 32, 64)),
        ReferenceLogProbs("s1", (3, 5, 7), (1, 2, 4, 8)),
    ]
    sums = {
        tokens: load_table(spec(tmp_path, samples, scored, trained_tokens=tokens))
        for tokens in ("all", "last", "actions", "thoughts")
    }
    assert {t: table.ref_logp.tolist() for t, table in sums.items()} == {
        "all": [15, 15], "last": [12, 15], "actions": [10, 7], "thoughts": [5, 8],
    }  # fmt: skip
    assert sums["actions"].ref_kl_logp.tolist() == [64, 10]


def test_a_sample_without_a_token_under_the_chosen_mask_is_refused(tmp_path):
    samples = [masked(0, ((2, 0),), kl_partner="s0"), masked(1, ((1, 1),), label="U", kl_partner="s0")]
    with pytest.raises(ConfigError, match=r"sample s0 has no token .* trained_tokens='actions' trains on"):
        load_table(spec(tmp_path, samples, [], trained_tokens="actions"))


def test_too_long_samples_are_cut_where_a_turn_ends(tmp_path):
    samples = [
        masked(0, ((1, 2), (1, 2)), kl_partner="s1"),  # 9 tokens: the second turn goes
        masked(1, ((4, 4),), label="U", kl_partner="s0"),  # 10 tokens: its only turn does not fit
        masked(2, ((1, 1),), label="U", kl_partner="s0"),
    ]
    scored = [ReferenceLogProbs("s0", (-1,) * 3, (-1,) * 6), ReferenceLogProbs("s2", (-2,) * 2, (-2,) * 3)]
    table = load_table(spec(tmp_path, samples, scored, too_long="cut"))
    assert [table.ids[row] for row in table.rows] == ["s0", "s2"]
    assert (table.cut, table.dropped) == (1, 1)
    assert table.sequence(0)[0].tolist() == [0, 1, 2, 3, 4]
    assert table.kl_sequence(2)[0].tolist() == [200, 201, 2, 3, 4]  # a partner is cut alike
    assert table.num_steps[0] == 2  # the bonus counts the whole trajectory


def test_fewer_samples_than_a_batch_are_refused(tmp_path):
    samples = [sample(0), sample(1), sample(2, "U"), sample(3, "U")]
    assert len(load_table(spec(tmp_path, samples, scores(0, 1, 2, 3), batch_size=4)).rows) == 4
    with pytest.raises(ConfigError, match=r"4 samples .* are fewer than batch_size=5"):
        load_table(spec(tmp_path, samples, scores(0, 1, 2, 3), batch_size=5))
    with pytest.raises(ConfigError, match=r"4 pairs .* are fewer than batch_size=5"):
        load_table(spec(tmp_path, samples, scores(0, 1, 2, 3), objective="dpo", batch_size=5))


def test_samples_of_another_schema_version_are_refused(tmp_path):
    run = spec(tmp_path, [sample(0), U])
    old = to_table([sample(0), U], SAMPLE_SCHEMA)
    for version, mend in (("1", "run the stage that wrote it again"), ("5", "upgrade depo")):
        pq.write_table(old.replace_schema_metadata({"record": "Sample", "version": version}), run.samples)
        message = (
            rf"samples\.parquet: a Sample table of schema version {version}, .* version 2 to 4; .*{mend}"
        )
        with pytest.raises(ConfigError, match=message):
            load_table(run)


def test_samples_of_another_tokenizer_or_template_are_refused(tmp_path):
    tokenizer = renderer().tokenizer
    tokenizer.save_pretrained(tmp_path / "model")
    samples = tmp_path / "made.parquet"
    made_with = {TOKENIZER_KEY: renderer().fingerprint.encode()}
    write_table(samples, [sample(0), U], Sample, made_with)
    require_tokenizer(str(samples), str(tmp_path / "model"))
    template = tokenizer.chat_template.replace("<|end|>", "<|end|><|end|>")
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    with pytest.raises(ConfigError, match=r"made\.parquet: made with another tokenizer or chat template"):
        require_tokenizer(str(samples), str(tmp_path / "model"))


def test_the_bonus_comes_from_whole_trajectories_and_their_groups():
    samples = [
        sample(0, task_id="a", num_steps=2, num_tokens=40),
        sample(1, task_id="a", num_steps=4, num_tokens=40),
        sample(2, task_id="b", num_steps=3, num_tokens=60),
        sample(3, "U", task_id="b", num_steps=9, num_tokens=60),
    ]
    table = table_of(samples)
    depo = {"objective": "depo", "alpha_tokens": 2.0, "alpha_steps": 3.0}
    plain = with_bonus(table, MethodConfig(**depo)).bonus
    assert plain.tolist() == pytest.approx([2 / 20 + 3 / 2, 2 / 10 + 3 / 4, 2 / 20 + 3 / 3, 0])
    relative = with_bonus(table, MethodConfig(**depo, difficulty="task")).bonus
    assert relative.tolist() == pytest.approx([2 * 10 / 20 + 3, 2 + 3 * 2 / 4, 2 + 3, 0])


def test_pairs_join_both_labels_of_a_task_and_use_all_samples(tmp_path):
    samples = [sample(n, "DDUUUDU"[n], task_id="aaaaabc"[n]) for n in range(7)]
    table = table_of(samples)
    pairs = make_pairs(table, per_task=4, seed=0)
    assert {tuple(pair) for pair in pairs.tolist()} <= {(a, b) for a in (0, 1) for b in (2, 3, 4)}
    assert len(pairs) == 4 and set(pairs[:, 0]) == {0, 1} and set(pairs[:, 1]) == {2, 3, 4}
    every = make_pairs(table, per_task=99, seed=0)
    assert len({tuple(pair) for pair in every.tolist()}) == len(every) == 6

    def named(rows: list[Sample], seed: int) -> set[tuple[str, str]]:
        table = table_of(rows)
        return {(table.ids[a], table.ids[b]) for a, b in make_pairs(table, per_task=2, seed=seed)}

    assert named(samples, 1) == named(samples[::-1], 1)
    assert len({frozenset(named(samples, seed)) for seed in range(9)}) > 1
    with pytest.raises(ConfigError, match="no task has both a desirable and an undesirable sample"):
        make_pairs(table_of(samples[5:]), per_task=4, seed=0)


def test_order_keeps_both_labels_in_every_step_and_lengths_together_within():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 400, 640)
    labels = np.arange(640) < 320
    order = training_order(np.arange(640), 16, 40, 0, desirable=labels, lengths=lengths)
    assert sorted(order) == list(range(640))
    assert (labels[order].reshape(-1, 16).sum(axis=1) == 8).all()
    assert (np.diff(lengths[order].reshape(-1, 16), axis=1) >= 0).all()


def test_padding_stays_under_a_tenth_on_lengths_like_the_demos():
    # Quartiles of the demo's student round: 93, 142, 228 tokens of desirable, 320, 538, 713 of undesirable.
    rng = np.random.default_rng(1)
    samples = []
    for n in range(600):
        label, length = ("D", rng.lognormal(4.95, 0.6)) if n % 2 else ("U", rng.lognormal(6.2, 0.55))
        length = int(np.clip(length, 60, 1024))
        samples.append(
            sample(n, label, token_ids=(0,) * length, agent_mask=(0,) * 50 + (1,) * (length - 50),
                   prompt_length=50, kl_partner=f"s{rng.integers(600)}")
        )  # fmt: skip
    table = table_of(samples, max_length=1024)
    order = training_order(table.rows, 16, 37, 0, desirable=table.desirable, lengths=table.lengths)
    for device_batch in (2, 4, 8):
        assert padding_share(table, order, device_batch, step=16, kl_batch=2) < 0.1
    shuffled = training_order(table.rows, 16, 37, 0, desirable=table.desirable)
    assert padding_share(table, shuffled, 4) > 0.3


@given(st.lists(st.integers(1, 9), min_size=1, max_size=7), st.data())
def test_length_groups_hold_every_sequence_once_with_the_least_padding(lengths, data):
    sizes = np.array(lengths)
    count = data.draw(st.integers(1, len(lengths)))
    groups = length_groups(sizes, count)
    assert len(groups) == count and sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    cost = sum(len(group) * sizes[group].max() for group in groups)
    ordered = sorted(lengths)
    partitions = [
        [(b - a) * ordered[b - 1] for a, b in pairwise((0, *cuts, len(ordered)))]
        for cuts in combinations(range(1, len(ordered)), count - 1)
    ]
    largest = -(-len(ordered) // count) * ordered[-1]
    assert cost == min(sum(groups) for groups in partitions if max(groups) <= largest)
    assert max(len(group) * sizes[group].max() for group in groups) <= largest
