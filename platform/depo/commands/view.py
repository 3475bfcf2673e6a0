"""`depo view`."""

from __future__ import annotations

import argparse
import json

from depo.commands.base import load
from depo.config.base import ConfigError


def view(options: argparse.Namespace) -> int:
    from depo.data.store import read_trajectories
    from depo.pipeline import build
    from depo.report.viewer import trajectory_text

    experiment = build(load(options))
    config = experiment.config
    if f"generate {options.name}" in experiment.nodes:
        folder = experiment.out(f"generate {options.name}")
    elif f"evaluate {options.name}" in experiment.nodes:
        folder = experiment.out(f"evaluate {options.name}") / config.evaluation.decoding[0]
    else:
        raise ConfigError(f"view: {options.name!r} is neither a round nor an evaluated method")
    chosen = [t for t in read_trajectories(folder) if not (options.failures and t.success)][: options.n]
    for trajectory in chosen:
        print(json.dumps(trajectory.to_row()) if options.json else trajectory_text(trajectory))
    return 0
