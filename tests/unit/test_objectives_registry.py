"""Which objectives there are, what may be configured of them, and the parts that are no loss."""

import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from objectives_help import any_timing, double, method, scores
from pydantic import ValidationError

from depo.config.base import ConfigError, explain
from depo.config.method import OBJECTIVE_FACTS, LoraConfig, MethodConfig
from depo.graph import needs_reference
from depo.objectives.audit import SATURATED_MARGIN, correlation, correlation_sums, saturated
from depo.objectives.registry import OBJECTIVES, objective
from depo.objectives.supervised import sft, weighted_bc
from depo.objectives.turns import turn_discounts
from depo.training.loading import trained

NAMES = ["sft", "weighted_bc", "kto", "depo", "dpo", "dmpo", "simpo"]


def refusal(**settings) -> str:
    with pytest.raises(ValidationError) as error:
        MethodConfig(**settings)
    return explain(error.value, MethodConfig)


def test_the_published_baselines_are_registered():
    assert list(OBJECTIVES) == NAMES
    kinds = {name: OBJECTIVES[name].kind for name in NAMES}
    assert kinds == dict(zip(NAMES, ["supervised"] * 2 + ["unpaired"] * 2 + ["paired"] * 3, strict=True))
    assert [n for n in NAMES if OBJECTIVES[n].needs_reference] == ["kto", "depo", "dpo", "dmpo"]
    assert [n for n in NAMES if OBJECTIVES[n].needs_kl] == ["kto", "depo"]
    assert [n for n in NAMES if OBJECTIVES[n].takes_bonus] == ["weighted_bc", "depo", "dpo", "dmpo", "simpo"]
    assert [n for n in NAMES if OBJECTIVES[n].desirable_only] == ["sft"]


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_answers_in_its_kind(name):
    found, settings = OBJECTIVES[name], method(name)
    batch = scores([-1.0, -2.0, -3.0], desirable=[True, False, True], bonus=[0.5, 0.0, 0.1])
    if found.kind == "supervised":
        assert found.loss(batch, settings).shape == (3,)
        return
    second = (double(0.1)[0],) if found.kind == "unpaired" else (scores([-2.0, -2.0, -9.0]),)
    losses = found.loss(batch, *second, settings)
    assert {part.shape for part in (losses.loss, losses.weight, losses.margin)} == {(3,)}
    assert (losses.rejected_weight is not None) == (found.kind == "paired")


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The objective that the documentation shows, importable as `my_losses`."""
    text = (Path(__file__).parents[2] / "docs" / "algorithm.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "my_losses.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield yaml.safe_load(re.findall(r"```yaml\n(methods:.*?)```", text, flags=re.DOTALL)[0])["methods"]["ipo"]
    sys.modules.pop("my_losses", None)


def test_the_documented_objective_is_found_and_right(documented):
    settings = MethodConfig(**documented, pairs_per_task=2)
    assert needs_reference(settings)
    found = objective(settings.objective)
    assert found.kind == "paired"
    chosen, rejected = double(-1.0).requires_grad_(), double(-2.0).requires_grad_()
    losses = found.loss(scores(chosen, [-1.5]), scores(rejected, [-1.2]), settings)
    losses.loss.sum().backward()
    assert losses.loss.item() == pytest.approx((0.5 + 0.8 - 5) ** 2)
    assert chosen.grad.item() == pytest.approx(-losses.weight.item())
    assert rejected.grad.item() == pytest.approx(losses.rejected_weight.item())


def test_what_is_no_objective_is_refused_in_one_line(documented):
    with pytest.raises(ConfigError, match="is a function, not an Objective; wrap the loss"):
        objective("my_losses:ipo")
    for unknown in ("my_losses:MISSING", "no_such_module:IPO"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            objective(unknown)
    with pytest.raises(ConfigError, match="not defined; known: sft"):
        objective("ipo")


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_an_objective_never_reads_is_refused_in_one_line(name):
    away = {
        "alpha_tokens": 3.0, "alpha_steps": 3.0, "placement": "margin", "difficulty": "task", "beta": 0.3,
        "penalize_undesirable": True, "kl": "zero", "lambda_desirable": 2.0, "lambda_undesirable": 2.0,
        "balance": True, "nll_coefficient": 1.0, "stop_logratio": -50.0, "turn_discount": 0.5,
        "simpo_margin": 1.0, "pairs_per_task": 3, "weighting": "length", "options": {"x": 1.0},
    }  # fmt: skip
    reads = OBJECTIVE_FACTS[name].reads
    for field, value in away.items():
        if field in reads:
            assert getattr(MethodConfig(objective=name, **{field: value}), field) == value
        else:
            line = refusal(objective=name, **{field: value})
            at_its_default = MethodConfig.model_fields[field].default
            assert refusal(objective=name, **{field: at_its_default}) == line
            assert line.startswith(f"{field} is not read by objective {name!r}; it belongs to ")
            assert "\n" not in line


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective": "depo", "kl_decay": 0.5}, "kl_decay is not read while kl is 'pairs'"),
        ({"objective": "depo", "difficulty_by": "median"}, "not read while difficulty is 'none'"),
        ({"objective": "weighted_bc", "token_budget": 9}, "not read while weighting is 'return'"),
        ({"objective": "sft", "full_parameters": True, "lora": LoraConfig(r=4)}, "lora is not read while"),
        ({"objective": "depo", "alpha_tokens": 0, "alpha_steps": 0}, "has no bonus, so it is 'kto'"),
        (
            {"objective": "kto", "lora": LoraConfig(dropout=0.1)},
            "lora.dropout is not read by objective 'kto'",
        ),
        ({"objective": "simpo", "lora": LoraConfig(dropout=0.1)}, "lora.dropout is not read"),
        ({"objective": "ppo"}, "objective 'ppo' is not defined; known: sft, weighted_bc, kto, depo"),
        ({"objective": "kto", "stop_logratio": 1.0}, "stop_logratio"),
        ({"objective": "dmpo", "turn_discount": 0.0}, "turn_discount"),
        ({"objective": "kto", "kl": "mean"}, "kl: input should be 'pairs'"),
    ],
)
def test_settings_without_effect_or_sense_are_refused(settings, words):
    assert words in refusal(**settings)


def test_dependent_settings_are_taken_where_they_count():
    MethodConfig(objective="depo", kl="moving", kl_decay=0.5, difficulty="level", difficulty_by="median")
    MethodConfig(objective="weighted_bc", weighting="length_penalty", token_budget=9, token_penalty=0.1)
    settings = MethodConfig(objective="depo", alpha_steps=3, placement="centred", stop_logratio=-40)
    assert MethodConfig.model_validate(settings.model_dump(exclude_unset=True)) == settings


def test_what_needs_a_reference_says_so_without_torch():
    assert [name for name in NAMES if needs_reference(method(name))] == ["kto", "depo", "dpo", "dmpo"]


def test_cloning_weighs_all_samples_alike():
    assert sft(scores([0.0, 0.0]), method("sft")).tolist() == [1.0, 1.0]


def test_return_weights_by_hand():
    batch = scores([0.0] * 3, desirable=[True, False, True], reward=[1.0, 0.0, 0.5], bonus=[0.5, 0.0, 0.0])
    weights = weighted_bc(batch, method("weighted_bc", weighting_temperature=0.5))
    assert weights.tolist() == pytest.approx([1.5, math.exp(-2), math.exp(-1)])


def test_length_weights_fall_and_leave_undesirable_samples_out():
    batch = scores([0.0] * 3, desirable=[True, True, False], length=[10.0, 40.0, 10.0])
    weights = weighted_bc(batch, method("weighted_bc", weighting="length", token_budget=20))
    assert weights.tolist() == pytest.approx([math.exp(-0.5), math.exp(-2), 0.0])


def test_length_penalty_is_the_clipped_reward_of_l1():
    batch = scores([0.0] * 5, reward=[1.0, 0.8, 1.0, 1.0, -1.0], length=[20.0, 25.0, 0.0, 200.0, 20.0])
    settings = method("weighted_bc", weighting="length_penalty", token_budget=20, token_penalty=0.04)
    assert weighted_bc(batch, settings).tolist() == pytest.approx([0.5, 0.8 * 0.3, 1.0, 0.0, 0.0])


def test_turn_discounts_by_hand_and_at_the_limits():
    assert turn_discounts(2, 0.5) == pytest.approx((1, 1 / 3))
    assert turn_discounts(4, 1.0) == pytest.approx((1, 3 / 4, 2 / 4, 1 / 4))
    assert turn_discounts(3, 1e-9) == pytest.approx((1, 0, 0), abs=1e-8)
    assert turn_discounts(1, 0.3) == (1.0,) and turn_discounts(0, 0.3) == ()


@any_timing
@given(st.integers(1, 30), st.floats(0.01, 0.99))
def test_turn_discounts_are_the_papers_formula(turns, gamma):
    expected = [gamma**t * (1 - gamma ** (turns - t)) / (1 - gamma**turns) for t in range(turns)]
    found = turn_discounts(turns, gamma)
    assert found == pytest.approx(expected, rel=1e-9)
    assert list(found) == sorted(found, reverse=True)


@any_timing
@given(
    st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=30),
    st.integers(1, 29),
)
def test_correlation_from_added_sums_is_pearsons(points, cut):
    x, y = (np.array(axis, dtype=float) for axis in zip(*points, strict=True))
    parts = [(x[:cut], y[:cut]), (x[cut:], y[cut:])]
    sums = sum(correlation_sums(torch.tensor(a), torch.tensor(b)) for a, b in parts)
    if x.std() == 0 or y.std() == 0:
        assert math.isnan(correlation(sums))
    else:
        assert correlation(sums) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-9)


def test_correlation_of_nothing_or_of_a_constant_is_none():
    assert math.isnan(correlation(correlation_sums(double(), double())))
    assert math.isnan(correlation(correlation_sums(double(3.0), double(1.0))))
    constant = torch.full((100,), 0.1, dtype=torch.float64)
    assert math.isnan(correlation(correlation_sums(constant, torch.arange(100))))


def test_saturation_is_two_sided_for_samples_and_one_sided_for_pairs():
    margin = double(-9.0, -SATURATED_MARGIN, 0.0, SATURATED_MARGIN + 1e-6)
    assert saturated(margin, "unpaired").tolist() == [True, False, False, True]
    assert saturated(margin, "paired").tolist() == [False, False, False, True]


def test_an_objective_of_ones_own_pays_for_a_reference_only_where_it_says_so(tmp_path, monkeypatch):
    (tmp_path / "own_losses.py").write_text(
        "from depo.objectives.registry import Objective\n"
        "PLAIN = Objective('plain', 'supervised', lambda scores, method: scores.reward)\n"
        "HELD = Objective('held', 'unpaired', lambda *_: None, needs_reference=True, discounts_turns=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plain, held = (
        MethodConfig(objective=f"own_losses:{name}", turn_discount=0.5) for name in ("PLAIN", "HELD")
    )
    assert (needs_reference(plain), needs_reference(held)) == (False, True)
    assert (trained(plain).turn_discount, trained(held).turn_discount) == (None, 0.5)
    with pytest.raises(ConfigError, match="cannot be imported"):
        needs_reference(MethodConfig(objective="own_losses:GONE"))
