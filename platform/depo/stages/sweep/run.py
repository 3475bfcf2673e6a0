"""A sweep: Ray Tune over one method's settings, each trial trained and tried on validation tasks.

What lies left of the method (data, pi_BC, reference log-probs) is computed once and shared. A trial
is a stage of its own, named by its settings, so a sweep started again does only what is missing:
finished trials are known by their manifests, failed ones are tried again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._private.state import state as cluster_state

from depo.config.base import ConfigError
from depo.report.paper import paper_rows
from depo.report.sweep import sweep_text, write_sweep
from depo.stages.cluster import connect
from depo.stages.sweep import preflight, tuner
from depo.stages.sweep.ledger import Entry, Ledger, Standing, prune
from depo.stages.sweep.plan import read_rungs
from depo.stages.sweep.proposals import Learning, Listed, Noted, Proposals, combinations, draws, within
from depo.stages.sweep.watch import Sweep, Watch, full_text, is_full

_MANY_NODES = 64


def check(job: Sweep) -> None:
    """Refuse now what could never be scheduled, before hours go into what the trials rest on.

    Raises `ConfigError`, also for a ledger of another version.
    """
    ledger = job.ledger()
    watch = Watch(job, ledger, _entries(job, ledger))
    if not ledger.complete and len(watch.over()) < watch.total:
        connect(job.plan.runtime)
        _preflight(job, watch)


def sweep(job: Sweep) -> dict[str, Any]:
    """Run every trial that is not over; the sweep's `results.json` as it then stands.

    Trials that fail don't stop the others. Raises `ConfigError`, one line each: for trials that could never
    be scheduled, a full disk, an objective that training never logs, a store of another version. What was
    finished by then stays, and `results.json` knows it.
    """
    ledger = job.ledger()
    watch = Watch(job, ledger, _entries(job, ledger))
    over = watch.total if ledger.complete else len(watch.over())
    job.say(f"[sweep] {watch.total} trials over {', '.join(job.config.space)}, {over} of them over")
    with _in_one_line(watch):
        if over < watch.total:
            connect(job.plan.runtime)
            try:
                (_evolve if job.plan.population else _search)(job, ledger, watch)
            finally:
                shutil.rmtree(_storage(job), ignore_errors=True)
        watch.raise_halt()
        if ledger.complete or not job.plan.population:
            prune(watch.trials(), job.config)
        return watch.write()


def show(folder: Path, found: Mapping[str, Any], env: str) -> str:
    """Write the sweep's page, table and figure; the sweep as text, and where they are."""
    paper = paper_rows(env, list(found["space"]))
    files = write_sweep(folder, found, paper)
    return "\n".join([sweep_text(found, paper), *(f"{kind}: {path}" for kind, path in files.items())])


def _entries(job: Sweep, ledger: Ledger) -> list[Entry]:
    """The trials that are known before any runs."""
    config = job.config
    if job.plan.population:
        return ledger.entries
    if config.searcher == "optuna":
        return [entry for entry in ledger.entries if within(config, entry.settings)][: config.trials]
    settings = combinations(config) if config.searcher == "grid" else draws(config, config.trials or 0)
    return [Entry(chosen) for chosen in settings]


def _search(job: Sweep, ledger: Ledger, watch: Watch) -> None:
    """Trials that stand by themselves; those whose process was lost are started again."""
    concurrent, cpus, text = _preflight(job, watch)
    job.say(f"[sweep] {text}")
    for _ in _starts(job, watch, "are started again"):
        over = watch.over()
        past = {t.out_dir.name: read_rungs(t.out_dir) for t in over}
        todo = [t.entry.settings for t in watch.unfinished()]
        tuning = tuner.Tuning(job.plan, job.config, job.function, watch, _storage(job), concurrent, past)
        tuner.search(tuning, _proposals(job, watch, over, todo), cpus)


def _proposals(job: Sweep, watch: Watch, over: Sequence[Standing], todo: list[dict[str, Any]]) -> Proposals:
    if job.config.searcher != "optuna":
        return Listed(todo)
    learning = Learning(job.config, known=len(over) + len(todo))
    for trial in over:
        learning.tell(trial.entry.settings, trial.metrics)
    for settings in todo:
        learning.take(settings)
    return Noted(todo, learning, lambda settings: watch.proposed(Entry(settings)))


def _evolve(job: Sweep, ledger: Ledger, watch: Watch) -> None:
    """A population, whose members take turns where there is no room for all at a time."""
    config = job.config
    concurrent, cpus, text = _preflight(job, watch)
    job.say(f"[sweep] {text}")
    room = config.size is None or config.size >= watch.total
    tuning = tuner.Tuning(job.plan, config, job.function, watch, _storage(job), concurrent, {})
    for _ in _starts(job, watch, "go on from their last rung"):
        tuner.evolve(tuning, draws(config, watch.total, distinct=room), cpus)
    if watch.halted or any(t.state == "failed" for t in watch.trials()):
        return
    for trial in watch.unfinished():
        # What a member was before it went on from another's weights.
        watch.close(trial.entry)
    ledger.complete = True
    ledger.save()


def _preflight(job: Sweep, watch: Watch) -> tuple[int, float, str]:
    """(trials at a time, CPUs that each asks for, the line that says so)."""
    runtime, nodes, population = job.plan.runtime, _nodes(), job.plan.population
    trials = watch.total if population else watch.total - len(watch.over())
    concurrent, text = preflight.preflight(runtime, nodes, trials)
    if population:
        return concurrent, preflight.member_cpus(runtime, nodes, trials, concurrent), text
    return concurrent, 0.01 if runtime.sweep.distributed else runtime.sweep.cpus_per_trial, text


def _starts(job: Sweep, watch: Watch, what: str) -> Iterator[None]:
    """Once, and again for as long as trials lost their process and `runtime.sweep.max_failures` allows."""
    for left in range(job.plan.runtime.sweep.max_failures, -1, -1):
        watch.lost.clear()
        yield
        if not watch.lost or watch.halted:
            return
        if left:
            job.say(f"[sweep] trials that lost their process {what}: {len(watch.lost)}")


def _nodes() -> list[preflight.Bundle]:
    """The cluster's nodes, and those that an autoscaler may start."""
    config = cluster_state.get_cluster_config()
    groups = [
        (
            preflight.Bundle(group.resources.get("CPU", 0), group.resources.get("GPU", 0)),
            group.max_count if group.max_count >= 0 else _MANY_NODES,
        )
        for group in (config.node_group_configs if config is not None else ())
    ]
    return preflight.nodes_of(ray.nodes(), groups)


def _storage(job: Sweep) -> Path:
    """Folder of Ray Tune's own files, while it is at work."""
    return job.folder / "ray"


@contextmanager
def _in_one_line(watch: Watch) -> Iterator[None]:
    """Say in one line what ended the sweep before its time, and a full disk whatever came of it."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        # Where nothing can be written, Ray Tune breaks off in the most diverse ways.
        watch.raise_halt()
        if is_full(watch.sweep.folder, error):
            raise ConfigError(full_text(watch.sweep.folder)) from None
        raise
