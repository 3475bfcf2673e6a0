"""`depo view`: a run's trajectories in the browser, or some of them in the terminal."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from depo.commands.base import load, typed
from depo.config.base import ConfigError
from depo.config.evaluation import ControlledConfig, EvaluationConfig, SuiteConfig
from depo.config.schema import ExperimentConfig

if TYPE_CHECKING:
    from depo.records import Trajectory
    from depo.report.browse import Source


def view(options: argparse.Namespace) -> int:
    from depo.pipeline import build

    experiment = build(load(options))
    given = Path(options.config)
    # A run directory may have been copied or moved since its configuration was written.
    run_dir = given if given.is_dir() else experiment.run_dir
    if options.name is None:
        if options.n is not None or options.failures:
            options.misused("-n and --failures go with a NAME: a round or an evaluated method")
        return _write(run_dir, experiment.config, options)
    if options.out is not None:
        options.misused("--out goes without a NAME: the pages hold the whole run")
    if f"generate {options.name}" in experiment.nodes:
        folder = experiment.out(f"generate {options.name}")
    elif f"evaluate {options.name}" in experiment.nodes:
        folder = experiment.out(f"evaluate {options.name}") / experiment.config.evaluation.decoding[0]
    else:
        raise ConfigError(f"view: {options.name!r} is neither a round nor an evaluated method")
    _print(run_dir / folder.relative_to(experiment.run_dir), options)
    return 0


def _print(folder: Path, options: argparse.Namespace) -> None:
    from depo.data.store import read_trajectories
    from depo.report.viewer import trajectory_text

    wanted = [t for t in read_trajectories(folder) if not (options.failures and t.success)]
    for trajectory in wanted[: 3 if options.n is None else options.n]:
        print(json.dumps(trajectory.to_row()) if options.json else trajectory_text(trajectory))


def _write(run_dir: Path, config: ExperimentConfig, options: argparse.Namespace) -> int:
    from depo.report.browse import write_view

    found = find_sources(run_dir, config)
    if not found:
        again = typed("run", options.config, options.overrides)
        raise ConfigError(f"view: no trajectories below {run_dir}; `{again}` writes them there")
    written = write_view(options.out or run_dir / "view", config.name, found)
    if options.json:
        print(json.dumps({**vars(written), "index": str(written.index)}))
    else:
        print(
            f"{written.trajectories} trajectories of {written.sources} sources, "
            f"{written.bytes / 1e6:.1f} MB; open in a browser:\n{written.index}"
        )
    return 0


def find_sources(run_dir: Path, config: ExperimentConfig) -> list[Source]:
    """All that lies in a run directory, finished or not: evaluations, suites, rounds, sweeps.

    Methods and rounds stand in the order of the configuration, others that lie there after them.
    """
    from depo.report.browse import Source

    evaluation = config.evaluation
    methods = [*config.evaluated, *config.methods]
    found = []
    for method in _folders(run_dir / "evaluation", methods):
        found += _draws(method, method.name, "evaluation", config, evaluation)
    for suite in _folders(run_dir / "suites", list(evaluation.suites)):
        of = evaluation.suites.get(suite.name, evaluation)
        for method in _folders(suite, methods):
            found += _draws(method, f"suite:{suite.name}/{method.name}", f"suite {suite.name}", config, of)
    for round_ in _folders(run_dir / "trajectories", [round_.name for round_ in config.rounds]):
        labels = _labels(run_dir / "samples" / round_.name)
        read = partial(read_by_task, round_)
        found.append(Source(f"round:{round_.name}", "rounds", f"round {round_.name}", read, labels))
    for sweep in _folders(run_dir / "sweep", []):
        for trial in _folders(sweep / "trials", []):
            key = f"sweep:{sweep.name}/{trial.name}"
            found += _draws(trial / "evaluation", key, f"sweep {sweep.name}", config, evaluation)
    return found


def _draws(
    folder: Path, key: str, group: str, config: ExperimentConfig, of: EvaluationConfig | SuiteConfig
) -> list[Source]:
    """The sources of one policy on one task set: one a decoding and seed, the table's first."""
    from depo.data.store import shard_files
    from depo.report.browse import Source

    decodings = config.evaluation.decoding
    label = key.rpartition(":")[2].rpartition("/")[2]
    plain = _plain(config.evaluation.controlled.get(folder.name), of.max_steps)
    return [
        Source(
            key=key if draw.name == decodings[0] else f"{key}/{draw.name}",
            group=group,
            label=f"{label}, {draw.name}",
            trajectories=partial(read_by_task, draw),
            success_reward=of.success_reward,
            plain=plain,
        )
        for draw in _folders(folder, list(decodings))
        if shard_files(draw)
    ]


def _plain(controlled: ControlledConfig | None, max_steps: int) -> Callable[[Trajectory], list[str]] | None:
    """How to take from observations what turn control added; None where there is none."""
    if controlled is None:
        return None
    from depo.stages.evaluate import plain_observations, turn_control

    control, turns = turn_control(controlled), controlled.turns(max_steps)
    return lambda trajectory: plain_observations(trajectory, control, turns)


def _folders(parent: Path, first: Sequence[str]) -> list[Path]:
    """The folders in a folder: those named in `first` in that order, then the others by name.

    What earlier configurations left in `superseded/` is no part of the run.
    """
    there = {p.name: p for p in sorted(parent.glob("[!.]*")) if p.is_dir() and p.name != "superseded"}
    return [there[name] for name in dict.fromkeys([*first, *there]) if name in there]


def read_by_task(folder: Path) -> Iterator[Trajectory]:
    """The trajectories of a folder of shards, a shard at a time, those of one task together.

    Raises `ConfigError` naming a shard that cannot be read.
    """
    from pyarrow import ArrowInvalid

    from depo.data.store import passed_over, read_table, shard_files
    from depo.records import Trajectory

    try:
        over = passed_over(folder)
    except ArrowInvalid:  # which of them it is, the reading below tells
        over = {}
    for file in shard_files(folder):
        by_task: dict[str, dict[str, Trajectory]] = {}
        for trajectory in read_table(file, Trajectory):
            if trajectory.task.id not in over.get(file, ()):
                by_task.setdefault(trajectory.task.id, {})[trajectory.id] = trajectory
        for task in by_task.values():
            yield from sorted(task.values(), key=lambda t: (t.policy, t.index, t.seed))


def _labels(folder: Path) -> dict[str, str]:
    """Trajectory id to label, where the round is annotated."""
    import pyarrow.parquet as pq

    from depo.stages.annotate import SAMPLES

    file = folder / SAMPLES
    if not file.is_file():
        return {}
    table = pq.read_table(file, columns=["trajectory_id", "label"])
    return dict(zip(table["trajectory_id"].to_pylist(), table["label"].to_pylist(), strict=True))
