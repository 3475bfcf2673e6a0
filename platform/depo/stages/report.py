"""The report: results.json, the page and the Markdown table, from manifests and tables alone."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from depo.config.schema import ExperimentConfig
from depo.data.store import read_table, read_trajectories, write_atomic
from depo.evaluation.comparisons import headline
from depo.evaluation.results import build_results
from depo.records import Episode, Manifest
from depo.report.examples import Example, pick_examples
from depo.report.html import write_report
from depo.report.paper import paper_rows
from depo.report.sweep import VERSION, SweepView, sweep_view
from depo.stages.base import Outcome, package_versions
from depo.stages.evaluate import EPISODES
from depo.training.metrics import METRICS, read_metrics

RESULTS = "results.json"


def report(config: ExperimentConfig, run_dir: Path, manifests: Sequence[Manifest]) -> Outcome:
    """Write `results.json`, `report/index.html` and `report/report.md` of a run whose stages are done."""
    episodes = read_episodes(config, run_dir)
    results = build_results(episodes, config, _provenance(config, manifests), _told(manifests))
    write_atomic(run_dir / RESULTS, json.dumps(results, indent=1))
    curves = {name: read_metrics(run_dir / name / METRICS) for name in config.methods}
    found = list(_sweeps(config.env.id, run_dir))
    write_report(
        run_dir / "report",
        results,
        {name: rows for name, rows in curves.items() if rows},
        [m.to_row() for m in manifests],
        _examples(config, run_dir / "evaluation"),
        config,
        [view for view in found if isinstance(view, SweepView)],
        paper_rows(config.env.id, ["suites"] if config.evaluation.suites else []),
        [path for path in found if isinstance(path, str)],
    )
    return Outcome(rows=len(episodes))


def read_episodes(config: ExperimentConfig, run_dir: Path) -> list[Episode]:
    """Episodes of all evaluated policies, on the evaluation's own tasks and on every suite."""
    folders = [run_dir / "evaluation" / name for name in config.evaluated]
    folders += [
        run_dir / "suites" / suite / name for suite in config.evaluation.suites for name in config.evaluated
    ]
    return [episode for folder in folders for episode in read_table(folder / EPISODES, Episode)]


def _provenance(config: ExperimentConfig, manifests: Sequence[Manifest]) -> dict[str, Any]:
    return {
        "manifests": {m.stage: m.fingerprint for m in manifests},
        "seed": config.seed,
        "departures": config.departures,
        "versions": package_versions(),
        "machine": f"{platform.system()} {platform.machine()}, {_cpu()}",
        "seconds": round(sum(m.seconds for m in manifests), 1),
    }


def _told(manifests: Sequence[Manifest]) -> dict[str, dict[str, Any]]:
    """Method to what its training, and the scoring of its thoughts, say of it."""
    info: dict[str, dict[str, Any]] = {}
    for manifest in manifests:
        kind, _, name = manifest.stage.partition(" ")
        if kind == "train":
            told = {"train": manifest.metrics, "fingerprint": manifest.fingerprint}
            info[name] = info.get(name, {}) | told
        elif kind == "thoughts":
            info[name] = info.get(name, {}) | {"thoughts": manifest.metrics}
    return info


def _examples(config: ExperimentConfig, evaluations: Path) -> list[Example]:
    """The pair in question, on the same tasks."""
    pair = headline(config, config.evaluated)
    if not pair:
        return []
    after, before = pair
    decoding = config.evaluation.decoding[0]
    return pick_examples(*(read_trajectories(evaluations / name / decoding) for name in (before, after)))


def _sweeps(env: str, run_dir: Path) -> Iterator[SweepView | str]:
    """Every sweep of the run; the path of one whose results are of another version, as text.

    Beside a sweep stands what the paper says of its settings; its main table stands once, elsewhere.
    """
    for path in sorted((run_dir / "sweep").glob("*/results.json")):
        found = json.loads(path.read_text())
        if isinstance(found, dict) and found.get("version") == VERSION:
            said = [row for row in paper_rows(env, found["space"]) if not row.values and row.setting != env]
            yield sweep_view(found, said)
        else:
            yield str(path.relative_to(run_dir))


def _cpu() -> str:
    """The processor's name as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()
