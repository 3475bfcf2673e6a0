"""Trials on the real trainer and engine: what they are worth does not depend on how they came about."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest
import training_help
from ray.exceptions import RayTaskError
from ray.train.v2.api.exceptions import WorkerGroupError
from training_help import DEPO, gap, make_home, spec

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime, RuntimeConfig, VllmConfig
from depo.config.schema import EnvConfig, EvaluationConfig, StudentConfig, TinyConfig
from depo.data.store import read_table, read_trajectories
from depo.records import Episode
from depo.stages.base import done, read_manifest
from depo.stages.sweep.failures import FAILED, root_cause
from depo.stages.sweep.plan import read_rungs
from depo.stages.sweep.rungs import close_shared
from depo.stages.sweep.trial import (
    STOPPED,
    RungResult,
    TrialPlan,
    close_stopped,
    release,
    run_trial,
    trial_spec,
)  # fmt: skip
from depo.stages.tasksets import evaluation_tasks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ENV = EnvConfig(
    id="babyai", options={"levels": ["GoToObjS6-v1"], "instructions": "brief", "show_actions": False}
)
EVALUATION = EvaluationConfig(split="validation", tasks=4, decoding=["sampled"], max_steps=3, max_tokens=12)
METHOD = {**DEPO, "scheduler": "cosine", "kl": "moving", "max_steps": 6}
SETTINGS = {"alpha_steps": 2.0, "lora.r": 3}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    # The engine serves heads of this size, and contexts of this length.
    made = training_help.TINY, training_help.make_tiny
    training_help.TINY = TinyConfig(hidden_size=64, layers=2, heads=2, intermediate_size=64, vocab_size=400)
    training_help.make_tiny = lambda config, texts, _, seed, out: made[1](config, texts, 4096, seed, out)
    try:
        yield make_home(tmp_path_factory.mktemp("trial"))
    finally:
        training_help.TINY, training_help.make_tiny = made
        close_shared()


def plan(home: Path, name: str, **changes) -> TrialPlan:
    whole = TrialPlan(
        base=spec(home, "unused", **METHOD),
        tasks=evaluation_tasks(ENV, EVALUATION),
        evaluation=EVALUATION,
        env=ENV,
        student=StudentConfig(max_length=4096),
        runtime=RuntimeConfig(),
        inputs={"train bc": "f0"},
        out_dir=str(home / name),
    )
    return replace(whole, **changes)


def measured(metrics: dict) -> dict:
    """All that does not tell of time, or of the work of the last part alone."""
    parts = ("train/padding_share", "train/resumed_at")
    return {k: v for k, v in metrics.items() if "seconds" not in k and k not in parts}


def played(folder: Path) -> list:
    """What the policy did, by task."""
    found = read_trajectories(folder / "evaluation" / "sampled")
    return sorted((t.task.id, [step.token_ids for step in t.steps]) for t in found)


def adapter(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def alone(whole: TrialPlan) -> dict:
    """The trial in a process that has done nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_trial, (SETTINGS, whole))


def test_a_trial_is_the_same_alone_after_others_and_by_way_of_rungs(home):
    fresh = plan(home, "alone")
    by_itself = alone(fresh)
    shared = plan(home, "shared")
    run_trial({"alpha_steps": 0.0, "beta": 1.0, "lora.r": 2}, shared)
    after = run_trial(SETTINGS, shared)
    seen: list[RungResult] = []
    climbing = plan(home, "rungs", rungs=3)
    by_rungs = run_trial(SETTINGS, climbing, seen.append)

    folders = [trial_spec(p, SETTINGS).out_dir for p in (fresh, shared, climbing)]
    assert len({adapter(folder) for folder in folders}) == 1
    assert played(folders[0]) == played(folders[1]) == played(folders[2])
    assert measured(by_itself) == measured(after) == measured(by_rungs)
    assert by_itself["tokens_all"] > 0, "it said nothing, so its decoding shows nothing"
    # The curve too, row by row.
    curves = [(folder / "metrics.jsonl").read_text().splitlines() for folder in folders]
    rows = [[{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in c] for c in curves]
    assert rows[0] == rows[1] == rows[2] and len(rows[0]) == 6

    assert [(r.rung, r.rungs, r.checkpoint is None) for r in seen] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, True),
    ]
    assert [row["step"] for row in read_rungs(folders[2])] == [2, 4, 6]
    assert len({r.metrics["train/loss"] for r in seen}) == 3
    # Of the weights only the adapter stays.
    assert not (folders[2] / "checkpoints").exists() and not (folders[2] / "model").exists()
    assert len(read_table(folders[2] / "evaluation" / "episodes.parquet", Episode)) == 4
    # Done is done; a scheduler that asks again is told what was.
    told: list[RungResult] = []
    assert run_trial(SETTINGS, climbing, told.append) == by_rungs
    assert [r.metrics for r in told] == [r.metrics for r in seen]


class Gone(BaseException):
    """What ends a trial from outside, as a scheduler or a kill does."""


def ending_at(rung: int, seen: list[int]):
    def report(result: RungResult) -> None:
        seen.append(result.rung)
        if result.rung == rung:
            raise Gone

    return report


