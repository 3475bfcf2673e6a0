"""A sweep of an experiment: first what it rests on, then its trials, then their page and table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from depo import bodies
from depo.config.base import ConfigError
from depo.config.schema import ExperimentConfig
from depo.pipeline import build, locked, run
from depo.stages import base


def run_sweep(config: ExperimentConfig, announce: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the configuration's sweep, and first what it rests on; what its `results.json` holds.

    Raises `ConfigError` where the configuration has no `sweep` section, and as `stages.sweep.run.sweep` does.
    """
    if config.sweep is None:
        raise ConfigError("sweep: the configuration has no `sweep` section; add one, or give --grid")
    experiment = build(config)
    from depo.stages.cluster import quieten

    quieten(config.runtime)
    from depo.stages.mirror import Mirror
    from depo.stages.sweep.ledger import sweep_identity
    from depo.stages.sweep.run import check, show, sweep
    from depo.stages.sweep.trial import plan_trials
    from depo.stages.sweep.watch import Sweep

    name = config.sweep.directory
    out_dir = experiment.run_dir / "sweep" / name
    method = experiment.nodes[f"train {config.sweep.method}"]
    spec = bodies.train_spec(experiment, config.sweep.method)
    plan = plan_trials(config, config.sweep, spec, dict(method.spec.inputs), out_dir)
    job = Sweep(name, plan, config.sweep, say=announce)
    check(job)
    run(experiment, method.needs, announce)
    with locked(experiment.run_dir), Mirror(config, experiment.run_dir) as mirror:
        shared = {
            "sweep": config.sweep.model_dump(mode="json"),
            "method": config.methods[config.sweep.method].model_dump(mode="json"),
        }
        with mirror.sweep(name, shared, sweep_identity(plan, config.sweep)) as mirrored:
            found = sweep(replace(job, mirror=mirrored))
            text = show(out_dir, found, config.env.id)
        if base.done(experiment.nodes["report"].spec) is not None:
            bodies.report(experiment)  # the page shows the sweep
    announce(text)
    announce(f"sweep: {out_dir / 'results.json'}")
    return found
