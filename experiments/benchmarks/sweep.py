"""A sweep over alpha against as many independent runs of the same training and evaluation.

    python experiments/benchmarks/sweep.py [--json] [--trials N] [--folder DIR]

First the demo's pipeline, shrunken, makes model, samples and reference log-probs, which is not counted.
Then, one after the other on the same machine:

runs   N times `depo evaluate CONFIG depo`, each a fresh process on a copy of that run directory, so that it
       trains and evaluates one setting and nothing else. `--at-a-time` of them (2) run at a time, each with
       one worker for training and one for evaluation, as a trial has: on two cores the fastest way.
sweep  `depo sweep` over the same N settings (for 16 a grid of 4 x 4), Tune, MLflow and the ledger on, as many
       trials at a time.

Both train the same steps on the same samples and try the same validation tasks with the same draws; the
metrics are compared, and must be equal. `cost_ratio` is the sweep's wall time over that of the runs,
`cpu_ratio` the same of CPU time, of all processes below each command. CPU is read twice a second, so that
what a process used in the moment before its end is missed: more of the runs', which are many.

`overhead_s_per_trial` is what the sweep's slots were held for beyond training and evaluation:
(wall time x slots - sum over trials of their own time) / N. A trial's own time is training and
evaluation as an independent run has them too, so the first trial of a slot counts its imports and the start
of its engine; `start_s` says how much of it that was. Starting Python, Ray and Tune, the ledger, MLflow, and
a slot that waits for the other's last trial are overhead.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

CONFIG = Path(__file__).parents[1] / "configs" / "babyai-tiny.yaml"
BARS = {"cost_ratio": 0.5, "cpu_ratio": 0.5, "overhead_s_per_trial": 3.0}
ALPHAS = (0.0, 1.0, 3.0, 10.0)
SHRUNKEN: dict[str, Any] = {
    "env.options.levels": ["GoToObjS6-v1"],
    "student.tiny": {
        "hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 128, "episodes": 1500, "skip": 60,
        "batch_size": 8, "learning_rate": 5e-3,
        "teacher": {"wordiness": 0.1, "waste": 0.1, "mistakes": 0.02},
    },
    "rounds.0.tasks": 30,
    "rounds.0.search.simulations": 4,
    "rounds.1.skip": 30,
    "rounds.1.tasks": 30,
    "rounds.1.search.simulations": 6,
    "rounds.1.search.max_tokens": 40,
    "annotation.student.kappa0": 0.5,
    "annotation.student.kappa1": 0.5,
    "annotation.student.kappa2": 0.3,
    "methods.bc.max_steps": 6,
    "methods.depo.max_steps": 20,
    **{f"methods.{name}.batch_size": 8 for name in ("bc", "depo")},
    "evaluation.split": "validation",
    "evaluation.difficulty": {},
    "evaluation.skip": 0,
    "evaluation.tasks": 24,
    "evaluation.decoding": ["sampled"],
    "evaluation.max_tokens": 40,
    "sweep.tasks": 24,
}  # fmt: skip
ALONE = {"runtime.training.num_workers": 1, "runtime.generation.actors": 1}
"""An independent run's width: what a trial has."""
COMPARED = ("success", "tokens_all", "steps_all")

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_S = 0.5
_COMMANDS: set[int] = set()
"""Processes that somebody waits for; what is adopted beside them is waited for by the meter."""


class CpuMeter:
    """CPU seconds of all processes below this one, whoever their parents are and whether they still live."""

    def __init__(self) -> None:
        # What outlives its parent becomes a child of this process instead of leaving the tree.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._seen: dict[tuple[int, float], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return sum(self._seen.values())

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            for process in psutil.Process().children(recursive=True):
                try:
                    with process.oneshot():
                        times, ended = process.cpu_times(), process.status() == psutil.STATUS_ZOMBIE
                        adopted = process.ppid() == os.getpid() and process.pid not in _COMMANDS
                        self._seen[process.pid, process.create_time()] = times.user + times.system
                    if ended and adopted:
                        os.waitpid(process.pid, 0)
                except psutil.Error:
                    continue  # it ended between the listing and the reading


@contextmanager
def measured(into: dict[str, float]) -> Iterator[None]:
    """Wall and CPU seconds of what the block starts."""
    into["load_before"] = round(psutil.getloadavg()[0], 2)
    started = time.monotonic()
    with CpuMeter() as meter:
        yield
        into["wall_s"] = round(time.monotonic() - started, 2)
    into["cpu_s"] = round(meter.seconds, 2)


