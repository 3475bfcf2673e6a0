"""How a sweep's trials stand, which are the best, what stays on disk."""

import json
import time
from pathlib import Path

import pytest

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.config.schema import EnvConfig, EvaluationConfig, MethodConfig, StudentConfig, SweepConfig
from depo.stages.base import Outcome, begin, finish
from depo.stages.sweep.failures import note_failure
from depo.stages.sweep.ledger import Entry, Ledger, ordered, pareto, prune, results, standing, sweep_identity
from depo.stages.sweep.plan import CHECKPOINTS, RUNGS, TrialPlan
from depo.stages.sweep.trial import close_stopped
from depo.stages.sweep.watch import Sweep, Watch
from depo.training.spec import TrainSpec

GRID = SweepConfig(
    space={"beta": [0.1, 0.2, 0.3, 0.4, 0.5]}, objectives={"tokens_all": "min", "success": "max"}, rungs=2
)


@pytest.fixture
def plan(tmp_path) -> TrialPlan:
    base = TrainSpec(MethodConfig(objective="depo"), "", "", "", "", dtype="float32", max_length=256)
    return TrialPlan(
        base,
        (),
        EvaluationConfig(),
        EnvConfig(),
        StudentConfig(),
        RuntimeConfig(),
        {},
        str(tmp_path),
        rungs=2,
    )


def weights(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "weights").write_text("w")


def trained(plan: TrialPlan, beta: float, tokens: float, success: float = 0.5, adapter: bool = True) -> Entry:
    """A finished trial with all that it leaves on disk."""
    entry = Entry({"beta": beta})
    spec = entry.spec(plan)
    begin(spec)
    weights(spec.out_dir, "model", CHECKPOINTS, *(["adapter"] if adapter else []))
    finish(spec, Outcome(1, metrics={"tokens_all": tokens, "success": success}), time.time())
    return entry


def stopped(plan: TrialPlan, beta: float) -> Entry:
    entry = Entry({"beta": beta})
    spec = entry.spec(plan)
    begin(spec)
    weights(spec.out_dir, CHECKPOINTS)
    row = {"rung": 1, "rungs": 2, "step": 3, "seconds": 4.0, "episodes": 1, "tokens_all": 1.0, "success": 1.0}
    (spec.out_dir / RUNGS).write_text(json.dumps(row) + "\n")
    close_stopped(spec)
    return entry


def failed(plan: TrialPlan, beta: float) -> Entry:
    entry = Entry({"beta": beta})
    note_failure(entry.spec(plan).out_dir, FileNotFoundError("no such table"))
    return entry


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_each_trial_stands_as_its_own_files_say(plan):
    entries = [
        trained(plan, 0.1, 30),
        trained(plan, 0.2, 20),
        stopped(plan, 0.3),
        failed(plan, 0.4),
        Entry({"beta": 0.5}),
    ]
    found = results("s", GRID, [standing(plan, e) for e in entries], 2, 12.34)
    rows = found["trials"]
    assert [row["state"] for row in rows] == ["done", "done", "stopped", "failed", "missing"]
    assert [row["rung"] for row in rows] == [2, 2, 1, 0, 0]
    assert [row["error"] for row in rows] == ["", "", "", "FileNotFoundError: no such table", ""]
    assert rows[2]["metrics"] == {"tokens_all": 1.0, "success": 1.0}
    assert rows[2]["seconds"] == pytest.approx(4, abs=1)
    # Fewest tokens of those that came to their end; what was stopped is no answer.
    assert found["best"] == 1
    assert [row["pareto"] for row in rows] == [False, True, False, False, False]
    assert all((Path(plan.out_dir) / row["dir"]).parent.name == "trials" for row in rows)
    assert found["space"] == {"beta": [0.1, 0.2, 0.3, 0.4, 0.5]}
    assert found["objectives"] == {"tokens_all": "min", "success": "max"}
    assert json.loads(json.dumps(found)) == found


def test_the_pareto_set_holds_who_is_beaten_by_nobody(plan):
    points = [(10, 0.2), (20, 0.5), (20, 0.4), (30, 0.5), (10, 0.2), (float("nan"), 1.0)]
    trials = [standing(plan, trained(plan, 0.1 + n, *point)) for n, point in enumerate(points)]
    assert pareto(trials, GRID) == {0, 1, 4}
    assert ordered(trials, GRID) == [0, 4, 1, 2, 3]
    up = SweepConfig(space=GRID.space, objectives={"success": "max"})
    assert ordered(trials, up)[0] == 5


