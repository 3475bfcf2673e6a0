"""A sweep's page, table and figure, with the paper's own numbers beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depo.report.markdown import align, escaped, paper_columns, paper_markdown, table
from depo.report.page import fill, write_text
from depo.report.paper import PaperRow, paper_text
from depo.report.plots import Panel
from depo.report.plots_sweep import sweep_figure, sweep_panels
from depo.report.trials import SHOWN, STATES, Column, Trial, columns, setting_text

VERSION = 1
"""Of the `results.json` that is read here."""


@dataclass(frozen=True)
class TrialRow:
    """A trial as a row of the table."""

    number: int
    cells: tuple[str, ...]
    state: str
    rung: str
    seconds: str
    pareto: bool
    best: bool
    kept: bool
    error: str
    dir: str


@dataclass(frozen=True)
class SweepView:
    """All that the page shows of a sweep."""

    name: str
    facts: tuple[tuple[str, str], ...]
    header: tuple[str, ...]
    rows: tuple[TrialRow, ...]
    train_header: tuple[str, ...]
    train_rows: tuple[tuple[str, ...], ...]
    """What training said of each trial, its number first."""
    panels: tuple[Panel, ...]
    paper_metrics: tuple[Column, ...]
    paper: tuple[PaperRow, ...]

    @property
    def failed(self) -> list[TrialRow]:
        return [row for row in self.rows if row.error]


def write_sweep(out_dir: Path, results: Mapping[str, Any], paper: Sequence[PaperRow]) -> dict[str, Path]:
    """Write `index.html`, `sweep.md` and `sweep.svg`; their paths by "html", "markdown" and "svg".

    `results` is the sweep's `results.json`. The files depend on the arguments alone: same input, same bytes.
    """
    view = sweep_view(results, paper)
    return {
        "html": write_text(out_dir / "index.html", fill("sweep.html.j2", sweep=view)),
        "markdown": write_text(out_dir / "sweep.md", sweep_markdown(view)),
        "svg": write_text(out_dir / "sweep.svg", sweep_figure(results, _id(results))),
    }


def sweep_view(results: Mapping[str, Any], paper: Sequence[PaperRow]) -> SweepView:
    """The sweep as its page shows it."""
    shown = columns(results)
    settings = _settings(results)
    best = results["best"]
    trials = results["trials"]
    train = list(dict.fromkeys(k for t in trials for k in t["metrics"] if k.startswith("train/")))
    measured = [(n, t) for n, t in enumerate(trials, 1) if any(k in t["metrics"] for k in train)]
    return SweepView(
        name=results["name"],
        facts=_facts(results),
        header=(*settings, *(c.label for c in shown)),
        rows=tuple(_row(n, t, settings, shown, best == n - 1) for n, t in enumerate(trials, 1)),
        train_header=("#", *(key.removeprefix("train/") for key in train)),
        train_rows=tuple(
            (str(n), *(Column(k, k).text(t["metrics"].get(k)) for k in train)) for n, t in measured
        ),
        panels=tuple(sweep_panels(results, _id(results))),
        paper_metrics=tuple(paper_columns(paper)),
        paper=tuple(paper),
    )


def sweep_markdown(view: SweepView) -> str:
    """The sweep as Markdown: facts, the table of trials, what failed, the paper's numbers."""
    rows = [[str(r.number), *r.cells, r.state, _marks(r), r.seconds] for r in view.rows]
    parts = [
        f"# Sweep {view.name}",
        "\n".join(f"- {key}: {escaped(value)}" for key, value in view.facts),
        table(["#", *view.header, "state", "", "seconds"], rows),
        "Trials are judged on validation tasks, never on the test tasks of a results table.",
    ]
    if view.failed:
        parts.append("\n".join(f"- trial {r.number} {r.state}: {escaped(r.error)}" for r in view.failed))
    if view.paper:
        parts.append(paper_markdown(view.paper))
    return "\n\n".join(parts) + "\n"


def sweep_text(results: Mapping[str, Any], paper: Sequence[PaperRow]) -> str:
    """The sweep for a terminal: a line a trial, the root cause of each failure, the paper's numbers."""
    wanted = {*results["objectives"], *SHOWN}
    shown = [c for c in columns(results) if c.key in wanted]
    settings = _settings(results)
    rows = [_row(n, t, settings, shown, results["best"] == n - 1) for n, t in enumerate(results["trials"], 1)]
    header = ["trial", *settings, *(c.label for c in shown), "state", ""]
    parts = [align([header, *([str(r.number), *r.cells, r.state, _marks(r)] for r in rows)])]
    failed = [f"trial {r.number} {r.state}: {r.error}" for r in rows if r.error]
    parts += ["\n".join(failed)] if failed else []
    parts += [paper_text(paper)] if paper else []
    return "\n\n".join(parts)


def _settings(results: Mapping[str, Any]) -> list[str]:
    """All settings that any trial names, in the order of the space first."""
    named = [key for key in results["space"] if any(key in t["settings"] for t in results["trials"])]
    return list(dict.fromkeys([*named, *(key for t in results["trials"] for key in t["settings"])]))


def _row(number: int, trial: Trial, settings: Sequence[str], shown: Sequence[Column], best: bool) -> TrialRow:
    cells = [setting_text(trial["settings"].get(key)) for key in settings]
    return TrialRow(
        number=number,
        cells=(*cells, *(c.text(trial["metrics"].get(c.key)) for c in shown)),
        state=trial["state"],
        rung="" if trial["rung"] is None else str(trial["rung"]),
        seconds="" if trial["seconds"] is None else f"{trial['seconds']:.1f}",
        pareto=bool(trial["pareto"]),
        best=best,
        kept=bool(trial["kept"]),
        error=trial["error"] or "",
        dir=trial["dir"],
    )


def _marks(row: TrialRow) -> str:
    return ", ".join(word for word, given in (("best", row.best), ("Pareto", row.pareto)) if given)


def _facts(results: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    trials = results["trials"]
    counts = [(state, sum(t["state"] == state for t in trials)) for state in STATES]
    goals = {"min": "small", "max": "large"}
    return (
        ("method", results["method"]),
        ("space", "; ".join(f"{key}: {_space(value)}" for key, value in results["space"].items())),
        ("objectives", ", ".join(f"{key} {goals[goal]}" for key, goal in results["objectives"].items())),
        ("searcher", results["searcher"]),
        ("scheduler", results["scheduler"]),
        ("rungs", str(results["rungs"])),
        ("tasks", f"{results['tasks']} {results['split']}"),
        ("trials", ", ".join(f"{count} {state}" for state, count in counts if count) or "none"),
        ("seconds", f"{results['seconds']:.1f}"),
    )


def _space(value: Any) -> str:
    """A list of values, or a range, in words."""
    if not isinstance(value, Mapping):
        return ", ".join(setting_text(v) for v in value)
    kind = " over the logarithm" if value.get("log") else ""
    return f"{setting_text(value['low'])} to {setting_text(value['high'])}{kind}"


def _id(results: Mapping[str, Any]) -> str:
    """What keeps the ids of this sweep's drawings apart on a page."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"sweep-{results['name']}")
