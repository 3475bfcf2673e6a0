"""The pipeline as a graph: what comes before what, and what a change reaches."""

from pathlib import Path

import pytest

from depo.config.base import ConfigError
from depo.config.load import load_config
from depo.graph import runs_dir
from depo.pipeline import _run_group, build, wanted
from depo.stages.base import Outcome
from depo.stages.mirror import Mirror
from depo.sweeps import run_sweep

DEMO = Path(__file__).parents[2] / "experiments" / "configs" / "babyai-tiny.yaml"


def graph(*overrides: str):
    return build(load_config(DEMO, list(overrides)))


def fingerprints(*overrides: str) -> dict[str, str]:
    return {name: node.spec.fingerprint for name, node in graph(*overrides).nodes.items()}


def changed_by(*overrides: str) -> set[str]:
    before, after = fingerprints(), fingerprints(*overrides)
    return {name for name in before if before[name] != after.get(name)}


def test_every_stage_comes_after_what_it_needs():
    experiment = graph()
    order = list(experiment.nodes)
    for name, node in experiment.nodes.items():
        assert all(order.index(need) < order.index(name) for need in node.needs)
        assert set(node.spec.inputs) == set(node.needs)
    directories = [node.spec.out_dir for node in experiment.nodes.values()]
    assert len(set(directories)) == len(directories)


def test_the_second_round_is_by_bc_and_the_preference_stage_reads_it():
    experiment = graph()
    assert experiment.nodes["generate student"].needs == ("train bc",)
    assert set(experiment.nodes["train depo"].needs) == {
        "train bc", "annotate student", "reference bc-student-rephrased"
    }  # fmt: skip
    assert experiment.nodes["train kto"].needs == experiment.nodes["train depo"].needs


def test_a_stage_brings_along_only_what_it_needs():
    names = wanted(graph(), ["train bc"])
    assert names == ["script episodes", "student", "generate teacher", "annotate teacher", "train bc"]


def test_a_bonus_reaches_its_own_method_and_never_the_data():
    assert changed_by("methods.depo.alpha_steps=1") == {"train depo", "evaluate depo", "report"}


def test_a_threshold_reaches_all_that_rests_on_its_round():
    changed = changed_by("annotation.student.kappa0=0.95")
    assert changed == {
        "annotate student", "reference bc-student-rephrased", "train sft", "train kto", "train depo",
        "evaluate sft", "evaluate kto", "evaluate depo", "report",
    }  # fmt: skip


@pytest.mark.parametrize("key", ["training.num_workers=8", "generation.actors=4", "runs_dir=elsewhere"])
def test_runtime_reaches_nothing(key):
    assert changed_by(f"runtime.{key}") == set()


def test_the_seed_reaches_every_draw():
    untouched = set(fingerprints()) - changed_by("seed=1")
    assert untouched == set()


def test_a_job_keeps_its_runs_in_the_checkout_and_not_in_its_throw_away_copy(tmp_path, monkeypatch):
    config = load_config(DEMO)
    copy = tmp_path / "_ray_pkg_0123"
    copy.mkdir()
    monkeypatch.chdir(copy)
    assert runs_dir(config) == Path(__file__).parents[2] / "runs"
    monkeypatch.chdir(tmp_path)
    assert runs_dir(config) == Path("runs")


def test_a_sweep_without_a_section_says_so():
    config = load_config(DEMO, ["sweep=null"])
    with pytest.raises(ConfigError, match="has no `sweep` section"):
        run_sweep(config)


def test_a_policy_with_a_budget_in_its_prompt_is_a_row_of_its_own():
    controlled = 'evaluation.controlled={"bc_brief": {"method": "bc", "tokens": 20}}'
    experiment = graph(controlled)
    assert experiment.nodes["evaluate bc_brief"].needs == ("train bc",)
    assert changed_by(controlled) == {"report"}
    other = fingerprints(controlled.replace("20", "30"))["evaluate bc_brief"]
    assert other != experiment.nodes["evaluate bc_brief"].spec.fingerprint
    with pytest.raises(ConfigError, match=r"evaluation\.controlled\.bc: the name is taken"):
        graph(controlled.replace("bc_brief", "bc"))
    with pytest.raises(ConfigError, match=r"controlled\.bc_brief\.method: 'nobody' is not defined"):
        graph(controlled.replace('"bc"', '"nobody"'))


@pytest.mark.parametrize(
    "setting",
    ["reference=kto", "comparisons=[[sft, kto]]", "bootstrap=50", "success_reward=0.9",
     "difficulty={all: ['*']}", "prices={default: {input: 1, output: 2}}",
     "methods=[depo, kto, bc, bc_raw, sft]", "suites={far: {env: {id: maths}, tasks: 3}}",
     "thought_utility=4"],
)  # fmt: skip
def test_how_episodes_are_judged_reaches_the_report_alone(setting):
    assert changed_by(f"evaluation.{setting}") == {"report"}


@pytest.mark.parametrize(
    "more", ["seeds=[0, 1]", "tasks=1300", "skip=700", "decoding=[sampled]", "split=validation"]
)
def test_other_seeds_and_tasks_go_on_with_the_episodes_there_are(more):
    changed = changed_by(f"evaluation.{more}")
    evaluations = {f"evaluate {name}" for name in ("bc_raw", "bc", "sft", "kto", "depo")}
    assert changed == evaluations | {"report"}
    before, after = graph(), graph(f"evaluation.{more}")
    assert all(before.nodes[n].spec.work == after.nodes[n].spec.work for n in evaluations)


@pytest.mark.parametrize("other", ["seeds=[1, 0]", "temperature=0.5", "max_steps=9", "max_tokens=50"])
def test_other_episodes_start_anew(other):
    before, after = graph(), graph(f"evaluation.{other}")
    assert before.nodes["evaluate bc"].spec.work != after.nodes["evaluate bc"].spec.work


def test_thoughts_are_scored_of_every_evaluated_policy():
    controlled = 'evaluation.controlled={"bc_brief": {"method": "bc", "tokens": 20}}'
    experiment = graph(controlled, "evaluation.thought_utility=8")
    node = experiment.nodes["thoughts bc_brief"]
    assert (node.needs, node.spec.config) == (("evaluate bc_brief",), {"episodes": 8})
    assert node.spec.out_dir == experiment.run_dir / "thoughts" / "bc_brief"
    assert experiment.model_dir("bc_brief") == experiment.model_dir("bc")
    assert "thoughts bc_brief" in experiment.nodes["report"].needs
    assert [n for n in graph().nodes if n.startswith("thoughts")] == []


def test_a_stage_taken_back_finished_is_not_run_again(tmp_path):
    experiment = graph("tracking.enabled=false", f"runtime.runs_dir={tmp_path}")
    ran = []

    def start(kind: str, **settings: float) -> None:
        experiment.nodes.clear()
        experiment.add(
            kind, f"{kind} bc", "bc", settings, [], body=lambda: ran.append(settings) or Outcome(1)
        )
        with Mirror(experiment.config, experiment.run_dir) as mirror:
            _run_group(list(experiment.nodes.values()), mirror, lambda _: None)

    for rate in (1.0, 2.0, 1.0):
        start("train", rate=rate)
    assert ran == [{"rate": 1.0}, {"rate": 2.0}]
    assert (experiment.run_dir / "bc" / "manifest.json").exists()
    # What a report writes lies beside the stages, where the other configuration's is now.
    for rate in (3.0, 4.0, 3.0):
        start("report", rate=rate)
    assert ran[2:] == [{"rate": 3.0}, {"rate": 4.0}, {"rate": 3.0}]
