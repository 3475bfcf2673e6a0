"""A sweep of an experiment: first what it rests on, then its trials, then their table."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from depo import bodies
from depo.config.base import ConfigError
from depo.config.schema import ExperimentConfig
from depo.data.store import write_atomic
from depo.pipeline import build, locked, run
from depo.stages import base


def run_sweep(config: ExperimentConfig, announce: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Run the configuration's sweep, and first what it rests on; a row of settings and metrics a trial.

    Raises `ConfigError` where the configuration has no `sweep` section.
    """
    if config.sweep is None:
        raise ConfigError("sweep: the configuration has no `sweep` section; add one, or give --grid")
    experiment = build(config)
    run(experiment, experiment.nodes[f"train {config.sweep.method}"].needs, announce)
    from depo.stages.cluster import quieten

    quieten(config.runtime)
    from depo.stages.mirror import Mirror
    from depo.stages.sweep import sweep
    from depo.stages.trial import plan_trials

    method = experiment.nodes[f"train {config.sweep.method}"]
    out_dir = experiment.run_dir / "sweep" / config.sweep.directory
    with locked(experiment.run_dir), Mirror(config, experiment.run_dir) as mirror:
        spec = bodies.train_spec(experiment, config.sweep.method)
        plan = plan_trials(config, config.sweep, spec, dict(method.spec.inputs), out_dir)
        trials = sweep(plan, config.sweep)
        for trial in trials:
            mirror.stage("trial", trial.manifest, trial.out_dir)
        rows = [trial.row() for trial in trials]
        write_atomic(out_dir / "results.json", json.dumps(rows, indent=1))
        if base.done(experiment.nodes["report"].spec) is not None:
            bodies.report(experiment)  # the page shows the sweep
    shown = [*config.sweep.space, "success", "tokens_all", "steps_all"]
    announce("  ".join(f"{name:>14}" for name in shown))
    for row in rows:
        announce("  ".join(f"{row.get(name, float('nan')):>14.4g}" for name in shown))
    announce(f"sweep: {out_dir / 'results.json'}")
    return rows