def test_a_trial_whose_settings_or_inputs_changed_is_missing(plan):
    entry = trained(plan, 0.1, 30)
    other = TrialPlan(**{**vars(plan), "inputs": {"train bc": "new"}})
    assert standing(plan, entry).state == "done"
    assert standing(other, entry).state == "missing"
    assert sweep_identity(plan, GRID) != sweep_identity(other, GRID)


@pytest.mark.parametrize(("keep", "left"), [(1, 1), (3, 3), (None, 4)])
def test_only_adapters_of_the_best_stay(plan, keep, left):
    entries = [trained(plan, number / 10, tokens) for number, tokens in enumerate([30, 10, 20, 40], 1)]
    entries.append(stopped(plan, 0.5))
    config = GRID.model_copy(update={"keep": keep})
    prune([standing(plan, e) for e in entries], config)
    trials = [standing(plan, e) for e in entries]
    assert [sorted(names(t.out_dir)) for t in trials if t.kept] == [["adapter"]] * left
    assert all(names(t.out_dir) == set() for t in trials if not t.kept)
    assert trials[1].kept and all(t.manifest for t in trials)


def test_all_weights_stay_where_there_is_no_adapter_to_make_them_from(plan):
    entry = trained(plan, 0.1, 30, adapter=False)
    prune([standing(plan, entry)], GRID)
    assert names(standing(plan, entry).out_dir) == {"model"}


def test_a_failed_trial_keeps_what_it_may_go_on_from(plan):
    entry = failed(plan, 0.1)
    weights(entry.spec(plan).out_dir, CHECKPOINTS)
    prune([standing(plan, entry)], GRID.model_copy(update={"keep": 1}))
    assert names(entry.spec(plan).out_dir) == {CHECKPOINTS}


def test_the_ledger_is_read_back_and_an_unreadable_one_is_named(tmp_path):
    ledger = Ledger(tmp_path, "abc")
    entries = [Entry({"beta": 0.1, "kl": "zero"}), Entry({"beta": 1}, "there/checkpoint-3", "member1", "dir")]
    for entry in [*entries, entries[0]]:
        ledger.add(entry)
    assert Ledger(tmp_path, "abc").entries == entries
    assert Ledger(tmp_path, "other").entries == []
    for text, message in (
        ('{"version": 99, "entries": []}', r"ledger version 99, this depo reads 1; .* finished trials stay"),
        ("{", r"ledger-abc\.json: no ledger of trials \(JSONDecodeError\); delete it"),
        ('{"version": 1}', r"no ledger of trials \(KeyError\)"),
        ('{"version": 1, "complete": false, "entries": [{"set": 1}]}', r"no ledger of trials \(TypeError\)"),
    ):
        ledger.path.write_text(text)
        with pytest.raises(ConfigError, match=message) as caught:
            Ledger(tmp_path, "abc")
        assert "\n" not in str(caught.value)


def test_a_full_disk_ends_the_sweep_in_one_line_and_leaves_what_is_finished(plan):
    said: list[str] = []
    sweep = Sweep("s", plan, GRID, say=said.append)
    entries = [trained(plan, 0.1, 30), Entry({"beta": 0.2})]
    watch = Watch(sweep, sweep.ledger(), entries)
    watch.failed(entries[1], OSError(28, "No space left on device"))
    assert watch.halted
    with pytest.raises(
        ConfigError, match=r"the disk is full .* run the same command again: finished trials stay"
    ):
        watch.raise_halt()
    assert standing(plan, entries[0]).state == "done"
    assert "FAILED" in said[0]


def test_a_metric_that_one_trial_lacks_is_told_with_what_there_is(plan):
    said: list[str] = []
    config = GRID.model_copy(update={"objectives": {"tokens_success": "min"}})
    sweep = Sweep("s", plan, config, say=said.append)
    entry = trained(plan, 0.1, 30)
    watch = Watch(sweep, sweep.ledger(), [])
    watch.ended(entry, {})
    assert not watch.halted
    assert said[-1] == (
        "[sweep] sweep.objectives.tokens_success: trial beta=0.1 ended without it; it has tokens_all, success"
    )
    assert json.loads((Path(plan.out_dir) / "results.json").read_text())["best"] is None
