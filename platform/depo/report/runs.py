"""Several finished runs on one page: side by side, over replicas, and against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depo.evaluation.economics import AXES, pareto_set
from depo.report import plots_results, tables
from depo.report.markdown import cell_text, estimates, table
from depo.report.page import fill, write_text
from depo.report.plots import Panel, colours
from depo.report.tables import Cell, Row


@dataclass(frozen=True)
class FinishedRun:
    """A run with results."""

    name: str
    path: str
    results: Mapping[str, Any]
    """Its `results.json`."""


def write_runs(out_dir: Path, compared: Mapping[str, Any], runs: Sequence[FinishedRun]) -> dict[str, Path]:
    """Write `index.html`, `report.md` and `results.json`; their paths by "html", "markdown" and "results".

    `compared` is what `evaluation.runs.compare_runs` says of the runs, in their order. The files depend on
    the arguments alone: same input, same bytes.
    """
    shown = as_results(compared)
    labels = run_labels(runs)
    methods = tables.result_rows(shown, shown["decoding"])
    methods = [Row(row.name, row.cells, _replicas(compared["methods"][row.name]["runs"])) for row in methods]
    content = {
        "title": ", ".join(labels),
        "compared": compared,
        "runs": list(zip(labels, runs, strict=True)),
        "metrics": list(tables.metrics_of(shown, "paper").values()),
        "methods": methods,
        "middle_metrics": _over_all(shown),
        "middle": _interquartile(shown),
        "by_run": _by_run(shown),
        "comparisons": tables.comparison_rows(shown, shown["decoding"]),
        "alone": [(label, _alone(run)) for label, run in zip(labels, runs, strict=True)],
    }
    return {
        "html": write_text(
            out_dir / "index.html", fill("runs.html.j2", **content, panels=_panels(shown, labels, runs))
        ),
        "markdown": write_text(out_dir / "report.md", _markdown(content)),
        "results": write_text(out_dir / "results.json", json.dumps(compared, indent=1) + "\n"),
    }


def as_results(compared: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison in the form of a `results.json`, for the tables and plots that show one."""
    decoding, methods = compared["decoding"], compared["methods"]
    points = [[method[axis]["mean"] for axis in AXES] for method in methods.values()]
    kept = pareto_set(points, list(AXES.values()))
    return {
        "decoding": decoding,
        "reference": "",
        "metrics": compared["metrics"],
        "methods": {name: {"decoding": decoding, "decodings": {}, **m} for name, m in methods.items()},
        "comparisons": [{"decoding": decoding, **row} for row in compared["comparisons"]],
        "economics": {"pareto": [name for name, of in zip(methods, kept, strict=True) if of]},
    }


def run_labels(runs: Sequence[FinishedRun]) -> list[str]:
    """The runs' names; their paths where two have one name."""
    names = [run.name for run in runs]
    return [run.name if names.count(run.name) == 1 else run.path for run in runs]


def _replicas(count: int) -> str:
    return f"{count} runs" if count > 1 else "1 run"


def _over_all(shown: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [m for m in tables.metrics_of(shown, "paper").values() if m["over"] == "all"]


def _interquartile(shown: Mapping[str, Any]) -> list[Row]:
    """Interquartile means over runs and tasks, of methods with several runs."""
    metrics = {k: m for k, m in tables.metrics_of(shown, "paper").items() if m["over"] == "all"}
    return [
        Row(
            name,
            tuple(tables.estimate(method["iqm"][key], m, f"iqm/{name}/{key}") for key, m in metrics.items()),
        )
        for name, method in shown["methods"].items()
        if method["runs"] > 1
    ]


def _by_run(shown: Mapping[str, Any]) -> list[Row]:
    """The means of each run, in the order of the runs, of methods with several."""
    metrics = tables.metrics_of(shown, "paper")
    rows = []
    for name, method in shown["methods"].items():
        if method["runs"] > 1:
            cells = [
                Cell(", ".join("–" if v is None else tables.number(v, m) for v in method["by_run"][key]))
                for key, m in metrics.items()
            ]
            rows.append(Row(name, tuple(cells)))
    return rows


def _alone(run: FinishedRun) -> list[Row]:
    """A run's own table: intervals over its tasks alone, each row with the stage that it comes from."""
    return tables.result_rows(run.results, run.results["decoding"])


def _panels(
    shown: Mapping[str, Any], labels: Sequence[str], runs: Sequence[FinishedRun]
) -> dict[str, list[Panel]]:
    ink = colours(shown["methods"])
    curves = {label: run.results["curves"] for label, run in zip(labels, runs, strict=True)}
    return {
        "trade_off": plots_results.trade_offs(shown, ink),
        "forest": plots_results.forest(shown["comparisons"], ink),
        "budget": plots_results.budgets_of_runs(curves),
    }


def _markdown(content: Mapping[str, Any]) -> str:
    compared, metrics = content["compared"], content["metrics"]
    listed = [
        [label, str(about["seed"]), str(run.results["tasks"]), run.results["decoding"], about["path"]]
        for (label, run), about in zip(content["runs"], compared["runs"], strict=True)
    ]
    parts = [
        f"# {content['title']}",
        table(["run", "seed", "tasks", "decoding", "directory"], listed),
        f"Success: {compared['success']}. Means with 95% intervals over runs and tasks, "
        f"{compared['decoding']}.",
        "## Methods",
        table(
            ["method", "runs", *(m["label"] for m in metrics)],
            [[row.name, row.note, *(cell_text(c) for c in row.cells)] for row in content["methods"]],
        ),
    ]
    if content["middle"]:
        parts += [
            "## Interquartile means over runs and tasks",
            estimates("method", content["middle_metrics"], content["middle"]),
            "## Means of each run",
            estimates("method", metrics, content["by_run"]),
        ]
    if content["comparisons"]:
        parts += [
            "## Comparisons",
            "Differences over the same tasks; * the 95% interval excludes zero; P: probability that a does "
            "better than b on a task, ties half.",
            estimates("a − b", metrics, content["comparisons"]),
        ]
    for label, rows in content["alone"]:
        parts += [f"## {label} by itself", estimates("method", metrics, rows)]
    return "\n\n".join(parts) + "\n"
