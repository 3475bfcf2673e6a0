"""From finished rollouts to the table of episodes: seeds, decodings, and which tasks were asked for."""

from __future__ import annotations

import pytest
from builders import said, trajectory

from depo.config.schema import EvaluationConfig
from depo.data.store import read_table, write_table
from depo.records import Episode, Task, Trajectory
from depo.stages.evaluate import EPISODES, collect, evaluation_jobs
from depo.stages.tasksets import draws

TASKS = tuple(Task("babyai", "GoToRedBall", seed, "test") for seed in range(4))


def rollouts(folder, tokens: int, tasks=TASKS) -> None:
    """One trajectory a task, of `tokens` tokens."""
    from dataclasses import replace

    rows = []
    for task in tasks:
        made = trajectory([said("So.")])
        steps = (replace(made.steps[0], num_tokens=tokens),)
        rows.append(replace(made, task=task, steps=steps))
    write_table(folder / "shard.parquet", rows, Trajectory)


def test_sampled_is_drawn_with_every_seed_and_greedy_with_the_first():
    config = EvaluationConfig(seeds=[7, 3], decoding=["greedy", "sampled"])
    assert draws(config) == [
        ("greedy", 7, "greedy"), ("sampled", 7, "sampled"), ("sampled", 3, "sampled-seed3")
    ]  # fmt: skip
    assert draws(EvaluationConfig()) == [("sampled", 0, "sampled"), ("greedy", 0, "greedy")]


def test_there_is_a_job_for_each_draw_over_the_same_tasks(tmp_path):
    config = EvaluationConfig(seeds=[0, 1], temperature=0.5)
    jobs = evaluation_jobs("bc", "model", TASKS, config, tmp_path)
    assert [(job.seed, job.out_dir, job.plan.sampling.temperature) for job in jobs] == [
        (0, str(tmp_path / "sampled"), 0.5),
        (1, str(tmp_path / "sampled-seed1"), 0.5),
        (0, str(tmp_path / "greedy"), 0.0),
    ]
    assert all(job.tasks == TASKS and job.env is None for job in jobs)


def test_episodes_carry_their_seed_and_suite_and_the_mean_is_over_all_seeds(tmp_path):
    for folder, tokens in (("sampled", 10), ("sampled-seed1", 30), ("greedy", 5)):
        rollouts(tmp_path / folder, tokens)
    outcome = collect("bc", EvaluationConfig(seeds=[0, 1]), tmp_path, TASKS, "far")
    episodes = read_table(tmp_path / EPISODES, Episode)
    found = {(e.decoding, e.seed, e.num_tokens) for e in episodes}
    assert found == {("sampled", 0, 10), ("sampled", 1, 30), ("greedy", 0, 5)}
    assert {(e.method, e.suite) for e in episodes} == {("bc", "far")}
    assert (outcome.rows, outcome.metrics["tokens_all"]) == (12, 20)


def test_rollouts_of_other_tasks_and_seeds_lie_there_and_do_not_count(tmp_path):
    for folder in ("sampled", "sampled-seed1"):
        rollouts(tmp_path / folder, 10)
    config = EvaluationConfig(decoding=["sampled"])
    assert collect("bc", config, tmp_path, TASKS[1:3]).rows == 2
    assert {e.task_id for e in read_table(tmp_path / EPISODES, Episode)} == {t.id for t in TASKS[1:3]}
    assert collect("bc", config, tmp_path).rows == 4


def test_rollouts_that_are_not_there_are_named(tmp_path):
    rollouts(tmp_path / "sampled", 10)
    with pytest.raises(FileNotFoundError, match="sampled-seed1"):
        collect("bc", EvaluationConfig(seeds=[0, 1], decoding=["sampled"]), tmp_path)
