"""A share of the tasks to train on: which ones, and what stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
from test_training_data import sample, scores, spec

from depo.config.base import ConfigError
from depo.training.dataset import load_samples, share_of_tasks
from depo.training.loading import load_table
from depo.training.run import logging_steps, num_steps, rung_steps
from depo.training.sources import KeptSources

TASKS, EACH = 10, 3


def samples(**changes) -> list:
    return [
        sample(n, "DU"[n % 2], task_id=f"k{n // EACH}", kl_partner=f"s{(n + 7) % (TASKS * EACH)}", **changes)
        for n in range(TASKS * EACH)
    ]


def tasks_of(table) -> set[str]:
    return {table.task[row] for row in table.rows}


def test_shares_are_whole_tasks_nested_and_drawn_by_the_seed(tmp_path):
    whole = load_samples(spec(tmp_path, samples()).samples, "raw", 8)
    drawn = [tasks_of(share_of_tasks(whole, share, 0)) for share in (0.25, 0.5, 0.75, 1.0)]
    assert [len(tasks) for tasks in drawn] == [3, 5, 8, 10]  # rounded up
    assert drawn[0] < drawn[1] < drawn[2] < drawn[3]
    assert len(share_of_tasks(whole, 0.5, 0).rows) == 5 * EACH  # with all their samples
    assert {frozenset(tasks_of(share_of_tasks(whole, 0.5, seed))) for seed in range(8)} > {
        frozenset(drawn[1])
    }


def test_no_objective_sees_the_tasks_that_are_left_out(tmp_path):
    found = {}
    for objective in ("sft", "weighted_bc", "kto", "depo", "dpo"):
        method = {"objective": objective, "data_fraction": 0.5, "seed": 3}
        made = spec(tmp_path, samples(), scores(*range(TASKS * EACH)), **method)
        found[objective] = tasks_of(load_table(made))
    # sft trains on the desirable ones among the same tasks.
    assert found.pop("sft") <= found["kto"]
    assert all(tasks == found["kto"] for tasks in found.values()) and len(found["kto"]) == 5


def test_partners_that_are_left_out_still_serve(tmp_path):
    scored = scores(*range(TASKS * EACH))
    whole = load_table(spec(tmp_path, samples(), scored))
    half = load_table(spec(tmp_path, samples(), scored, data_fraction=0.5))
    lost = [row for row in half.rows if half.partner[row] not in half.rows]
    assert lost, "every partner was kept, so this shows nothing"
    for row in half.rows:
        assert np.array_equal(half.kl_sequence(row)[0], whole.kl_sequence(row)[0])
        assert half.ref_kl_logp[row] == whole.ref_kl_logp[row]
        assert half.ref_logp[row] == whole.ref_logp[row]


def test_balance_and_steps_count_what_is_left(tmp_path):
    made = spec(tmp_path, samples(), scores(*range(TASKS * EACH)), data_fraction=0.3, balance=True)
    table = load_table(made)
    labels = table.desirable[table.rows]
    assert labels.sum() == (~labels).sum() and tasks_of(table) <= tasks_of(
        load_table(replace_share(made, 0.3))
    )
    assert num_steps(made.method.model_copy(update={"epochs": 1.0}), len(table.rows)) == len(table.rows)


def replace_share(made, share):
    return replace(made, method=made.method.model_copy(update={"data_fraction": share, "balance": False}))


def test_too_small_a_share_says_so(tmp_path):
    made = spec(tmp_path, samples(), scores(*range(TASKS * EACH)), data_fraction=0.2, batch_size=8)
    with pytest.raises(ConfigError, match=r"in data_fraction=0\.2 of the tasks are fewer than batch_size=8"):
        load_table(made)


def test_kept_samples_are_those_of_the_file_whatever_was_asked_before(tmp_path):
    kept = KeptSources()
    scored = scores(*range(TASKS * EACH))
    made = spec(tmp_path, samples(), scored)
    for changes in (
        {}, {"alpha_steps": 2.0, "objective": "depo"}, {"data_fraction": 0.5}, {"balance": True},
        {"data_fraction": 0.5, "seed": 1}, {"trained_tokens": "last"}, {},
    ):  # fmt: skip
        asked = replace(made, method=type(made.method)(**{**base_of(made), **changes}))
        first, again, fresh = kept.table(asked), kept.table(asked), load_table(asked)
        for table in (first, again):
            assert np.array_equal(table.rows, fresh.rows) and np.array_equal(table.weights, fresh.weights)
            assert np.array_equal(table.bonus, fresh.bonus)
            assert np.array_equal(table.ref_logp, fresh.ref_logp, equal_nan=True)
    # Other content at the same path is not taken for the old.
    longer = [*samples(), sample(99, kl_partner="s0")]
    assert len(kept.table(spec(tmp_path, longer, [*scored, *scores(99)])).rows) == TASKS * EACH + 1


def base_of(made) -> dict:
    return {"objective": "kto", "view": "raw", "batch_size": made.method.batch_size}


@pytest.mark.parametrize(("steps", "rungs"), [(6, 1), (6, 3), (7, 3), (60, 4), (500, 7), (4, 4)])
def test_rungs_lie_at_equal_distances_where_a_row_of_the_metrics_ends(steps, rungs):
    places = rung_steps(steps, rungs)
    assert len(places) == rungs and places[-1] == steps and sorted(set(places)) == places and places[0] > 0
    assert all(place % logging_steps(steps) == 0 for place in places[:-1])
    assert all(abs(place - steps * n / rungs) <= logging_steps(steps) for n, place in enumerate(places, 1))


def test_more_rungs_than_there_is_room_for_are_refused():
    with pytest.raises(
        ConfigError, match=r"sweep\.rungs: 5 rungs do not fit into a training of 4 steps; take 4"
    ):
        rung_steps(4, 5)
