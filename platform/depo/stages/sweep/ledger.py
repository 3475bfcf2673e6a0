"""The platform's own record of a sweep: which trials there are, how each stands, and which are the best.

A trial's own files (manifest, rungs, failure) say how it stands, so nothing here can contradict them. The
ledger's file holds what they cannot: the settings that a searcher or a population came to.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from depo.config.base import ConfigError
from depo.config.schema import SweepConfig
from depo.data.store import write_atomic
from depo.records import Manifest, content_hash
from depo.stages.base import StageSpec, done, read_manifest
from depo.stages.sweep.failures import FAILED
from depo.stages.sweep.plan import STOPPED, TRIALS, TrialPlan, read_rungs, trial_spec
from depo.stages.sweep.trial import release

VERSION = 1
RESULTS = "results.json"
State = Literal["done", "stopped", "failed", "missing"]


@dataclass(frozen=True)
class Entry:
    """A trial as it is to be run."""

    settings: dict[str, Any]
    resume: str | None = None
    """The checkpoint of another trial that it goes on from."""
    member: str = ""
    """Which of a population it is."""
    folder: str = ""
    """Name of its directory, where that cannot be told again: a checkpoint does not stay for ever."""

    def spec(self, plan: TrialPlan) -> StageSpec:
        """The stage that the trial is."""
        resume = Path(self.resume) if self.resume else None
        return trial_spec(plan, self.settings, resume, self.member)


@dataclass(frozen=True)
class Standing:
    """A trial as it stands on disk."""

    entry: Entry
    state: State
    out_dir: Path
    manifest: Manifest | None = None
    error: str = ""
    """Root cause of a failure, one line."""

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured; nothing of a trial that did not end."""
        measured = self.manifest.metrics if self.manifest else {}
        return {k: v for k, v in measured.items() if k != STOPPED}

    @property
    def kept(self) -> bool:
        """Whether its weights are on disk."""
        return self.state == "done" and any((self.out_dir / f).is_dir() for f in ("adapter", "model"))


class Ledger:
    """The settings that a searcher or a population came to, in a file beside the trials.

    One identity, one file: a sweep that comes back with its configuration finds its own again.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.identity = identity
        self.path = folder / f"ledger-{identity}.json"
        self.entries: list[Entry] = []
        self.complete = False
        """Whether the population went through to its end."""
        if not self.path.is_file():
            return
        try:
            stored = json.loads(self.path.read_text())
            version = stored["version"]
            if version == VERSION:
                self.entries = [Entry(**entry) for entry in stored["entries"]]
                self.complete = stored["complete"]
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise ConfigError(
                f"{self.path}: no ledger of trials ({type(error).__name__}); delete it, finished trials stay"
            ) from None
        if version != VERSION:
            raise ConfigError(
                f"{self.path}: ledger version {version}, this depo reads {VERSION}; go on with the one that "
                "wrote it, or delete the file: finished trials stay"
            )

    def add(self, entry: Entry) -> None:
        """Note a trial before it starts; one that stands there already is not noted twice."""
        if entry not in self.entries:
            self.entries.append(entry)
            self.save()

    def save(self) -> None:
        entries = [asdict(entry) for entry in self.entries]
        stored = {"version": VERSION, "complete": self.complete, "entries": entries}
        write_atomic(self.path, json.dumps(stored, indent=1))


def sweep_identity(plan: TrialPlan, config: SweepConfig) -> str:
    """What a searcher's choices depend on; the same for as long as they are worth going on with."""
    base = trial_spec(plan, {})
    chosen = config.model_dump(mode="json", include={"searcher", "scheduler", "objectives", "seed", "space"})
    if config.scheduler == "pbt":
        chosen["trials"] = config.trials
    return content_hash([base.config, dict(base.inputs), chosen], length=8)


