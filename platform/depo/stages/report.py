"""The report: results.json and the page, from manifests and tables alone."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path

from depo.config.schema import ExperimentConfig
from depo.data.store import read_table, read_trajectories, write_atomic
from depo.evaluation.results import build_results
from depo.records import Episode, Manifest
from depo.report.examples import Example, pick_examples
from depo.report.html import write_report
from depo.stages.base import Outcome, package_versions
from depo.stages.evaluate import EPISODES
from depo.training.metrics import METRICS, read_metrics


def report(config: ExperimentConfig, run_dir: Path, manifests: Sequence[Manifest]) -> Outcome:
    """Write `results.json` and `report/index.html` of a run whose stages are done."""
    methods = config.evaluated
    evaluations = run_dir / "evaluation"
    episodes = [e for m in methods for e in read_table(evaluations / m / EPISODES, Episode)]
    trainings = {m.stage.removeprefix("train "): m for m in manifests if m.stage.startswith("train ")}
    info = {name: {"train": m.metrics, "fingerprint": m.fingerprint} for name, m in trainings.items()}
    provenance = {
        "manifests": {m.stage: m.fingerprint for m in manifests},
        "seed": config.seed,
        "departures": config.departures,
        "versions": package_versions(),
        "machine": f"{platform.system()} {platform.machine()}, {_cpu()}",
        "seconds": round(sum(m.seconds for m in manifests), 1),
    }
    results = build_results(episodes, config, provenance, info)
    write_atomic(run_dir / "results.json", json.dumps(results, indent=1))
    curves = {name: read_metrics(run_dir / name / METRICS) for name in config.methods}
    write_report(
        run_dir / "report",
        results,
        {name: rows for name, rows in curves.items() if rows},
        [m.to_row() for m in manifests],
        _examples(config, evaluations, methods),
        config,
        _trials(run_dir, config),
    )
    return Outcome(rows=len(episodes))


def _examples(config: ExperimentConfig, evaluations: Path, methods: list[str]) -> list[Example]:
    """The reference beside the last method of the table, on the same tasks."""
    before, after = config.evaluation.reference, methods[-1]
    if before not in methods or before == after:
        return []
    decoding = config.evaluation.decoding[0]
    return pick_examples(*(read_trajectories(evaluations / name / decoding) for name in (before, after)))


def _trials(run_dir: Path, config: ExperimentConfig) -> list[dict[str, dict[str, float]]]:
    """The finished sweep's trials, where there was one."""
    if config.sweep is None:
        return []
    path = run_dir / "sweep" / config.sweep.directory / "results.json"
    if not path.is_file():
        return []
    rows = json.loads(path.read_text())
    grid = config.sweep.space
    return [
        {
            "params": {key: row[key] for key in grid},
            "metrics": {key: value for key, value in row.items() if key not in grid},
        }
        for row in rows
        if all(key in row for key in grid)
    ]


def _cpu() -> str:
    """The processor's name as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
