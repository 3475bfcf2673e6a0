"""`depo report`: the report of one run, or several finished runs side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from depo.commands.base import announce, talking, typed
from depo.config.base import ConfigError
from depo.config.load import load_config
from depo.config.schema import ExperimentConfig

if TYPE_CHECKING:
    from depo.report.runs import FinishedRun

_LONGEST_NAME = 120


def report(options: argparse.Namespace) -> int:
    if len(options.runs) > 1:
        return _several(options)
    if options.out is not None:
        options.misused("--out goes with several runs; the report of one is written into its run directory")
    return _one(options)


def _one(options: argparse.Namespace) -> int:
    """The report stage and what it needs; a report that is done is written anew."""
    from depo.pipeline import build, locked, run

    experiment = build(_load(options.runs[0], options.overrides)[0])
    with talking(options):
        if not run(experiment, ["report"], announce=announce):
            with locked(experiment.run_dir):
                experiment.nodes["report"].body()
    out = experiment.out("report")
    if options.json:
        print(json.dumps({"report": str(out)}))
    else:
        print(f"report:  {out / 'index.html'}\ntable:   {out / 'report.md'}")
    return 0


def _several(options: argparse.Namespace) -> int:
    from depo.evaluation.runs import RunEpisodes, compare_runs
    from depo.report.runs import write_runs
    from depo.stages.report import read_episodes

    runs: list[FinishedRun] = []
    episodes = []
    for given in options.runs:
        config, run_dir = _load(given, options.overrides)
        if any(run_dir.resolve() == Path(run.path).resolve() for run in runs):
            raise ConfigError(f"report: {run_dir} is given twice; name each run once")
        runs.append(_finished(typed("report", given, options.overrides), config, run_dir))
        done = load_config(run_dir / "config.yaml", resolved=True)
        episodes.append(RunEpisodes(runs[-1].name, run_dir, done, read_episodes(done, run_dir)))
    compared = compare_runs(episodes)
    out = options.out or Path(runs[0].path).resolve().parent / _folder([run.name for run in runs])
    try:
        written = write_runs(out, compared, runs)
    except OSError as error:
        raise ConfigError(
            f"report: {out} cannot be written ({error.strerror or error}); give another folder by --out"
        ) from None
    if options.json:
        print(json.dumps({name: str(path) for name, path in written.items()}))
    else:
        print(written["markdown"].read_text(encoding="utf-8"))
        print(f"report:  {written['html']}\ntable:   {written['markdown']}\nresults: {written['results']}")
    return 0


def _load(given: str, overrides: Sequence[str]) -> tuple[ExperimentConfig, Path]:
    """The configuration and the run directory that a RUN stands for.

    A directory is taken as it lies there, also where it was moved or renamed since it was written.
    """
    from depo.graph import runs_dir

    path = Path(given)
    if not path.is_dir():
        config = load_config(given, list(overrides))
        return config, runs_dir(config) / config.name
    if not (path / "config.yaml").is_file():
        raise ConfigError(f"{given}: no run directory (no config.yaml there); give one, or a configuration")
    whole = path.resolve()
    moved = [f"runtime.runs_dir={json.dumps(str(whole.parent))}", f"name={json.dumps(whole.name)}"]
    return load_config(path / "config.yaml", [*moved, *overrides], resolved=True), path


def _finished(again: str, config: ExperimentConfig, run_dir: Path) -> FinishedRun:
    """The run's own results; `again` is the command that makes them.

    Raises `ConfigError` where there are none, or none that this depo reads.
    """
    from depo.evaluation.results import RESULTS_VERSION
    from depo.report.runs import FinishedRun
    from depo.stages.report import RESULTS

    path = run_dir / RESULTS
    if not path.is_file() or not (run_dir / "config.yaml").is_file():
        raise ConfigError(f"{run_dir}: no results yet; `{again}` makes them")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        version = results["version"]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: cannot be read; `{again}` makes it anew") from None
    if version != RESULTS_VERSION:
        raise ConfigError(
            f"{path}: of version {version}, this depo reads {RESULTS_VERSION}; `{again}` makes it anew"
        )
    return FinishedRun(config.name, str(run_dir), results)


def _folder(names: Sequence[str]) -> str:
    """A folder's name that tells of the runs, of a length that every file system takes."""
    from depo.records import content_hash

    name = "-".join(["report", *names])
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}-{content_hash(names, 8)}"
