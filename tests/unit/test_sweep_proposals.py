"""Which settings a sweep tries: all, drawn, or learnt."""

import pytest

from depo.config.schema import SweepConfig
from depo.stages.sweep.proposals import Learning, Noted, combinations, draws, key_of, within

SPACE = {
    "beta": {"low": 0.01, "high": 1.0, "log": True},
    "lora.r": {"low": 2, "high": 8, "integer": True},
    "kl": ["pairs", "zero"],
}
TWO = {"success": "max", "tokens_all": "min"}


def config(**settings) -> SweepConfig:
    return SweepConfig(**{"space": SPACE, "searcher": "optuna", "trials": 20, "objectives": TWO} | settings)


def drained(proposals, told=None) -> list:
    found = []
    while (settings := proposals.ask()) is not None:
        found.append(settings)
        if told is not None:
            proposals.tell(settings, told(settings))
    return found


def test_a_grid_is_the_product_in_order():
    grid = SweepConfig(space={"beta": [0.1, 0.2], "balance": [True, False]})
    assert combinations(grid)[:2] == [{"beta": 0.1, "balance": True}, {"beta": 0.1, "balance": False}]
    assert len(combinations(grid)) == grid.size == 4


def test_draws_lie_in_the_space_and_do_not_depend_on_how_many_there_are():
    random = config(searcher="random")
    many = draws(random, 40)
    assert draws(random, 7) == many[:7]
    assert all(within(random, settings) for settings in many)
    assert len({key_of(settings) for settings in many}) == 40
    assert {settings["lora.r"] for settings in many} == set(range(2, 9))
    below = sum(settings["beta"] < 0.1 for settings in many)
    assert 10 < below < 30  # half of the logarithmic range
    assert draws(config(searcher="random", seed=1), 3) != many[:3]


def test_draws_of_a_small_space_are_all_of_it_and_no_more():
    small = config(searcher="random", space={"beta": [0.1, 0.2], "kl": ["pairs", "zero"]}, trials=4)
    assert {key_of(s) for s in draws(small, 4)} == {key_of(s) for s in combinations(small)}
    assert len(draws(small, 3, distinct=False)) == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"beta": 0.01, "lora.r": 8, "kl": "zero"}, True),
        ({"beta": 1.01, "lora.r": 8, "kl": "zero"}, False),
        ({"beta": 0.5, "lora.r": 2.5, "kl": "zero"}, False),
        ({"beta": 0.5, "lora.r": 2, "kl": "batch"}, False),
        ({"beta": 0.5, "lora.r": 2}, False),
    ],
)
def test_settings_are_known_to_lie_in_the_space_or_outside(settings, expected):
    assert within(config(), settings) is expected


def test_optuna_comes_to_where_both_objectives_are_good():
    # Both objectives want a large beta and a small rank: the later half must be better than chance.
    found = drained(
        Learning(config(trials=40)),
        lambda s: {"success": s["beta"], "tokens_all": 100 * s["lora.r"] - s["beta"]},
    )
    assert len({key_of(settings) for settings in found}) == 40
    early, late = found[:10], found[25:]
    assert sum(s["beta"] for s in late) / len(late) > sum(s["beta"] for s in early) / len(early)
    assert sum(s["lora.r"] for s in late) / len(late) < sum(s["lora.r"] for s in early) / len(early)


def test_what_earlier_starts_found_counts_and_is_not_proposed_again():
    small = config(space={"beta": [0.1, 0.2, 0.3], "lora.r": [2, 4]}, trials=6)
    first = combinations(small)[:3]
    learning = Learning(small, known=3)
    for settings in first:
        learning.tell(settings, {"success": 1.0, "tokens_all": 5.0})
    noted = []
    rest = drained(Noted([first[0]], learning, noted.append), lambda s: None)
    assert rest[0] == first[0]
    assert rest[1:] == noted
    assert {key_of(s) for s in noted} == {key_of(s) for s in combinations(small)[3:]}


def test_a_trial_that_failed_or_lacks_an_objective_teaches_nothing_and_breaks_nothing():
    told = iter([None, {"success": 1.0}, {"success": float("nan"), "tokens_all": 1.0}])
    assert (
        len(drained(Learning(config(trials=5)), lambda s: next(told, {"success": 1.0, "tokens_all": 1.0})))
        == 5
    )
