"""Suites: further task sets in environments of their own, through the same workers."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from depo.config.base import ConfigError
from depo.config.env import EnvConfig
from depo.config.load import load_config
from depo.config.runtime import GenerationRuntime
from depo.config.schema import CustomConfig, EvaluationConfig, StudentConfig
from depo.data.store import read_table, read_trajectories
from depo.pipeline import build, check
from depo.policies.base import Immediate, Reply, Request, format_reply
from depo.records import Episode
from depo.stages.evaluate import EPISODES, collect, evaluation_jobs
from depo.stages.jobs import WorkerSettings
from depo.stages.tasksets import evaluation_tasks, files_of, placed, suite_tasks
from depo.stages.worker import RolloutWorker

DEMO = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"
BABYAI = EnvConfig(options={"levels": ["GoToObjS6-v1"], "show_actions": False, "instructions": "brief"})
FILES = {
    "gsm8k": [{"question": f"What is {n} + 1?", "answer": f"{n} + 1\n#### {n + 1}"} for n in range(4)],
    "math": [
        {"problem": f"Half of {n}?", "level": f"Level {n % 2 + 1}", "solution": rf"\boxed{{{n}/2}}"}
        for n in range(1, 5)
    ],
    "simuleq": [
        {"question": f"x + y = {n + 1}, x - y = {n - 1}", "answer": {"x": n, "y": 1}} for n in range(4)
    ],
}  # fmt: skip
ANSWERS = {"What is 0": "1", "What is 1": "2", "Half of 1": "0.5", "Half of 2": "1", "x + y = 3": "y=1, x=2"}


class Solver(Immediate):
    """Knows two problems of GSM8K, two of MATH and one of SimulEq; in BabyAI it looks left."""

    name = "solver"
    tokenizer_fingerprint = ""

    def reply(self, request: Request) -> list[Reply]:
        known = (answer for start, answer in ANSWERS.items() if start in request.observation)
        action = next(known, "999") if "Problem:" in request.observation else "turn left"
        return [Reply(format_reply("so", action), "so", action, False, 3)] * request.n


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture
def evaluation(tmp_path: Path) -> EvaluationConfig:
    """Three suites of maths files, five turns each."""
    suites = {}
    for name, rows in FILES.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        env = {"id": "maths", "options": {"dataset": name, "path": str(file)}}
        suites[name] = {"env": env, "max_steps": 5, "max_tokens": 8}
    return EvaluationConfig.model_validate(
        {"suites": suites, "decoding": ["greedy", "sampled"], "tasks": 2, "max_steps": 3}
    )


def test_one_worker_does_maths_files_and_babyai_with_one_policy(evaluation, tmp_path):
    policy = CustomConfig(cls=f"{__name__}:Solver")
    jobs = evaluation_jobs("m", "", evaluation_tasks(BABYAI, evaluation), evaluation, tmp_path / "own")
    for suite, own in evaluation.suites.items():
        tasks = suite_tasks(evaluation, suite)
        jobs += evaluation_jobs("m", "", tasks, evaluation.on(suite), tmp_path / suite, own.env)
    jobs = [replace(job, policy=policy) for job in jobs]
    worker = RolloutWorker(WorkerSettings(BABYAI, StudentConfig(), GenerationRuntime(), None), jobs)
    for job in jobs:
        worker.run(job, job.tasks)
    worker.close()
    assert collect("m", evaluation, tmp_path / "own").metrics["steps_all"] == 3
    right = {}
    for suite in evaluation.suites:
        outcome = collect("m", evaluation.on(suite), tmp_path / suite, suite_tasks(evaluation, suite), suite)
        episodes = read_table(tmp_path / suite / EPISODES, Episode)
        assert {e.decoding for e in episodes} == {"greedy"} and {e.suite for e in episodes} == {suite}
        assert {e.success for e in episodes} == {True, False}
        assert all(e.reward == e.success and e.num_tokens == 3 and e.num_steps == 1 for e in episodes)
        right[suite] = (outcome.rows, outcome.metrics["success"], outcome.metrics["tokens_all"])
    assert right == {"gsm8k": (4, 0.5, 3.0), "math": (4, 0.5, 3.0), "simuleq": (4, 0.25, 3.0)}
    levels = {t.task.level for t in read_trajectories(tmp_path / "math" / "greedy")}
    assert levels == {"math-1", "math-2"}


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        ({"options": {"dataset": "gsm8k", "path": "FILE"}, "tasks": 5},
         "evaluation.suites.far.tasks: FILE has only 4 different test tasks, 5 were asked for; "),
        ({"options": {"dataset": "gsm8k", "path": "FILE"}, "skip": 4},
         "evaluation.suites.far.skip: passes over all 4 test tasks; lower it"),
        ({"options": {"dataset": "gsm8k", "path": "FILE"}, "split": "validation", "tasks": 1},
         "evaluation.suites.far.tasks: gsm8k: FILE holds test tasks only"),
        ({"options": {"dataset": "gsm8k", "path": "no/such.jsonl"}},
         "evaluation.suites.far.env.options.path: no/such.jsonl: cannot be read (No such file or directory)"),
        ({"options": {"dataset": "gsm9k"}},
         "evaluation.suites.far.env.options.dataset: give gsm8k, math or simuleq, not 'gsm9k'"),
        ({}, "evaluation.suites.far.tasks: maths cannot say how many test tasks it has; give a number"),
    ],
)  # fmt: skip
def test_what_a_suite_asks_in_vain_is_one_line_before_anything_runs(suite, message, evaluation, tmp_path):
    path = evaluation.suites["gsm8k"].env.options["path"]
    options = {k: v.replace("FILE", path) for k, v in suite.pop("options", {}).items()}
    asked = {**suite, "env": {"id": "maths", "options": options}}
    config = load_config(DEMO, [f"evaluation.suites={json.dumps({'far': asked})}"])
    check(config, {"evaluate bc"})
    with pytest.raises(ConfigError) as caught:
        check(config, {"evaluate bc", "evaluate bc on far"})
    assert str(caught.value).startswith(message.replace("FILE", path))
    assert "\n" not in str(caught.value)


def test_too_many_tasks_of_the_evaluation_itself_are_noticed_before_anything_runs():
    options = "{url: 'http://127.0.0.1:1', server: generic, splits: {train: [0, 9]}}"
    config = load_config(DEMO, ["env.id=agentgym", f"env.options={options}"])
    check(config, {"train bc"})
    with pytest.raises(ConfigError, match=r"evaluation\.tasks: splits\.test: 0 tasks, 2000 were asked for"):
        check(config, {"train bc", "evaluate bc"})


def test_a_difficulty_without_a_level_is_noticed_before_anything_runs():
    config = load_config(DEMO, ["evaluation.difficulty={hard: ['GoToLocal*', Boss*]}"])
    with pytest.raises(
        ConfigError, match=r"evaluation\.difficulty\.hard: 'Boss\*' matches no level; the levels"
    ):
        check(config, {"evaluate bc"})
    easy, hard = ["GoToObjS6-v1", "GoToRedBallNoDists"], ["GoToRedBall", "GoToLocalS5N2"]
    groups = load_config(DEMO).evaluation.difficulty_of([*hard, *easy, "Open"])
    assert groups == {**dict.fromkeys(easy, "easy"), **dict.fromkeys(hard, "hard")}


def test_a_suite_is_a_stage_for_each_method_and_its_file_is_part_of_it(evaluation):
    suites = evaluation.model_dump(mode="json")["suites"]

    def graph():
        return build(load_config(DEMO, [f"evaluation.suites={json.dumps(suites)}"]))

    experiment = graph()
    node = experiment.nodes["evaluate depo on gsm8k"]
    assert node.needs == ("train depo",)
    assert node.spec.out_dir == experiment.run_dir / "suites" / "gsm8k" / "depo"
    assert node.spec.config["max_steps"] == 5 and node.spec.config["decoding"] == ["sampled"]
    assert "evaluate depo on gsm8k" in experiment.nodes["report"].needs
    order = [name for name in experiment.nodes if name.startswith("evaluate depo")]
    assert order == ["evaluate depo", *(f"evaluate depo on {suite}" for suite in FILES)]
    path = Path(suites["gsm8k"]["env"]["options"]["path"])
    path.write_text(path.read_text() + "\n" + json.dumps({"question": "And now?", "answer": "#### 1"}))
    later = graph()
    changed = {n for n in experiment.nodes if experiment.nodes[n].spec != later.nodes[n].spec}
    assert changed == {f"evaluate {m} on gsm8k" for m in later.config.evaluated} | {"report"}


def test_paths_of_a_suite_mean_the_same_in_workers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "gsm8k").mkdir()  # the name of the data set is no path
    (tmp_path / "data" / "a.json").write_text("{}")
    said = {"dataset": "gsm8k", "system": "Say it. " * 1000}
    splits = {"train": [0, 5], "test": "./data/a.json"}
    env = EnvConfig(id="maths", options={**said, "path": "./data", "cache_dir": "./data", "splits": splits})
    where = str(tmp_path / "data")
    placed_splits = {"train": [0, 5], "test": f"{where}/a.json"}
    assert placed(env).options == {**said, "path": where, "cache_dir": where, "splits": placed_splits}
    # What an environment keeps for itself does not make its tasks others.
    content = {"a.json": hashlib.sha256(b"{}").hexdigest()}
    assert files_of(env) == {"path": content, "splits.test": content}


class Counted(Solver):
    """Counts how often a policy was made."""

    made = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).made += 1


def test_a_worker_serves_other_weights_at_the_same_path_anew(tmp_path):
    """A folder that is written again, in the same size, is another model; one that is touched is not."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"one")
    asked = EvaluationConfig(decoding=("greedy",), tasks=3, max_steps=1)
    (job,) = evaluation_jobs("m", str(tmp_path), evaluation_tasks(BABYAI, asked), asked, tmp_path / "out")
    policy = CustomConfig(cls=f"{__name__}:Counted")
    jobs = [replace(job, policy=policy, out_dir=str(tmp_path / f"out{n}")) for n in range(3)]
    worker = RolloutWorker(WorkerSettings(BABYAI, StudentConfig(), GenerationRuntime(), None), jobs)
    made = []
    for each, content in zip(jobs, (b"one", b"one", b"two"), strict=True):
        weights.write_bytes(content)
        worker.run(each, each.tasks)
        made.append(sys.modules[__name__].Counted.made)
    worker.close()
    assert made == [1, 1, 2]
