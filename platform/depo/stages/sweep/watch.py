"""Follows a sweep's trials from the driver: a line for each, `results.json`, the mirror, the disk."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.config.schema import SweepConfig
from depo.stages.mirror_sweep import SweepMirror
from depo.stages.progress import say
from depo.stages.sweep.failures import FAILED, note_failure
from depo.stages.sweep.ledger import (
    RESULTS,
    Entry,
    Ledger,
    Standing,
    prune,
    results,
    standing,
    sweep_identity,
    write_results,
)
from depo.stages.sweep.plan import TrialPlan, read_rungs
from depo.stages.sweep.proposals import key_of
from depo.stages.sweep.trial import close_stopped, run_trial
from depo.stages.sweep.tuner import TrialFunction

_LOST = "its process was lost (killed, or out of memory)"
_FULL = ("No space left on device", "Disk quota exceeded")
_LEAST_FREE = 8 * 2**20


@dataclass(frozen=True)
class Sweep:
    """A sweep as it is to be run."""

    name: str
    plan: TrialPlan
    config: SweepConfig
    mirror: SweepMirror | None = None
    function: TrialFunction = run_trial
    """What a trial does."""
    say: Callable[[str], None] = say

    @property
    def folder(self) -> Path:
        """Where the trials, the ledger and the results lie."""
        return Path(self.plan.out_dir)

    def ledger(self) -> Ledger:
        """The settings that earlier starts came to."""
        return Ledger(self.folder, sweep_identity(self.plan, self.config))


class Watch:
    """How a sweep's trials stand, and who is told of it; a `tuner.Watcher`."""

    def __init__(self, sweep: Sweep, ledger: Ledger, entries: Sequence[Entry]) -> None:
        self.sweep, self.plan, self._ledger = sweep, sweep.plan, ledger
        self._started: float | None = None
        self._before = _seconds_before(sweep.folder)
        self._standings = {_key(e): standing(self.plan, e) for e in entries}
        self._halt = ""
        self.lost: list[Entry] = []
        """Trials whose process was lost; whoever starts them again clears it."""
        config = sweep.config
        self.total = (config.size if config.searcher == "grid" else config.trials) or 0
        """Trials there are to be; of a population its members."""

    def trials(self) -> list[Standing]:
        """All trials as they stood last."""
        return list(self._standings.values())

    def over(self) -> list[Standing]:
        """Trials that need not run again."""
        return [t for t in self.trials() if t.state in ("done", "stopped")]

    def unfinished(self) -> list[Standing]:
        """Trials that are known and not over."""
        return [t for t in self.trials() if t.state in ("failed", "missing")]

    @property
    def halted(self) -> bool:
        """Whether no trial is worth going on with."""
        return bool(self._halt)

    def raise_halt(self) -> None:
        """Raise `ConfigError` where the sweep was ended before its time."""
        if self._halt:
            raise ConfigError(self._halt)

    def proposed(self, entry: Entry) -> None:
        """A searcher came to a further trial."""
        self._ledger.add(entry)
        self._stands(entry)

    def starts(self, entry: Entry) -> None:
        """A process takes the trial."""
        self._started = self._started or time.monotonic()
        (entry.spec(self.plan).out_dir / FAILED).unlink(missing_ok=True)
        self._stands(entry)
        self.sweep.say(f"[sweep] {_shown(entry)} starts")

    def reached(self, entry: Entry, rung: int, metrics: Mapping[str, float]) -> None:
        """The trial was evaluated at a rung before its last."""
        self._started = self._started or time.monotonic()
        if self.plan.population:
            self._ledger.add(entry)
            self._stands(entry)
        self.sweep.say(f"[sweep] {_shown(entry)} · rung {rung}/{self.plan.rungs} · {self._numbers(metrics)}")

    def ended(self, entry: Entry, metrics: Mapping[str, float]) -> None:
        """The trial came to its end, or a scheduler stopped it."""
        if self.halted:
            return
        if standing(self.plan, entry).state == "missing":
            self.close(entry)
        elif self.plan.population:
            self._ledger.add(entry)
        trial = self._stands(entry)
        stopped = f"stopped at rung {len(read_rungs(trial.out_dir))} · " if trial.state == "stopped" else ""
        self.sweep.say(f"[sweep] {self._count()} · {_shown(entry)} · {stopped}{self._numbers(metrics)}")
        if trial.manifest is not None:
            if self.sweep.mirror is not None:
                self.sweep.mirror.trial(entry.settings, trial.manifest, trial.out_dir)
            self._check_measured(trial)
        self.write()
        if not self.plan.population:
            prune(self.trials(), self.sweep.config)

    def close(self, entry: Entry) -> None:
        """Close a trial that was stopped at a rung."""
        spec = entry.spec(self.plan)
        if read_rungs(spec.out_dir):
            close_stopped(spec)
        self._stands(entry)

    def failed(self, entry: Entry, error: BaseException | None) -> None:
        """The trial raised `error`, or its process was lost."""
        out_dir = entry.spec(self.plan).out_dir
        if not (out_dir / FAILED).is_file():
            # It could not say so itself: its process is gone, or the disk is full.
            self.lost.append(entry)
            note_failure(out_dir, RuntimeError(_LOST))
        if self.plan.population:
            self._ledger.add(entry)
        trial = self._stands(entry)
        cause = trial.error or "its failure could not be noted"
        self.sweep.say(f"[sweep] {self._count()} · {_shown(entry)} · FAILED: {cause}")
        if self.sweep.mirror is not None:
            self.sweep.mirror.failed(out_dir.name, entry.settings, cause)
        if is_full(self.sweep.folder, f"{cause} {error}"):
            self._halt = full_text(self.sweep.folder)
        else:
            self.write()

    def write(self) -> dict[str, Any]:
        """Write `results.json` as things stand."""
        # A start that finds nothing to do takes no time, so that it changes nothing.
        own = time.monotonic() - self._started if self._started is not None else 0.0
        seconds, sweep = self._before + own, self.sweep
        found = results(sweep.name, sweep.config, self.trials(), self.plan.rungs, seconds)
        write_results(sweep.folder, found)
        return found

    def _stands(self, entry: Entry) -> Standing:
        self._standings[_key(entry)] = trial = standing(self.plan, entry)
        return trial

    def _check_measured(self, trial: Standing) -> None:
        """An objective that never comes is told at once; what training does not log, no other trial will."""
        for name in self.sweep.config.objectives:
            if name in trial.metrics or trial.state != "done":
                continue
            text = f"sweep.objectives.{name}: trial {_shown(trial.entry)} ended without it; it has "
            if name.startswith("train/"):
                there = [m for m in trial.metrics if m.startswith("train/")]
                self._halt = f"{text}{', '.join(there) or 'no train/ metric'}: name one of these"
            else:
                self.sweep.say(f"[sweep] {text}{', '.join(trial.metrics) or 'nothing'}")

    def _count(self) -> str:
        ended = sum(t.state != "missing" for t in self.trials())
        if self.plan.population:
            # What a member was before it went on from another's weights is no further member.
            ended = len({t.entry.member for t in self.trials() if t.state in ("done", "failed")})
        return f"{ended}/{self.total} {'members' if self.plan.population else 'trials'}"

    def _numbers(self, metrics: Mapping[str, float]) -> str:
        names = dict.fromkeys([*self.sweep.config.objectives, "success", "tokens_all", "steps_all"])
        return " ".join(f"{name} {metrics[name]:.4g}" for name in names if name in metrics)


def is_full(folder: Path, error: object) -> bool:
    """Whether it was for want of room on the disk that something failed."""
    said = any(text in str(error) for text in _FULL)
    return said or shutil.disk_usage(folder).free < _LEAST_FREE


def full_text(folder: Path) -> str:
    """The line for a disk that is full."""
    free = shutil.disk_usage(folder).free / 2**20
    return (
        f"{folder}: the disk is full ({free:,.0f} MiB free); free some space, or lower sweep.keep, and run "
        "the same command again: finished trials stay"
    )


def _seconds_before(folder: Path) -> float:
    """Wall time of earlier starts, as far as their results tell."""
    try:
        return float(json.loads((folder / RESULTS).read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _key(entry: Entry) -> str:
    return entry.folder or key_of(entry.settings)


def _shown(entry: Entry) -> str:
    settings = " ".join(f"{key}={value}" for key, value in entry.settings.items())
    return f"{entry.member} {settings}" if entry.member else settings
