"""No thread dies untold: what it raises ends a tree, a stage or whoever waits, and nobody waits for ever."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from builders import said, trajectory

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime
from depo.config.schema import EnvConfig, StudentConfig, TeacherConfig
from depo.data.store import read_trajectories
from depo.envs.babyai.env import BabyAIEnv
from depo.envs.registry import make_env
from depo.policies.base import Sampling
from depo.policies.teacher import TeacherPolicy
from depo.records import valid_text
from depo.stages import loop, shards
from depo.stages.accounting import Spent, total_spent
from depo.stages.jobs import EpisodePlan, RolloutJob, WorkerSettings
from depo.stages.loop import Halt
from depo.stages.progress import Board, Line
from depo.stages.shards import ShardWriter, finished_tasks, quarantined
from depo.stages.worker import RolloutWorker
from depo.threads import Background, awaited

pytestmark = pytest.mark.timeout(60)

ENV = EnvConfig(options={"levels": ["GoToObjS6-v1"], "show_actions": False, "instructions": "brief"})
TASKS = tuple(make_env("babyai", ENV.options).tasks("train", 6))
SETTINGS = WorkerSettings(ENV, StudentConfig(), GenerationRuntime(actors=1, batch_tasks=3), None)


def run(out, tasks=TASKS) -> None:
    """Do `tasks` in this process, without Ray."""
    job = RolloutJob("teacher", TeacherConfig(), "", EpisodePlan(Sampling(), 20), tasks, str(out), seed=5)
    worker = RolloutWorker(SETTINGS, [])
    try:
        worker.run(job, tasks)
    finally:
        worker.close()


def test_what_a_thread_raised_is_raised_where_it_is_waited_for():
    def fail() -> None:
        raise ValueError("no\nluck")

    told: list[Exception] = []
    thread = Background(fail, "some work", told.append)
    with pytest.raises(ConfigError, match=r"^some work: ValueError: no luck$"):
        thread.finish()
    assert [type(error) for error in told] == [ValueError]
    Background(list, "nothing").finish()


def test_an_exit_of_a_thread_is_told_too():
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(ConfigError, match="SystemExit: 3"):
        Background(leave, "some work").finish()


def test_awaited_work_answers_and_raises_as_itself():
    assert awaited(threading.current_thread, "elsewhere") is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        awaited(lambda: 1 / 0, "nowhere")


@pytest.mark.parametrize(
    ("text", "valid"), [("Mug \ud83d", "Mug \ufffd"), ("\ud83d\ude00", "\U0001f600"), ("a\0é", "a\0é")]
)
def test_a_lone_surrogate_is_replaced_and_a_pair_is_put_together(text, valid):
    assert valid_text(text) == valid


@pytest.mark.parametrize("where", ["observation", "text", "thought", "action"])
def test_a_text_that_no_file_can_hold_is_stored_with_its_surrogates_replaced(where, tmp_path):
    row = trajectory([replace(said("T."), **{where: "x\udcff"})])
    writer, told = ShardWriter(), []
    for other in (row, replace(row, error="\ud800", final_observation="\udfff", system="\ud801", index=1)):
        writer.add(tmp_path, [other], told.append)
    writer.close()
    assert told == [None, None]
    assert getattr(read_trajectories(tmp_path)[0].steps[0], where) == "x\ufffd"


def test_rows_that_no_table_can_hold_fail_their_own_tree_only(tmp_path):
    good = trajectory([said("T.")])
    writer, told = ShardWriter(), {}
    writer.spend(tmp_path, Spent(tokens=7))
    rows = {
        "good": [good],
        "seed": [replace(good, seed=2**63)],
        "tokens": [replace(good, index=1), replace(good, steps=(replace(said("T."), num_tokens=2**40),))],
        "type": [replace(good, reward="much")],
        "too": [replace(good, index=2, task=replace(good.task, seed=9))],
    }
    for name, some in rows.items():
        writer.add(tmp_path, some, lambda error, name=name: told.update({name: error}))
    writer.close()
    assert {name for name, error in told.items() if error is None} == {"good", "too"}
    assert [t.index for t in read_trajectories(tmp_path)] == [0, 2]
    assert total_spent(tmp_path) == Spent(tokens=7)


def test_whoever_waits_for_a_writer_that_died_is_told(tmp_path, monkeypatch):
    def broken(*_) -> None:
        raise SystemExit("out")

    monkeypatch.setattr(shards, "_write", broken)
    writer, told = ShardWriter(), []
    writer.add(tmp_path / "a", [trajectory([said("T.")])], told.append)
    writer.flush()
    writer.add(tmp_path / "b", [trajectory([said("T.")])], told.append)
    assert "SystemExit: out" in str(told[-1])
    writer.close()


def test_a_tree_whose_rows_cannot_be_stored_is_given_up(tmp_path, monkeypatch):
    bad = TASKS[2].id
    real = TeacherPolicy.reply

    def reply(self, request):
        answers = real(self, request)
        tokens = 2**40 if request.env.task.id == bad else 3
        return [replace(answer, num_tokens=tokens) for answer in answers]

    monkeypatch.setattr(TeacherPolicy, "reply", reply)
    run(tmp_path)
    assert finished_tasks(tmp_path) == {task.id for task in TASKS}
    assert quarantined(tmp_path) == {bad}
    (row,) = [t for t in read_trajectories(tmp_path) if t.task.id == bad]
    assert row.stop_reason == "error"
    assert "cannot be stored" in row.error


def test_an_environment_that_exits_ends_its_own_tree(tmp_path, monkeypatch):
    real = BabyAIEnv.step

    def step(self, action):
        if self.task.id == TASKS[1].id:
            raise SystemExit(7)
        return real(self, action)

    monkeypatch.setattr(BabyAIEnv, "step", step)
    run(tmp_path)
    assert quarantined(tmp_path) == {TASKS[1].id}
    assert finished_tasks(tmp_path) == {task.id for task in TASKS}


@pytest.mark.parametrize("error", [KeyError("what"), SystemExit(2)])
def test_whoever_waits_for_an_engine_thread_that_died_is_told(error, tmp_path, monkeypatch):
    def broken(self, idle=False):
        raise error

    monkeypatch.setattr(loop.EngineLoop, "_turn", broken)
    monkeypatch.setattr(loop.EngineLoop, "_halt", broken)
    with pytest.raises(Halt, match=type(error).__name__):
        run(tmp_path)


def test_tasks_that_a_lost_worker_told_of_are_not_counted_beyond_the_total():
    line = Line("generate t", "tasks", total=120, done=20)
    assert "120/120 tasks" in line.text(101)
    board = Board.__ray_metadata__.modified_class()
    board.begin(0, ["a", "b"])
    assert "begun again" not in board.counts()
    board.begin(0, ["a", "b"])
    assert board.counts()["begun again"] == 2
