"""The objectives against the formulas as they stand in the papers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depo.objectives.bonus import efficiency_bonus, shifted_reference
from depo.objectives.preference import kl_estimate, kto_loss

BETA, LAMBDA_D, LAMBDA_U = 0.7, 1.3, 0.6
logps = st.floats(-300, 0)
counts = st.floats(0, 400)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


@given(
    st.lists(st.tuples(logps, logps, counts, st.integers(1, 20), st.booleans()), min_size=1, max_size=6),
    counts,
)
def test_depo_is_kto_on_shifted_references_in_value_and_gradient(rows, kl):
    policy, ref, tokens, steps, label = zip(*rows, strict=True)
    logp = double(*policy).requires_grad_()
    desirable = torch.tensor(label)
    bonus = efficiency_bonus(double(*tokens), double(*map(float, steps)), 3.0, 2.0)
    losses, stats = kto_loss(
        logp,
        shifted_reference(double(*ref), bonus, desirable),
        desirable,
        double(kl)[0],
        BETA,
        LAMBDA_D,
        LAMBDA_U,
    )
    losses.sum().backward()
    for i, (p, q, t, s, wanted) in enumerate(rows):
        b = 3.0 / max(t, 1.0) + 2.0 / s
        if wanted:
            value = sigmoid(BETA * ((p - q) + b - kl))
            expected, slope = LAMBDA_D * (1 - value), -LAMBDA_D * BETA * value * (1 - value)
        else:
            value = sigmoid(BETA * (kl - (p - q)))
            expected, slope = LAMBDA_U * (1 - value), LAMBDA_U * BETA * value * (1 - value)
        assert losses[i].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert logp.grad[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-12)
        assert stats["gradient_weight"][i].item() == pytest.approx(abs(slope), rel=1e-6, abs=1e-12)


def test_kto_by_hand():
    losses, stats = kto_loss(
        double(-1.0, -4.0), double(-3.0, -3.0), torch.tensor([True, False]), double(1.0)[0], 1.0, 1.0, 2.0
    )
    assert losses.tolist() == pytest.approx([1 - sigmoid(2 - 1), 2 * (1 - sigmoid(1 + 1))])
    assert stats["log_ratio"].tolist() == [2.0, -1.0]


@given(logps, logps, st.floats(0.01, 50), counts)
def test_more_likely_desirable_costs_less_and_undesirable_more(logp, ref, more, kl):
    labels = torch.tensor([True, True, False, False])
    values = double(logp, logp + more, logp, logp + more)
    losses, _ = kto_loss(values, double(*[ref] * 4), labels, double(kl)[0], 0.2, 1.0, 1.0)
    assert losses[1] <= losses[0] and losses[3] >= losses[2]


@given(st.floats(1, 400), st.floats(1, 30), st.floats(0.5, 50), st.floats(0.5, 10))
def test_bonus_falls_with_tokens_and_with_steps(tokens, steps, more_tokens, more_steps):
    bonus = efficiency_bonus(
        double(tokens, tokens + more_tokens, tokens), double(steps, steps, steps + more_steps), 3.0, 3.0
    )
    assert bonus[1] < bonus[0] and bonus[2] < bonus[0]


def test_bonus_by_hand_and_finite_at_the_edges():
    bonus = efficiency_bonus(double(12.0, 0.0, 5.0), double(4.0, 1.0, 0.0), 3.0, 2.0)
    assert bonus.tolist() == pytest.approx([3 / 12 + 2 / 4, 3 + 2, 3 / 5 + 2])
    assert efficiency_bonus(double(0.0), double(0.0), 0.0, 0.0).tolist() == [0.0]


def test_bonus_moves_desirable_references_only():
    shifted = shifted_reference(double(-5.0, -5.0), double(2.0, 2.0), torch.tensor([True, False]))
    assert shifted.tolist() == [-7.0, -5.0]


def test_far_log_ratios_stay_finite():
    logp = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    losses, _ = kto_loss(
        logp, torch.zeros(4), torch.tensor([True, True, False, False]), torch.tensor(0.0), 1.0, 1.0, 1.0
    )
    losses.sum().backward()
    assert losses.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert torch.isfinite(logp.grad).all()


def test_no_gradient_flows_through_the_reference_point():
    kl = torch.tensor(0.3, requires_grad=True)
    logp = torch.tensor([-1.0], requires_grad=True)
    kto_loss(logp, torch.tensor([-2.0]), torch.tensor([True]), kl, 1.0, 1.0, 1.0)[0].sum().backward()
    assert kl.grad is None and logp.grad is not None


@pytest.mark.parametrize(("total", "count", "expected"), [(6.0, 4.0, 1.5), (-6.0, 4.0, 0.0), (0.0, 0.0, 0.0)])
def test_kl_estimate_is_the_mean_clamped_at_zero(total, count, expected):
    assert kl_estimate(torch.tensor(total), torch.tensor(count)).item() == expected
