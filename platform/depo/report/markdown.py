"""Tables as Markdown, and as aligned text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from depo.report import tables, tables_detail
from depo.report.paper import PaperRow
from depo.report.tables import Cell, Row
from depo.report.trials import Column, column

PAPER_TITLE = "The paper's own numbers, of other models and other tasks, not measured here:"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; words stand to the left, columns of numbers to the right."""
    cells = [[escaped(cell) for cell in row] for row in rows]
    right = [bool(cells) and all(_is_number(row[i]) for row in cells) for i in range(len(header))]
    rule = ["---:" if number else "---" for number in right]
    lines = [[escaped(name) for name in header], rule, *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in columns, a rule below the first."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def estimates(title: str, metrics: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> str:
    """A table of printed estimates, each with its interval."""
    header = [title, *(m["label"] for m in metrics)]
    return table(header, [[row.name, *(cell_text(c) for c in row.cells)] for row in rows])


def cell_text(cell: Cell) -> str:
    """An estimate in one line; a star where a difference's interval excludes zero."""
    star = "*" if cell.tone else ""
    relative = f"({cell.relative})" if cell.relative else ""
    parts = (f"{cell.value}{star}", relative, cell.interval or cell.reason, cell.chance)
    return " ".join(part for part in parts if part)


def paper_columns(paper: Sequence[PaperRow]) -> list[Column]:
    """The metrics that any of the paper's rows has a value of."""
    return [column(key, {}) for key in dict.fromkeys(key for row in paper for key in row.values)]


def paper_markdown(paper: Sequence[PaperRow]) -> str:
    """The paper's rows, labelled as what they are."""
    metrics = paper_columns(paper)
    rows = [
        [r.model, r.env, r.setting, *(c.text(r.values.get(c.key)) for c in metrics), r.note, r.source]
        for r in paper
    ]
    header = ["model", "environment", "setting", *(c.label for c in metrics), "remark", "source"]
    return f"{PAPER_TITLE}\n\n{table(header, rows)}"


def run_markdown(results: Mapping[str, Any], paper: Sequence[PaperRow]) -> str:
    """A run's `results.json` as Markdown: what the page's main tables show."""
    facts = (
        f"{results['tasks']} {results['split']} tasks of {results['env']}, seeds "
        f"{', '.join(map(str, results['seeds']))}. Success: {results['success']}. "
        "Means with 95% intervals over tasks."
    )
    parts = [f"# {results['name']}", facts, *_decodings(results), _behaviour(results)]
    seed_metrics, seed_means = tables_detail.interquartile_table(results)
    if seed_means:
        parts += [
            "## Interquartile means over seeds and tasks",
            estimates("method", seed_metrics, seed_means),
        ]
    header, rows = tables_detail.economics_table(results)
    if rows:
        cells = [[row.name, *(cell_text(c) for c in row.cells)] for row in rows]
        parts += ["## Economics", table(["method", *header], cells)]
    for key, word in tables_detail.GROUPS.items():
        parts += _groups(results, key, word)
    for suite in tables_detail.suites(results):
        parts += [f"## Suite {suite.name}", suite.facts, estimates("method", suite.metrics, suite.rows)]
        if suite.comparisons:
            parts.append(estimates("a − b", suite.metrics, suite.comparisons))
    if paper:
        parts += ["## The paper", paper_markdown(paper)]
    stages = results["provenance"].get("manifests", {})
    if stages:
        rows_ = [[stage, fingerprint] for stage, fingerprint in stages.items()]
        parts += ["## Provenance", table(["stage", "fingerprint"], rows_)]
    return "\n\n".join(parts) + "\n"


def _decodings(results: Mapping[str, Any]) -> list[str]:
    """The results table of each decoding, and its comparisons."""
    metrics = list(tables.metrics_of(results, "paper").values())
    parts = []
    for decoding in tables.decodings_of(results):
        rows = tables.result_rows(results, decoding)
        parts += [f"## Results, {decoding}", estimates("method", metrics, rows)]
        compared = tables.comparison_rows(results, decoding)
        if compared:
            parts += [
                f"Paired differences over the same tasks, {decoding}; * the 95% interval excludes zero; "
                "P: probability that a does better than b on a task, ties half.",
                estimates("a − b", metrics, compared),
            ]
    return parts


def _behaviour(results: Mapping[str, Any]) -> str:
    labels = [m["label"] for m in tables.metrics_of(results, "more").values()]
    rows = [
        [row.name, decoding, *(cell_text(c) for c in row.cells)]
        for decoding, row in tables_detail.behaviour_rows(results)
    ]
    return table(["method", "decoding", *labels, "episodes", "errors"], rows)


def _groups(results: Mapping[str, Any], key: str, word: str) -> list[str]:
    found = tables_detail.group_rows(results, key)
    if not found:
        return []
    labels = [results["metrics"][k]["label"] for k in tables_detail.LEVEL_METRICS]
    rows = [
        [name, row.name, row.note, *(cell_text(c) for c in row.cells)] for name, rows in found for row in rows
    ]
    return [f"## By {word}, {results['decoding']}", table([word, "method", "episodes", *labels], rows)]


def escaped(cell: str) -> str:
    """Text that breaks no row or column of a table, and is not read as HTML or as emphasis."""
    plain = " ".join(cell.split())
    for mark, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*"), ("_", "\\_")):
        plain = plain.replace(mark, harmless)
    return plain


def _is_number(cell: str) -> bool:
    return cell in ("", "–") or cell.lstrip("+-−")[:1].isdigit()