def test_a_trial_that_was_cut_short_goes_on_from_its_last_rung_and_ends_the_same(home):
    whole = plan(home, "whole", rungs=3)
    expected = run_trial(SETTINGS, whole)
    broken = plan(home, "broken", rungs=3)
    seen: list[int] = []
    with pytest.raises(Gone):
        run_trial(SETTINGS, broken, ending_at(2, seen))
    spec_of = trial_spec(broken, SETTINGS)
    assert seen == [1, 2] and done(spec_of) is None and not (spec_of.out_dir / FAILED).exists()
    # A scheduler stops it there for good, and then another one wants it to go on.
    closed = close_stopped(spec_of)
    assert closed.metrics[STOPPED] == 2 and closed.metrics["tokens_all"] > 0 and closed.rows == 4
    first = read_rungs(spec_of.out_dir)
    again: list[int] = []
    found = run_trial(SETTINGS, broken, lambda r: again.append(r.rung))
    assert again == [1, 2, 3] and read_rungs(spec_of.out_dir)[:2] == first
    assert measured(found) == measured(expected) and STOPPED not in read_manifest(spec_of.out_dir).metrics
    folders = [trial_spec(p, SETTINGS).out_dir for p in (whole, broken)]
    assert adapter(folders[0]) == adapter(folders[1]) and played(folders[0]) == played(folders[1])
    release(folders[1], weights=True)
    assert not (folders[1] / "adapter").exists() and done(spec_of) is not None


def test_a_member_of_a_population_goes_on_from_anothers_weights_with_its_own_settings(home):
    whole = plan(home, "population", rungs=3, population=True)
    found: list[RungResult] = []
    run_trial({"learning_rate": 5e-3, "weight_decay": 0.1}, whole, found.append, member="a")
    start = found[1].checkpoint
    kept = run_trial({"learning_rate": 5e-3, "weight_decay": 0.1}, whole, resume=start, member="b")
    # Unchanged settings from the same weights, optimizer and step: the rest of the way is the same.
    assert measured(kept) == measured(found[2].metrics)
    changed = {"learning_rate": 1e-9, "beta": 1.0}
    told: list[RungResult] = []
    run_trial(changed, whole, told.append, resume=start, member="b")
    assert [r.rung for r in told] == [3]
    folder = trial_spec(whole, changed, start, "b").out_dir
    # A learning rate of nothing leaves the weights where they were taken over.
    moved = spec_weights(start), spec_weights(folder / "adapter")
    assert max((a - b).abs().max().item() for a, b in zip(*moved, strict=True)) < 1e-6
    curve = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in curve] == [1, 2, 3, 4, 5, 6]
    assert curve[3]["learning_rate"] > 1e-3 and curve[4]["learning_rate"] < 1e-8
    with pytest.raises(ConfigError, match="another lora"):
        run_trial({"lora.r": 2}, whole, resume=start, member="c")


def spec_weights(folder: Path) -> list:
    from safetensors.torch import load_file

    found = load_file(folder / "adapter_model.safetensors")
    return [found[name] for name in sorted(found)]


def test_an_engine_that_takes_adapters_needs_no_merged_weights(home):
    lora = GenerationRuntime(vllm=VllmConfig(lora="on", max_lora_rank=8))
    by_adapter = plan(home, "adapters", rungs=2, runtime=RuntimeConfig(generation=lora))
    merged = plan(home, "merged", rungs=2)
    found = [run_trial(SETTINGS, p) for p in (by_adapter, merged)]
    assert measured(found[0]).keys() == measured(found[1]).keys()
    folders = [trial_spec(p, SETTINGS).out_dir for p in (by_adapter, merged)]
    assert adapter(folders[0]) == adapter(folders[1])
    # Merging rounds the weights, so that an episode may part at a near tie; most do not.
    same = [one == other for one, other in zip(*map(played, folders), strict=True)]
    assert sum(same) >= 0.75 * len(same)
    close_shared()


def test_a_failure_is_noted_with_its_root_and_the_next_start_goes_on(home):
    whole = plan(home, "failing", base=replace(spec(home, "unused", **METHOD), samples="nowhere.parquet"))
    with pytest.raises(ConfigError):
        run_trial(SETTINGS, whole)
    note = json.loads((trial_spec(whole, SETTINGS).out_dir / FAILED).read_text())
    assert note["cause"].startswith("nowhere.parquet: no such file") and "Traceback" in note["traceback"]
    mended = replace(whole, base=plan(home, "x").base)
    assert run_trial(SETTINGS, mended)["train/steps"] == 6
    assert not (trial_spec(whole, SETTINGS).out_dir / FAILED).exists()


def test_the_root_of_a_chain_of_errors_is_one_line():
    try:
        try:
            raise OSError(28, "No space left on device", "/x")
        except OSError as error:
            raise RuntimeError("the stage failed\nwith pages") from error
    except RuntimeError as error:
        caught = error
    root = "OSError: [Errno 28] No space left on device: '/x'"
    assert root_cause(caught) == root
    assert root_cause(RayTaskError("f", "pages of traceback", caught)) == root
    assert root_cause(WorkerGroupError("pages", {1: caught})) == root
    assert root_cause(ConfigError("beta: too small")) == "beta: too small"
    assert root_cause(KeyError()) == "KeyError"


def test_full_parameters_are_trained_on_weights_of_their_own(home):
    whole = plan(home, "full", base=spec(home, "unused", **METHOD, full_parameters=True))
    before = run_trial({"beta": 0.5}, whole), run_trial({"beta": 0.6}, whole)
    folder = trial_spec(whole, {"beta": 0.6}).out_dir
    fresh = replace(whole, out_dir=str(home / "full-again"))
    close_shared()
    assert measured(run_trial({"beta": 0.6}, fresh)) == measured(before[1])
    assert gap(folder / "model", trial_spec(fresh, {"beta": 0.6}).out_dir / "model") == 0