def standing(plan: TrialPlan, entry: Entry) -> Standing:
    """How a trial stands, by its own files."""
    if entry.folder:
        out_dir = Path(plan.out_dir) / TRIALS / entry.folder
        manifest = read_manifest(out_dir)
    else:
        spec = entry.spec(plan)
        out_dir, manifest = spec.out_dir, done(spec)
    if manifest is not None:
        state: State = "stopped" if STOPPED in manifest.metrics else "done"
        return Standing(entry, state, out_dir, manifest)
    if (out_dir / FAILED).is_file():
        return Standing(entry, "failed", out_dir, error=_cause(out_dir / FAILED))
    return Standing(entry, "missing", out_dir)


def ordered(trials: Sequence[Standing], config: SweepConfig) -> list[int]:
    """Numbers of the finished trials that the first objective can judge, the best first."""
    metric, mode = config.judged_by
    sign = 1 if mode == "min" else -1
    judged = [n for n, t in enumerate(trials) if t.state == "done" and _measured(t, metric)]
    return sorted(judged, key=lambda n: sign * trials[n].metrics[metric])


def pareto(trials: Sequence[Standing], config: SweepConfig) -> set[int]:
    """Numbers of the finished trials that no other beats: as good in all objectives, and better in one."""
    signs = [1 if mode == "min" else -1 for mode in config.objectives.values()]
    points = {
        number: [sign * t.metrics[name] for sign, name in zip(signs, config.objectives, strict=True)]
        for number, t in enumerate(trials)
        if t.state == "done" and all(_measured(t, name) for name in config.objectives)
    }
    return {
        number
        for number, mine in points.items()
        if not any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in points.values()
        )
    }


def results(
    name: str, config: SweepConfig, trials: Sequence[Standing], rungs: int, seconds: float
) -> dict[str, Any]:
    """The machine-readable answer of a sweep, `results.json`; `seconds` of wall time over all starts."""
    order, front = ordered(trials, config), pareto(trials, config)
    dumped = config.model_dump(mode="json")
    return {
        "version": VERSION,
        "name": name,
        **{key: dumped[key] for key in ("method", "space", "searcher", "scheduler")},
        "rungs": rungs,
        "objectives": dumped["objectives"],
        "tasks": config.tasks,
        "split": "validation",
        "seconds": round(seconds, 1),
        "trials": [_row(t, rungs, number in front) for number, t in enumerate(trials)],
        "best": order[0] if order else None,
    }


def write_results(folder: Path, found: Mapping[str, Any]) -> None:
    """Write `results.json`, whole or not at all."""
    write_atomic(folder / RESULTS, json.dumps(found, indent=1))


def prune(trials: Sequence[Standing], config: SweepConfig) -> None:
    """Bound the disk: of trials that are over only the adapters of the best `keep` stay.

    An adapter and what it was trained on top of make the policy again; a trial that trained all weights
    keeps these instead.
    """
    kept = range(len(trials)) if config.keep is None else ordered(trials, config)[: config.keep]
    best = {number for number in kept if trials[number].state == "done"}
    for number, trial in enumerate(trials):
        if trial.state in ("done", "stopped"):
            release(trial.out_dir, weights=number not in best)


def _row(trial: Standing, rungs: int, front: bool) -> dict[str, Any]:
    reached = read_rungs(trial.out_dir) if trial.state != "done" else []
    row = {
        "settings": trial.entry.settings,
        "state": trial.state,
        "metrics": {
            k: v for k, v in trial.metrics.items() if isinstance(v, int | float) and math.isfinite(v)
        },
        "rung": rungs if trial.state == "done" else len(reached),
        "seconds": trial.manifest.seconds if trial.manifest else sum(r.get("seconds", 0.0) for r in reached),
        "error": trial.error,
        "dir": os.path.join(*trial.out_dir.parts[-2:]),
        "kept": trial.kept,
        "pareto": front,
    }
    if trial.entry.resume:
        row["resumed_from"] = os.path.join(*Path(trial.entry.resume).parts[-4:])
    return row


def _measured(trial: Standing, metric: str) -> bool:
    value = trial.metrics.get(metric)
    return isinstance(value, int | float) and math.isfinite(value)


def _cause(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["cause"])
    except (ValueError, KeyError, OSError):
        return "failed; its note cannot be read"
