"""Shards and the bill that lies in them."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from builders import said, trajectory

from depo.config.endpoint import OpenAIConfig, PriceConfig
from depo.config.schema import BudgetConfig, SearchConfig
from depo.data.store import read_trajectories, shard_columns, write_table
from depo.policies.base import BudgetSpent, Sampling
from depo.records import Task, Trajectory
from depo.stages.accounting import (
    Spent,
    after_text,
    before_text,
    most_tokens,
    short,
    spent_metrics,
    total_spent,
    within_budget,
)
from depo.stages.jobs import EpisodePlan, RolloutJob, error_row, pack, unpack
from depo.stages.shards import (
    ShardWriter,
    finished_array,
    finished_tasks,
    quarantine,
    quarantined,
    unfinished,
)

TASKS = tuple(Task("babyai", "GoToRedBall", seed, "train") for seed in range(5))
ENDPOINT = OpenAIConfig(
    base_url="http://127.0.0.1:1/v1", model="m", prices={"m": PriceConfig(input=1, output=2)}
)
JOB = RolloutJob("m", ENDPOINT, "", SearchConfig(), TASKS, "out", 0)


def rows(task: Task, text: str = "T") -> list[Trajectory]:
    return [replace(trajectory([said(f"{text}{n}.")], index=n), task=task) for n in range(2)]


def written(folder, tasks, spent=Spent()) -> None:  # noqa: B008
    """Add the rows of some tasks, and wait until they are on disk."""
    writer = ShardWriter()
    writer.spend(folder, spent)
    for task in tasks:
        writer.add(folder, rows(task), lambda error: None)
    writer.close()


def test_rows_are_on_disk_before_anybody_is_told(tmp_path):
    writer, told, seen = ShardWriter(), threading.Event(), []

    def then(error) -> None:
        seen.extend(finished_tasks(tmp_path))
        told.set()

    writer.add(tmp_path, rows(TASKS[0]), then)
    writer.hurry()
    assert told.wait(30)
    assert seen == [TASKS[0].id]
    writer.close()


def test_flush_returns_when_all_is_on_disk(tmp_path):
    writer = ShardWriter()
    for task in TASKS:
        writer.add(tmp_path, rows(task), lambda error: None)
    writer.flush()
    assert finished_tasks(tmp_path) == {task.id for task in TASKS}
    writer.close()


def test_who_waits_learns_why_nothing_was_written(tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    writer, errors = ShardWriter(), []
    writer.add(tmp_path / "out", rows(TASKS[0]), errors.append)
    writer.close()
    assert isinstance(errors[0], OSError)


def test_equal_rows_written_twice_are_one_shard(tmp_path):
    written(tmp_path, TASKS[:2])
    written(tmp_path, TASKS[:2])
    assert len(list(tmp_path.glob("*.parquet"))) == 1


def test_the_bill_adds_up_over_starts_with_rows_or_without(tmp_path):
    written(tmp_path, TASKS[:2], Spent(requests=3, tokens=50, money=0.25))
    written(tmp_path, TASKS[2:], Spent(requests=2, prompt_tokens=7, engine_seconds=1.5))
    written(tmp_path, [], Spent(tokens=9, retried=1))
    assert total_spent(tmp_path) == Spent(5, 7, 59, 0.25, 1.5, 1)
    assert len(read_trajectories(tmp_path)) == 10


def test_an_older_shard_without_a_bill_counts_nothing(tmp_path):
    write_table(tmp_path / "a.parquet", rows(TASKS[0]), Trajectory)
    assert total_spent(tmp_path) == Spent()


def test_what_is_unfinished_keeps_its_order(tmp_path):
    written(tmp_path, [TASKS[1], TASKS[3]])
    assert [*unfinished(TASKS, finished_array(tmp_path))] == [TASKS[0], TASKS[2], TASKS[4]]
    assert [*unfinished(TASKS, finished_array(tmp_path / "none"))] == list(TASKS)


def test_a_quarantined_task_is_finished_until_it_is_asked_for_again(tmp_path):
    quarantine(tmp_path, TASKS[0], "ValueError: no", failures=3, deaths=0)
    write_table(tmp_path / "a.parquet", [error_row(JOB, TASKS[0], "ValueError: no")], Trajectory)
    assert json.loads(next((tmp_path / "quarantine").iterdir()).read_text())["failures"] == 3
    assert finished_tasks(tmp_path) == {TASKS[0].id}
    assert finished_tasks(tmp_path, again=True) == set()
    written(tmp_path, TASKS[:1])
    assert quarantined(tmp_path) == set()
    assert [t.stop_reason for t in read_trajectories(tmp_path)] == ["terminated"] * 2


def test_columns_are_read_without_the_rows_that_are_passed_over(tmp_path):
    write_table(tmp_path / "a.parquet", rows(TASKS[0]) + rows(TASKS[1]), Trajectory)
    write_table(tmp_path / "b.parquet", rows(TASKS[1], "B") + rows(TASKS[2]), Trajectory)
    columns = ["task", "steps.list.element.num_tokens"]
    seeds = [row["task"]["seed"] for table in shard_columns(tmp_path, columns) for row in table.to_pylist()]
    assert seeds == [0, 0, 1, 1, 2, 2]


def test_tasks_survive_packing():
    assert unpack(pack(TASKS)) == list(TASKS)


def test_the_most_a_job_can_take():
    # Two simulations: one expansion of 3 replies and two further turns each, 10 tokens a reply.
    plan = SearchConfig(simulations=2, width=3, max_steps=3, max_tokens=10)
    assert most_tokens(plan, tasks=4) == 4 * 2 * 5 * 10
    limited = plan.model_copy(update={"budget": BudgetConfig(tokens=20)})
    assert most_tokens(limited, tasks=4) == 4 * (20 + 50)
    assert most_tokens(EpisodePlan(Sampling(max_tokens=10), max_steps=3), tasks=4) == 120


def test_the_bill_is_told_before_and_after_the_first_trees():
    plan = SearchConfig(simulations=1, width=1, max_steps=1, max_tokens=1000)
    job = replace(JOB, plan=plan)
    assert (
        before_text([job], [500]) == "500 tasks to do, at most 500k tokens for 1.00 of money, prompts aside"
    )
    told = after_text(Spent(tokens=300, prompt_tokens=4000, money=0.5), done=10, total=1000)
    assert told == (
        "by the first 10 trees, all 1,000 will take about 30k tokens, 400k prompt tokens, 50.00 of money"
    )
    assert [short(n) for n in (950, 12_340, 4.5e6)] == ["950", "12.3k", "4.5M"]
    assert "money" not in spent_metrics(Spent(tokens=3))


def test_a_budget_is_less_what_is_spent_by_all_its_workers():
    limited = ENDPOINT.model_copy(update={"max_money": 10.0, "max_tokens_total": 1000})
    left = within_budget(limited, Spent(prompt_tokens=100, tokens=50, money=2.0), workers=2)
    assert (left.max_money, left.max_tokens_total) == (6.0, 700)
    assert within_budget(ENDPOINT, Spent(money=5.0)) == ENDPOINT
    with pytest.raises(BudgetSpent, match="max_money: all of it is spent"):
        within_budget(limited, Spent(money=10.0))
