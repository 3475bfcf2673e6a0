"""The efficiency bonus of a data set: by hand, and what holds whatever the data are."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from objectives_help import any_timing, double, method

from depo.objectives.bonus import efficiency_bonus, sample_bonus

ALPHAS = {"alpha_tokens": 3.0, "alpha_steps": 2.0}
counts = st.floats(0, 400)
data = st.lists(
    st.tuples(counts, st.integers(0, 30), st.booleans(), st.integers(0, 3)), min_size=1, max_size=12
)
forms = st.fixed_dictionaries(
    {
        "placement": st.sampled_from(["offset", "margin", "weight", "centred"]),
        "penalize_undesirable": st.booleans(),
    }
)
difficulties = st.sampled_from(
    [{}, *({"difficulty": d, "difficulty_by": b} for d in ("task", "level") for b in ("best", "median"))]
)


def bonus_of(samples, **settings):
    tokens, steps, desirable, group = zip(*samples, strict=True)
    return sample_bonus(
        double(*tokens), torch.tensor(steps), torch.tensor(desirable), torch.tensor(group),
        method("depo", **ALPHAS | settings),
    )  # fmt: skip


def test_bonus_by_hand_and_finite_at_the_edges():
    bonus = efficiency_bonus(double(12.0, 0.0, 5.0), double(4.0, 1.0, 0.0), 3.0, 2.0)
    assert bonus.tolist() == pytest.approx([3 / 12 + 2 / 4, 3 + 2, 3 / 5 + 2])
    assert efficiency_bonus(double(0.0), double(0.0), 0.0, 0.0).tolist() == [0.0]


@any_timing
@given(st.floats(1, 400), st.floats(1, 30), st.floats(0.5, 50), st.floats(0.5, 10))
def test_bonus_falls_with_tokens_and_with_steps(tokens, steps, more_tokens, more_steps):
    bonus = efficiency_bonus(
        double(tokens, tokens + more_tokens, tokens), double(steps, steps, steps + more_steps), 3.0, 3.0
    )
    assert bonus[1] < bonus[0] and bonus[2] < bonus[0]


def test_published_bonus_goes_to_desirable_samples_alone():
    samples = [(10, 2, True, 0), (20, 4, True, 0), (10, 2, False, 0)]
    assert bonus_of(samples).tolist() == pytest.approx([3 / 10 + 2 / 2, 3 / 20 + 2 / 4, 0])
    assert bonus_of(samples, penalize_undesirable=True).tolist() == pytest.approx([1.3, 0.65, 1.3])


def test_normalised_by_the_best_desirable_sample_of_the_group():
    samples = [(10, 6, True, 0), (20, 3, True, 0), (5, 1, False, 0), (40, 8, True, 1)]
    bonus = bonus_of(samples, difficulty="task", penalize_undesirable=True)
    expected = [3 * 10 / 10 + 2 * 3 / 6, 3 * 10 / 20 + 2 * 3 / 3, 3 * 10 / 5 + 2 * 3 / 1, 3 + 2]
    assert bonus.tolist() == pytest.approx(expected)


def test_normalised_by_the_median_of_an_even_group():
    samples = [(10, 2, True, 7), (20, 4, True, 7), (90, 9, True, 8), (30, 3, False, 7)]
    bonus = bonus_of(samples, difficulty="level", difficulty_by="median")
    assert bonus.tolist() == pytest.approx([3 * 15 / 10 + 2 * 3 / 2, 3 * 15 / 20 + 2 * 3 / 4, 5, 0])


def test_a_group_without_desirable_samples_is_measured_against_all_of_them():
    samples = [(10, 2, True, 0), (30, 6, True, 0), (20, 4, False, 1)]
    bonus = bonus_of(samples, difficulty="task", penalize_undesirable=True)
    assert bonus[2].item() == pytest.approx(3 * 10 / 20 + 2 * 2 / 4)


def test_centred_bonus_has_mean_zero_over_each_label():
    samples = [(10, 2, True, 0), (20, 4, True, 0), (10, 1, False, 0), (30, 2, False, 0)]
    one = bonus_of(samples, placement="centred")
    assert one[:2].tolist() == pytest.approx([0.325, -0.325]) and one[2:].tolist() == [0, 0]
    both = bonus_of(samples, placement="centred", penalize_undesirable=True)
    assert both[2:].sum().item() == pytest.approx(0) and both[2] > 0


def test_difficulty_without_groups_is_refused():
    labels = torch.tensor([True])
    with pytest.raises(ValueError, match="difficulty: task needs the number"):
        sample_bonus(double(1.0), double(1.0), labels, None, method("depo", difficulty="task"))


@any_timing
@given(data, forms, difficulties)
def test_bonus_is_finite_and_each_half_counts_by_its_alpha(samples, form, difficulty):
    whole = bonus_of(samples, **form, **difficulty)
    assert torch.isfinite(whole).all()
    halves = [bonus_of(samples, **{name: 0}, **form, **difficulty) for name in ALPHAS]
    assert torch.allclose(sum(halves), whole, rtol=1e-9, atol=1e-9)


@any_timing
@given(data, forms, difficulties)
def test_of_two_desirable_samples_of_a_group_the_cheaper_earns_no_less(samples, form, difficulty):
    bonus = bonus_of(samples, **form, **difficulty)
    for i, (tokens, steps, desirable, group) in enumerate(samples):
        for j, (more_tokens, more_steps, other, same) in enumerate(samples):
            if desirable and other and group == same and tokens <= more_tokens and steps <= more_steps:
                assert bonus[i] >= bonus[j] - 1e-12


@any_timing
@given(data, forms, difficulties, st.randoms())
def test_bonus_does_not_depend_on_the_order_of_the_samples(samples, form, difficulty, random):
    order = list(range(len(samples)))
    random.shuffle(order)
    assume(order != sorted(order))
    shuffled = bonus_of([samples[i] for i in order], **form, **difficulty)
    torch.testing.assert_close(shuffled, bonus_of(samples, **form, **difficulty)[order])


@any_timing
@given(data, st.sampled_from(["task", "level"]))
def test_relative_to_the_best_no_desirable_bonus_exceeds_the_alphas(samples, difficulty):
    bonus = bonus_of(samples, difficulty=difficulty)
    assert (bonus <= 5 + 1e-12).all() and (bonus >= 0).all()
