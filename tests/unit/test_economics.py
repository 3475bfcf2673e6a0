"""Costs by hand; the Pareto set; the hypervolume against boxes, inclusion-exclusion and Monte Carlo."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depo.config.endpoint import PriceConfig
from depo.evaluation.economics import (
    attempt_cost,
    economics_of,
    frontier,
    hypervolume,
    means_on_axes,
    pareto_set,
)
from depo.records import Episode

PRICE = PriceConfig(input=2.0, output=10.0)
AXES = ["higher", "lower", "lower"]


def tasks(*episodes):
    """(success, tokens, steps, input tokens) of one task each."""
    return {
        str(task): [
            Episode("bc", "sampled", str(task), "L", success, 0.0, tokens, steps, read, "terminated", "t")
        ]
        for task, (success, tokens, steps, read) in enumerate(episodes)
    }


def test_cost_of_pass_is_all_money_over_all_successes():
    some = tasks((True, 100, 2, 1000), (False, 300, 9, 5000), (True, 200, 3, 2000))
    assert attempt_cost(some["0"][0], PRICE) == pytest.approx((1000 * 2 + 100 * 10) / 1e6)
    found = economics_of(some, PRICE)
    total = (8000 * 2 + 600 * 10) / 1e6
    assert found["cost"]["mean"] == pytest.approx(total / 3)
    assert found["cost_of_pass"]["mean"] == pytest.approx(total / 2)
    assert found["cost"]["mean"] / found["cost_of_pass"]["mean"] == pytest.approx(2 / 3)  # the success rate
    assert found["tokens_on_failures"]["mean"] == 0.5


def test_cost_of_pass_is_null_without_success_and_unbounded_where_resamples_often_have_none():
    lost = tasks(*[(False, 10, 1, 10)] * 50)
    assert economics_of(lost, PRICE)["cost_of_pass"] is None
    rare = tasks(*[(True, 10, 1, 10)] * 3, *[(False, 10, 1, 10)] * 47)
    found = economics_of(rare, PRICE)["cost_of_pass"]  # (47 / 50)**50 = 4.5% have none
    assert found["mean"] == pytest.approx(50 / 3 * 120e-6)
    assert found["ci_low"] > 0
    assert found["ci_high"] is None
    enough = tasks(*[(True, 10, 1, 10)] * 5, *[(False, 10, 1, 10)] * 45)
    assert economics_of(enough, PRICE)["cost_of_pass"]["ci_high"] > 10 * 120e-6


def test_without_a_price_only_the_waste_is_told():
    found = economics_of(tasks((True, 1, 1, 1), (False, 3, 1, 1)), None)
    assert (found["cost"]["mean"], found["cost_of_pass"]) == (None, None)
    assert found["tokens_on_failures"]["mean"] == 0.75


def test_a_point_is_in_the_pareto_set_unless_another_is_nowhere_worse_and_somewhere_better():
    points = [(0.9, 50, 3), (0.9, 60, 3), (0.8, 40, 3), (0.9, 50, 3), (0.95, 90, 9), (float("nan"), 1, 1)]
    assert pareto_set(points, AXES) == [True, False, True, True, True, False]
    assert pareto_set([], AXES) == []


def test_hypervolume_of_boxes_by_hand():
    assert hypervolume([(0.5, 2.0, 3.0)], (0.0, 4.0, 5.0), AXES) == pytest.approx(0.5 * 2 * 2)
    two = [(0.5, 2.0, 3.0), (1.0, 3.0, 4.0)]  # they share the box 0.5 x 1 x 1
    assert hypervolume(two, (0.0, 4.0, 5.0), AXES) == pytest.approx(2.0 + 1.0 - 0.5)
    assert hypervolume([*two, (0.4, 3.5, 4.5)], (0.0, 4.0, 5.0), AXES) == pytest.approx(2.5)  # dominated
    assert hypervolume([(0.5, 5.0, 3.0)], (0.0, 4.0, 5.0), AXES) == 0.0  # beyond the reference
    assert hypervolume([], (0.0, 4.0, 5.0), AXES) == 0.0


POINTS = st.lists(st.tuples(*[st.integers(0, 6).map(lambda v: v / 6)] * 3), min_size=1, max_size=6)


@given(POINTS)
@settings(max_examples=60, deadline=None)
def test_hypervolume_is_that_of_inclusion_and_exclusion(points):
    """The volume of a union of boxes: those of all intersections, with alternating signs."""
    costs = np.array([(1 - s, t, n) for s, t, n in points])
    expected = sum(
        (-1) ** (size + 1) * np.prod(1 - costs[list(chosen)].max(axis=0))
        for size in range(1, len(points) + 1)
        for chosen in itertools.combinations(range(len(points)), size)
    )
    assert hypervolume(points, (0.0, 1.0, 1.0), AXES) == pytest.approx(expected, abs=1e-12)


def test_hypervolume_agrees_with_counting_random_points():
    rng = np.random.default_rng(0)
    points = rng.random((40, 3))
    thrown = rng.random((20_000, 3))
    costs = points * [-1, 1, 1]
    under = (costs[:, None] <= thrown * [-1, 1, 1]).all(axis=2).any(axis=0)
    assert hypervolume(points, (0, 1, 1), AXES) == pytest.approx(under.mean(), abs=0.015)


def test_the_frontier_names_who_is_on_it_and_what_each_adds():
    found = frontier({"bc": (0.9, 50.0, 4.0), "depo": (0.9, 40.0, 3.0), "raw": (0.95, 100.0, 5.0)})
    assert found["pareto"] == ["depo", "raw"]
    volume = found["hypervolume"]
    assert volume["reference_point"] == pytest.approx({"success": 0.0, "tokens_all": 110.0, "steps_all": 5.5})
    assert volume["contributions"]["bc"] == 0.0
    assert volume["contributions"]["depo"] > volume["contributions"]["raw"] > 0
    assert volume["without"]["raw"] == pytest.approx(0.9 * (70 / 110) * (2.5 / 5.5))
    extra = 0.95 * (10 / 110) * (0.5 / 5.5) - 0.9 * (10 / 110) * (0.5 / 5.5)
    assert volume["value"] == pytest.approx(volume["without"]["raw"] + extra)


def test_a_method_alone_or_one_that_says_nothing_has_a_frontier_too():
    assert frontier({"bc": (0.5, 0.0, 1.0)})["pareto"] == ["bc"]
    assert means_on_axes(tasks((True, 10, 2, 0), (False, 30, 4, 0))) == (0.5, 20.0, 3.0)
