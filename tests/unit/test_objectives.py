"""The losses against the formulas as they stand in the papers, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from objectives_help import any_timing, double, method, scores, shifted_reference, sigmoid, softplus

from depo.objectives.paired import dmpo, dpo, simpo
from depo.objectives.preference import depo, kl_estimate, kto, kto_loss, moving_average

BETA, LAMBDA_D, LAMBDA_U = 0.7, 1.3, 0.6
LAMBDAS = {"beta": BETA, "lambda_desirable": LAMBDA_D, "lambda_undesirable": LAMBDA_U}
PLACEMENTS = ["offset", "margin", "weight", "centred"]
logps = st.floats(-300, 0)
bonuses = st.floats(0, 6)
kls = st.floats(0, 400)
rows = st.lists(st.tuples(logps, logps, bonuses, st.booleans()), min_size=1, max_size=6)
pairs = st.lists(st.tuples(logps, logps, logps, logps, bonuses, bonuses), min_size=1, max_size=6)
ONE = double(1.0)[0]


def shift_and_factor(placement: str, bonus: float) -> tuple[float, float]:
    """What a bonus adds to the log-ratio, and the factor of the loss."""
    return {"margin": (-bonus, 1.0), "weight": (0.0, 1 + bonus)}.get(placement, (bonus, 1.0))


@pytest.mark.parametrize("placement", PLACEMENTS)
@any_timing
@given(rows, kls)
def test_depo_is_its_formula_in_value_and_gradient(placement, samples, kl):
    policy, ref, bonus, label = zip(*samples, strict=True)
    logp = double(*policy).requires_grad_()
    losses = depo(
        scores(logp, ref, label, bonus=bonus), double(kl)[0], method("depo", placement=placement, **LAMBDAS)
    )
    losses.loss.sum().backward()
    for i, (p, q, b, wanted) in enumerate(samples):
        shift, factor = shift_and_factor(placement, b)
        sign, scale = (1, LAMBDA_D) if wanted else (-1, LAMBDA_U)
        margin = BETA * (sign * (p - q - kl) + shift)
        value = sigmoid(margin)
        slope = -sign * scale * factor * BETA * value * sigmoid(-margin)
        assert losses.margin[i].item() == pytest.approx(margin, rel=1e-9, abs=1e-9)
        assert losses.loss[i].item() == pytest.approx(scale * factor * (1 - value), rel=1e-9, abs=1e-12)
        assert logp.grad[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-12)
        assert losses.weight[i].item() == pytest.approx(abs(slope), rel=1e-6, abs=1e-12)


@any_timing
@given(rows, kls)
def test_published_depo_is_kto_on_shifted_references(samples, kl):
    policy, ref, bonus, label = zip(*samples, strict=True)
    given_bonus = [b if wanted else 0.0 for b, wanted in zip(bonus, label, strict=True)]
    ours = depo(scores(policy, ref, label, bonus=given_bonus), double(kl)[0], method("depo", **LAMBDAS))
    shifted = shifted_reference(double(*ref), double(*bonus), torch.tensor(label))
    theirs = kto_loss(double(*policy), shifted, torch.tensor(label), double(kl)[0], BETA, LAMBDA_D, LAMBDA_U)
    torch.testing.assert_close(ours.loss, theirs.loss)
    torch.testing.assert_close(ours.weight, theirs.weight)


@pytest.mark.parametrize("placement", PLACEMENTS)
@any_timing
@given(rows, kls)
def test_kto_is_depo_without_bonus_bit_for_bit(placement, samples, kl):
    policy, ref, bonus, label = zip(*samples, strict=True)
    plain = kto(scores(policy, ref, label, bonus=bonus), double(kl)[0], method("kto", **LAMBDAS))
    bare = depo(scores(policy, ref, label), double(kl)[0], method("depo", placement=placement, **LAMBDAS))
    assert plain.loss.tolist() == bare.loss.tolist()
    assert plain.weight.tolist() == bare.weight.tolist()


def test_kto_by_hand():
    losses = kto(
        scores([-1.0, -4.0], [-3.0, -3.0], [True, False]),
        ONE,
        method("kto", beta=1.0, lambda_undesirable=2.0),
    )
    assert losses.loss.tolist() == pytest.approx([1 - sigmoid(2 - 1), 2 * (1 - sigmoid(1 + 1))])
    assert losses.margin.tolist() == [1.0, 2.0]


@any_timing
@given(logps, logps, st.floats(0.01, 50), kls)
def test_more_likely_desirable_costs_less_and_undesirable_more(logp, ref, more, kl):
    values = [logp, logp + more, logp, logp + more]
    losses = kto(scores(values, [ref] * 4, [True, True, False, False]), double(kl)[0], method("kto")).loss
    assert losses[1] <= losses[0] and losses[3] >= losses[2]


def test_before_the_first_step_only_the_weight_makes_efficient_samples_pull_harder():
    pulls = {}
    for placement, bonus in (("offset", [0.5, 2.0]), ("margin", [0.5, 2.0]), ("weight", [0.5, 2.0]),
                             ("centred", [-0.75, 0.75])):  # fmt: skip
        settings = method("depo", placement=placement)
        wasteful, efficient = depo(scores([0.0, 0.0], bonus=bonus), double(0.0)[0], settings).weight.tolist()
        pulls[placement] = efficient / wasteful
    assert pulls["weight"] == 2.0
    assert pulls["offset"] == pytest.approx(pulls["margin"]) and pulls["offset"] < 0.97
    assert pulls["centred"] == pytest.approx(1)


def test_past_its_margin_an_efficient_sample_pulls_harder_with_margin_and_less_with_offset():
    batch = scores([3.0, 3.0], bonus=[0.5, 2.0])
    with_margin = depo(batch, double(0.0)[0], method("depo", placement="margin")).weight
    with_offset = depo(batch, double(0.0)[0], method("depo", placement="offset")).weight
    assert with_margin[1] > with_margin[0] and with_offset[1] < with_offset[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [1e4, math.inf])
def test_far_log_ratios_stay_finite(dtype, far):
    logp = torch.tensor([-far, far, -far, far], dtype=dtype, requires_grad=True)
    label = torch.tensor([True, True, False, False])
    losses = kto_loss(logp, torch.zeros(4, dtype=dtype), label, torch.zeros((), dtype=dtype), 1.0, 1.0, 1.0)
    losses.loss.sum().backward()
    assert losses.loss.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert logp.grad.tolist() == [0.0] * 4 and losses.weight.tolist() == [0.0] * 4


def test_a_small_loss_keeps_its_digits_in_float32():
    logp = torch.tensor([30.0])
    loss = kto_loss(logp, torch.zeros(1), torch.tensor([True]), torch.tensor(0.0), 1.0, 1.0, 1.0).loss
    assert loss.item() == pytest.approx(math.exp(-30), rel=1e-5)


def test_no_gradient_flows_through_the_reference_point():
    kl = torch.tensor(0.3, requires_grad=True)
    logp = torch.tensor([-1.0], requires_grad=True)
    losses = kto_loss(logp, torch.tensor([-2.0]), torch.tensor([True]), kl, 1.0, 1.0, 1.0)
    losses.loss.sum().backward()
    assert kl.grad is None and logp.grad is not None


@pytest.mark.parametrize("placement", PLACEMENTS)
@any_timing
@given(pairs)
def test_dpo_is_its_formula_in_value_and_gradient(placement, sample_pairs):
    won, won_ref, lost, lost_ref, b, c = zip(*sample_pairs, strict=True)
    chosen, rejected = double(*won).requires_grad_(), double(*lost).requires_grad_()
    settings = method("dpo", beta=BETA, placement=placement)
    losses = dpo(scores(chosen, won_ref, bonus=b), scores(rejected, lost_ref, bonus=c), settings)
    losses.loss.sum().backward()
    for i in range(len(sample_pairs)):
        shift, factor = shift_and_factor(placement, b[i] + c[i])
        margin = BETA * (won[i] - won_ref[i] - lost[i] + lost_ref[i] + shift)
        slope = factor * BETA * sigmoid(-margin)
        assert losses.loss[i].item() == pytest.approx(factor * softplus(-margin), rel=1e-9, abs=1e-12)
        assert chosen.grad[i].item() == pytest.approx(-slope, rel=1e-6, abs=1e-12)
        assert rejected.grad[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-12)
        assert losses.weight[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-12)
        assert losses.rejected_weight[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-12)


def test_dmpo_by_hand_on_discounted_sums():
    # Two turns at gamma 1/2 weigh 1 and 1/3; the turns' log-ratios are (1, 3) and (-2, 0).
    chosen, rejected = scores([1 + 3 / 3]), scores([-2.0 + 0 / 3])
    loss = dmpo(chosen, rejected, method("dmpo", beta=0.5, turn_discount=0.5)).loss
    assert loss.item() == pytest.approx(softplus(-0.5 * (2 + 2)))


def test_simpo_is_its_formula_in_value_and_gradient():
    chosen, rejected = double(-6.0).requires_grad_(), double(-20.0).requires_grad_()
    losses = simpo(
        scores(chosen, [-99.0], num_tokens=[4], bonus=[0.25]),
        scores(rejected, [-7.0], num_tokens=[8]),
        method("simpo", beta=2.0, simpo_margin=0.3),
    )
    losses.loss.sum().backward()
    margin = 2 * -6 / 4 - 2 * -20 / 8 - 0.3 + 2 * 0.25
    assert losses.loss.item() == pytest.approx(softplus(-margin))
    assert chosen.grad.item() == pytest.approx(-sigmoid(-margin) * 2 / 4)
    assert rejected.grad.item() == pytest.approx(sigmoid(-margin) * 2 / 8)
    assert losses.weight.item() == pytest.approx(-chosen.grad.item())
    assert losses.rejected_weight.item() == pytest.approx(rejected.grad.item())


@pytest.mark.parametrize("loss", [dpo, simpo])
def test_far_pairs_stay_finite(loss):
    chosen = torch.tensor([-1e5, 1e5], requires_grad=True)
    rejected = scores([0.0, 0.0])
    losses = loss(scores(chosen), rejected, method(loss.__name__, beta=1.0))
    losses.loss.sum().backward()
    assert torch.isfinite(losses.loss).all() and losses.loss[1] == 0
    assert chosen.grad.tolist() == pytest.approx([-1.0, 0.0])


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("objective", [kto, depo, dpo, dmpo, simpo])
def test_gradients_agree_with_finite_differences(objective, placement):
    name = objective.__name__
    settings = method(name, **({} if name == "kto" else {"placement": placement}))
    others = {"ref_logp": [-2.5, -7.0], "bonus": [0.3, 1.2], "num_tokens": [3, 5]}

    def total(logp: torch.Tensor) -> torch.Tensor:
        if name in ("kto", "depo"):
            return objective(
                scores(logp, desirable=[True, False], **others), double(0.4)[0], settings
            ).loss.sum()
        one, other = scores(logp, **others), scores(logp.flip(0) * 1.3, **others)
        return objective(one, other, settings).loss.sum()

    # `scores` keeps the graph, since the values are float64 already.
    assert torch.autograd.gradcheck(total, (double(-2.0, -6.5).requires_grad_(),))


@pytest.mark.parametrize(("total", "count", "expected"), [(6.0, 4.0, 1.5), (-6.0, 4.0, 0.0), (0.0, 0.0, 0.0)])
def test_kl_estimate_is_the_mean_clamped_at_zero(total, count, expected):
    assert kl_estimate(torch.tensor(total), torch.tensor(count)).item() == expected


def test_moving_average_by_hand():
    first = moving_average(double(0.0)[0], double(8.0)[0], double(4.0)[0], 0.75)
    second = moving_average(first, double(-6.0)[0], double(3.0)[0], 0.75)
    assert (first.item(), second.item()) == (0.5, 0.75 * 0.5 - 0.25 * 2)
    assert moving_average(second, double(0.0)[0], double(0.0)[0], 0.75).item() == second.item()
