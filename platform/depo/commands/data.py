"""`depo export`, `depo import` and `depo data show`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from depo.commands.base import load
from depo.config.base import ConfigError
from depo.config.schema import ExperimentConfig


def export(options: argparse.Namespace) -> int:
    from depo.data.formats import export_samples
    from depo.pipeline import build

    experiment = build(load(options))
    _require_round(experiment.config, options.name)
    annotation = experiment.config.annotation.get(options.name)
    trajectories = experiment.out(f"generate {options.name}")
    notes: list[str] = []
    out = Path(options.out)
    count = export_samples(trajectories, annotation, options.format, out, say=notes.append)
    _tell(options, count, "rows", options.out, notes)
    return 0


def import_(options: argparse.Namespace) -> int:
    from depo.data.imports import import_trajectories

    notes: list[str] = []
    count = import_trajectories(
        options.file,
        options.format,
        options.env,
        options.out,
        options.on_bad_row,
        options.label,
        notes.append,
    )
    _tell(options, count, "trajectories", str(options.out), notes)
    return 0


def _tell(options: argparse.Namespace, count: int, what: str, out: str, notes: list[str]) -> None:
    if options.json:
        print(json.dumps({"rows": count, "out": out, "notes": notes}))
    else:
        print("\n".join([*notes, f"{count} {what} -> {out}"]))


def show(options: argparse.Namespace) -> int:
    from depo.data.store import read_table
    from depo.pipeline import build
    from depo.records import Sample
    from depo.report.viewer import sample_text
    from depo.stages.annotate import SAMPLES
    from depo.stages.student import load_renderer

    experiment = build(load(options))
    rounds = [round_.name for round_ in experiment.config.rounds]
    found = []
    for name in [options.name] if options.name in rounds else rounds:
        file = experiment.out(f"annotate {name}") / SAMPLES
        if options.name == name or file.is_file():
            found += read_table(file, Sample)
    if options.name in rounds:
        found = [s for s in found if (s.label, s.view) == (options.label, options.view)][: options.n]
        missing = f"{options.name}: no sample labelled {options.label} of view {options.view!r}"
    else:
        found = [s for s in found if s.id.startswith(options.name)]
        missing = f"no round or sample {options.name!r}; known rounds: {', '.join(rounds)}"
    if not found:
        raise ConfigError(missing)
    renderer = load_renderer(experiment.model_dir("student"), experiment.config.student.chat_template)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for sample in found:
        print(sample_text(sample, renderer.tokenizer.decode, color))
    return 0


def _require_round(config: ExperimentConfig, name: str) -> None:
    known = [round_.name for round_ in config.rounds]
    if name not in known:
        raise ConfigError(f"no round {name!r}; known: {', '.join(known)}")