def depo(verb: str, runs: Path, overrides: dict[str, Any], *more: str) -> str:
    """What a `depo` command prints; ends the benchmark where it fails."""
    values = {**SHRUNKEN, "runtime.runs_dir": str(runs), **overrides}
    command = [sys.executable, "-m", "depo.cli", verb, str(CONFIG), *more]
    # JSON is YAML, and has no line breaks.
    command += [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        _COMMANDS.add(process.pid)
        out, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"depo {verb} failed:\n{out[-2000:]}\n{errors[-2000:]}")
    return out


def grid(trials: int) -> dict[str, list[float]]:
    """A space of so many trials: both alphas for a square up to 16, else the steps' alone."""
    side = next((n for n in range(len(ALPHAS), 1, -1) if n * n == trials), 0)
    if side:
        return {"alpha_tokens": list(ALPHAS[:side]), "alpha_steps": list(ALPHAS[:side])}
    return {"alpha_steps": [float(n) for n in range(trials)]}


def independent(folder: Path, settings: Sequence[dict[str, float]], width: int) -> list[Any]:
    """One run a setting, `width` of them at a time; the metrics of each."""

    def run(number: int) -> Any:
        runs = folder / f"run{number}"
        chosen = {f"methods.depo.{name}": value for name, value in settings[number].items()}
        depo("evaluate", runs, {**ALONE, **chosen}, "depo")
        manifest = runs / "babyai-tiny" / "evaluation" / "depo" / "manifest.json"
        return json.loads(manifest.read_text())["metrics"]

    with ThreadPoolExecutor(width) as pool:
        return list(pool.map(run, range(len(settings))))


def rungs_of(sweep_dir: Path) -> list[dict[str, Any]]:
    """The last rung of every trial."""
    rows = []
    for path in sorted(sweep_dir.glob("trials/*/rungs.jsonl")):
        rows.append(json.loads(path.read_text().splitlines()[-1]))
    return rows


def compare(folder: Path, trials: int, width: int) -> dict[str, Any]:
    """Run both and measure them."""
    shared = folder / "shared"
    print("making model, samples and reference ...", file=sys.stderr, flush=True)
    depo("reference", shared, {})
    for old in (shared / "babyai-tiny" / "sweep", *folder.glob("run*")):
        shutil.rmtree(old, ignore_errors=True)
    space = grid(trials)
    settings = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    for number in range(trials):
        shutil.copytree(shared, folder / f"run{number}")
    print(f"{trials} independent runs ...", file=sys.stderr, flush=True)
    runs: dict[str, float] = {}
    with measured(runs):
        alone = independent(folder, settings, width)
    print(f"a sweep of {trials} trials ...", file=sys.stderr, flush=True)
    sweep: dict[str, float] = {}
    swept = {"sweep.name": "benchmark", "sweep.space": space, "runtime.sweep.max_concurrent": width}
    with measured(sweep):
        depo("sweep", shared, swept, "--json")
    sweep_dir = shared / "babyai-tiny" / "sweep" / "benchmark"
    found = json.loads((sweep_dir / "results.json").read_text())["trials"]
    rows = rungs_of(sweep_dir)
    own = sum(row["seconds"] for row in rows)
    by_setting = {json.dumps(t["settings"], sort_keys=True): t["metrics"] for t in found}
    same = [
        all(math.isclose(by_setting[json.dumps(s, sort_keys=True)][name], metrics[name]) for name in COMPARED)
        for s, metrics in zip(settings, alone, strict=True)
    ]
    usual = sorted(row["seconds"] for row in rows)[len(rows) // 2]
    return {
        "cost_ratio": round(sweep["wall_s"] / runs["wall_s"], 3),
        "cpu_ratio": round(sweep["cpu_s"] / runs["cpu_s"], 3),
        "overhead_s_per_trial": round((sweep["wall_s"] * width - own) / trials, 2),
        "details": {
            "trials": trials,
            "at_a_time": width,
            "runs": runs,
            "sweep": sweep,
            "trial_s": {"sum": round(own, 2), "median": round(usual, 2)},
            "start_s": round(sum(row["seconds"] - usual for row in rows if row["seconds"] > 2 * usual), 2),
            "equal_metrics": f"{sum(same)} of {trials}",
            "machine": f"{platform.machine()}, {psutil.cpu_count()} CPUs",
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--at-a-time", type=int, default=2, metavar="N", help="trials, or runs, side by side")
    parser.add_argument("--folder", type=Path, help="work there and keep it, for a next time")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        result = compare(options.folder.resolve(), options.trials, options.at_a_time)
    else:
        with tempfile.TemporaryDirectory(prefix="depo-sweep-") as folder:
            result = compare(Path(folder).resolve(), options.trials, options.at_a_time)
    if options.json:
        print(json.dumps(result))
        return 0
    for name, bar in BARS.items():
        print(f"{name:<22} {result[name]:>7}  (bar: {bar})")
    print(json.dumps(result["details"], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
