"""A trial that costs nothing, for what Ray Tune does with trials: its "training" adds `beta` at each rung.

Run as `sweep_trials.py ADDRESS OUT SWEEP` (a sweep's settings as JSON) it is a driver that can be killed.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from depo.config.runtime import RuntimeConfig, SweepRuntime
from depo.config.schema import EnvConfig, EvaluationConfig, MethodConfig, StudentConfig, SweepConfig
from depo.data.store import write_atomic
from depo.stages.base import Outcome, begin, done, finish
from depo.stages.sweep.plan import (
    RUNGS,
    RungResult,
    TrialPlan,
    checkpoint_of,
    note_origin,
    read_rungs,
    trial_spec,
)
from depo.training.spec import TrainSpec

STARTS = "starts.txt"


def plan_of(out: Path, config: SweepConfig, seconds: float = 0.0, **runtime: Any) -> TrialPlan:
    """A plan below `out` whose rungs take so many seconds each."""
    method = MethodConfig(objective="depo")
    base = TrainSpec(method, "", "", "", "", dtype="float32", max_length=256)
    return TrialPlan(
        base=base,
        tasks=(),
        evaluation=EvaluationConfig(),
        env=EnvConfig(),
        student=StudentConfig(),
        runtime=RuntimeConfig(sweep=SweepRuntime(cpus_per_trial=0.5, **runtime)),
        inputs={"seconds": str(seconds)},
        out_dir=str(out),
        rungs=config.rungs,
        population=config.scheduler == "pbt",
    )


def cheap(
    settings: Mapping[str, Any],
    plan: TrialPlan,
    report: Any = None,
    resume: Path | None = None,
    member: str = "",
) -> Mapping[str, float]:
    """More `beta` is more success and more tokens; `max_steps` 13 fails, 14 loses its process once."""
    spec = trial_spec(plan, settings, resume, member)
    manifest = done(spec)
    if manifest is not None and report is not None:
        for row in read_rungs(spec.out_dir):
            report(RungResult(row["rung"], plan.rungs, row, checkpoint_of(spec.out_dir, row)))
        return manifest.metrics
    begin(spec)
    starts = Path(plan.out_dir) / STARTS
    with starts.open("a") as file:
        file.write(f"{spec.out_dir.name}\n")
    if settings.get("max_steps") == 13:
        _fail()
    if settings.get("max_steps") == 14 and starts.read_text().count(spec.out_dir.name) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    rows = read_rungs(spec.out_dir)
    before = rows[-1] if rows else json.loads((resume / "state.json").read_text()) if resume else {}
    for row in rows:
        report(RungResult(row["rung"], plan.rungs, row, checkpoint_of(spec.out_dir, row)))
    for rung in range(before.get("rung", 0) + 1, plan.rungs + 1):
        time.sleep(float(plan.inputs["seconds"]))
        total = before.get("success", 0.0) + settings.get("beta", 0.2)
        row = {"rung": rung, "rungs": plan.rungs, "step": rung, "seconds": 0.0, "episodes": 1}
        row |= {"success": total, "tokens_all": 10 * total, "train/loss": -total}
        checkpoint = checkpoint_of(spec.out_dir, row)
        write_atomic(checkpoint / "state.json", json.dumps(row))
        note_origin(checkpoint, spec, row)
        (spec.out_dir / "adapter").mkdir(exist_ok=True)
        with (spec.out_dir / RUNGS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        before = row
        report(RungResult(rung, plan.rungs, row, checkpoint if rung < plan.rungs else None))
    measured = {name: before[name] for name in ("success", "tokens_all", "train/loss")}
    return finish(spec, Outcome(1, metrics=measured), time.time()).metrics


def _fail() -> None:
    try:
        Path("/nowhere/at/all").read_text()
    except OSError as error:
        raise RuntimeError("the training broke off") from error


def start_ray() -> None:
    """A cluster of this process, whose workers find this module."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def run_cheap(out: Path, seconds: float = 0.0, said: list[str] | None = None, **settings: Any) -> dict:
    """The results of a sweep of cheap trials; its lines are appended to `said`."""
    # Not above: the trials' processes have no need of what these bring.
    from depo.stages.sweep.run import sweep
    from depo.stages.sweep.watch import Sweep

    out.mkdir(exist_ok=True)
    runtime = settings.pop("runtime", {})
    config = SweepConfig(**settings)
    lines: list[str] = [] if said is None else said
    plan = plan_of(out, config, seconds, **runtime)
    return sweep(Sweep("cheap", plan, config, function=cheap, say=lines.append))


if __name__ == "__main__":
    import sweep_trials  # not __main__, so that workers find the trial's function

    address, out, settings = sys.argv[1:]
    ray.init(address, log_to_driver=False, logging_level="ERROR")
    sweep_trials.run_cheap(Path(out), 0.3, **json.loads(settings))
