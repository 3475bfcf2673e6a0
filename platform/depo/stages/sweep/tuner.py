"""Ray Tune over the trials of a sweep: searchers, schedulers, and processes that trials share.

What a trial is stands in `trial`, how all of them stand in `ledger`. Tune decides here who
runs and who stops. Its own state is never read again: after a kill its schedulers are told what the trials'
files say, and so decide as before. (Tune restores trials and searchers, but no scheduler.)
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.search import Searcher

from depo.config.schema import SweepConfig
from depo.stages.sweep.failures import FAILED, note_failure
from depo.stages.sweep.ledger import Entry
from depo.stages.sweep.plan import RungResult, TrialPlan
from depo.stages.sweep.proposals import Proposals
from depo.stages.sweep.schedulers import WORST, halving, population_based
from depo.threads import awaited

_POINTER = "pointer.json"

_watching: list[Watcher] = []
"""Who watches the present run. Tune stores its callbacks with its own state, so they hold nothing that cannot
be stored."""

_SETTINGS = {
    # Tune's tables would come between our lines, and its files say nothing that the ledger does not.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A trial that is stopped closes its files; only then may its process take the next.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
}


class TrialFunction(Protocol):
    """`trial.run_trial`, or what stands in for it."""

    def __call__(
        self,
        settings: Mapping[str, Any],
        plan: TrialPlan,
        report: Callable[[RungResult], None] | None = None,
        resume: Path | None = None,
        member: str = "",
    ) -> Mapping[str, float]: ...


class Watcher(Protocol):
    """Who is told, in the driver, what becomes of the trials."""

    @property
    def plan(self) -> TrialPlan: ...

    def starts(self, entry: Entry) -> None: ...

    def reached(self, entry: Entry, rung: int, metrics: Mapping[str, float]) -> None: ...

    def ended(self, entry: Entry, metrics: Mapping[str, float]) -> None: ...

    def failed(self, entry: Entry, error: BaseException | None) -> None: ...

    @property
    def halted(self) -> bool:
        """Whether no trial is worth going on with."""


@dataclass(frozen=True)
class Tuning:
    """What Ray Tune is given."""

    plan: TrialPlan
    config: SweepConfig
    function: TrialFunction
    watcher: Watcher
    storage: Path
    """Folder of Tune's own files."""
    concurrent: int
    """Trials that run at a time."""
    past: Mapping[str, list[dict[str, Any]]]
    """Rungs (`rung` and metrics) of each trial that ended in an earlier start: they are judged by too."""


def search(tuning: Tuning, proposals: Proposals, cpus: float) -> None:
    """Run whatever `proposals` proposes, each trial with so many `cpus`, until it has no more."""
    gpus = tuning.plan.runtime.sweep.gpus_per_trial
    shutil.rmtree(tuning.storage, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(_trainable(tuning), {"cpu": cpus, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=_Asking(proposals),
            scheduler=halving(tuning.config, tuning.past) if tuning.config.scheduler == "asha" else None,
            max_concurrent_trials=tuning.concurrent,
            reuse_actors=True,
        ),
        run_config=_run_config(tuning),
    )
    _fit(tuner, tuning.watcher)


def evolve(tuning: Tuning, population: list[dict[str, Any]], cpus: float) -> None:
    """Train a population, from its beginning: rungs that an earlier start reached take no time.

    `cpus` is what each member asks for, so that no more run at a time than may.
    """
    resources = {"cpu": cpus, "gpu": tuning.plan.runtime.sweep.gpus_per_trial}
    members = [{"settings": settings, "member": f"member{n}"} for n, settings in enumerate(population)]
    shutil.rmtree(tuning.storage, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(_trainable(tuning), resources),
        param_space={"job": tune.grid_search(members)},
        tune_config=tune.TuneConfig(
            scheduler=population_based(tuning.config),
            reuse_actors=True,
            trial_name_creator=_member_name,
            trial_dirname_creator=_member_name,
        ),
        run_config=_run_config(tuning),
    )
    _fit(tuner, tuning.watcher)


def _fit(tuner: tune.Tuner, watcher: Watcher) -> None:
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    _watching.append(watcher)
    # What failed is told by the watcher, in a line.
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        awaited(tuner.fit, "sweep")
    finally:
        logger.setLevel(level)
        _watching.pop()


def _run_config(tuning: Tuning) -> tune.RunConfig:
    return tune.RunConfig(
        name="tune",
        storage_path=str(tuning.storage),
        verbose=0,
        callbacks=[_Telling()],
        stop=_Halt(),
    )


def _trainable(tuning: Tuning) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What runs in Tune's processes, one trial after another."""
    plan, config, function = tuning.plan, tuning.config, tuning.function

    def trial(job: dict[str, Any]) -> dict[str, Any]:
        context = tune.get_context()
        work = _Work(plan, config, *_entry(plan, job["job"], context.get_trial_name(), tune.get_checkpoint()))
        resume = Path(work.entry.resume) if work.entry.resume else None
        try:
            metrics = function(
                work.entry.settings, plan, report=work.report, resume=resume, member=work.entry.member
            )
        except Exception as error:
            # Noted here, where the whole chain of errors is still known.
            out_dir = work.entry.spec(plan).out_dir
            if not (out_dir / FAILED).is_file():
                note_failure(out_dir, error)
            raise
        # No rung of its own: the last is nobody's to judge, and the trial has its manifest by now.
        return work.row(max(1, plan.rungs - 1), metrics) | {"over": True}

    return trial


def _entry(
    plan: TrialPlan, job: Mapping[str, Any], name: str, checkpoint: tune.Checkpoint | None
) -> tuple[Entry, int]:
    """A trial as proposed, or as the population has come to it, and the rung where it goes on."""
    settings = dict(job["settings"])
    if not plan.population:
        return Entry(settings), 0
    entry, rung = Entry(settings, member=name), 0
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            pointer = json.loads((Path(folder) / _POINTER).read_text())
        before, rung = Entry(**pointer["entry"]), pointer["rung"]
        if before.member == name and before.settings == settings:
            return before, rung
        entry = Entry(settings, resume=pointer["checkpoint"], member=name)
    return replace(entry, folder=entry.spec(plan).out_dir.name), rung


@dataclass(frozen=True)
class _Work:
    """One trial inside its process."""

    plan: TrialPlan
    config: SweepConfig
    entry: Entry
    reached: int
    """The rung that Tune knows of; a trial that goes on reports the earlier ones again."""

    def report(self, result: RungResult) -> None:
        """Tell Tune of a rung; does not return where Tune stops the trial there."""
        if result.rung >= result.rungs or result.rung <= self.reached:
            return
        row = self.row(result.rung, result.metrics)
        if result.checkpoint is None or not self.plan.population:
            tune.report(row)
            return
        with tempfile.TemporaryDirectory() as folder:
            pointer = {
                "entry": asdict(self.entry), "checkpoint": str(result.checkpoint), "rung": result.rung,
            }  # fmt: skip
            (Path(folder) / _POINTER).write_text(json.dumps(pointer))
            tune.report(row, checkpoint=tune.Checkpoint.from_directory(folder))

    def row(self, rung: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """What Tune and the driver learn of a rung."""
        name, mode = self.config.judged_by
        worst = WORST if mode == "min" else -WORST
        # ASHA's rungs lie at powers of its reduction; ours follow each other at equal distances.
        judged = rung if self.plan.population else self.config.reduction ** (rung - 1)
        return {
            "judged": judged,
            "score": metrics.get(name, worst),
            "rung": rung,
            "measured": dict(metrics),
            "entry": asdict(self.entry),
            "over": False,
        }


class _Asking(Searcher):  # type: ignore[misc]
    """Tune's view of `Proposals`. The ledger knows all there is to restore, so this saves nothing."""

    def __init__(self, proposals: Proposals) -> None:
        super().__init__()
        self._proposals = proposals
        self._running: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> Any:
        settings = self._proposals.ask()
        if settings is None:
            return Searcher.FINISHED
        self._running[trial_id] = settings
        return {"job": {"settings": settings}}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        settings = self._running.pop(trial_id, None)
        if settings is not None:
            self._proposals.tell(settings, None if error else (result or {}).get("measured"))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


class _Telling(tune.Callback):  # type: ignore[misc]
    """Passes on to the watcher what happens to the trials."""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.checkpoint is None:
            _watching[-1].starts(self._of(trial))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if not result["over"]:
            _watching[-1].reached(Entry(**result["entry"]), result["rung"], result["measured"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        measured = (trial.last_result or {}).get("measured", {})
        _watching[-1].ended(self._of(trial), measured)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _watching[-1].failed(self._of(trial), trial.get_error())

    def _of(self, trial: Any) -> Entry:
        return _entry(_watching[-1].plan, trial.config["job"], str(trial), trial.checkpoint)[0]


class _Halt(tune.Stopper):  # type: ignore[misc]
    """Ends the whole sweep once the watcher sees no sense in it."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return _watching[-1].halted


def _member_name(trial: Any) -> str:
    return str(trial.config["job"]["member"])
