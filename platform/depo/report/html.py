"""The report of one run: tables, plots, examples, and where every number comes from."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from depo.config.load import dump_config
from depo.config.schema import ExperimentConfig
from depo.report import plots_results, tables, tables_detail
from depo.report.examples import Example
from depo.report.markdown import paper_columns, run_markdown
from depo.report.page import fill, write_text
from depo.report.paper import PaperRow
from depo.report.plots import Panel, colours
from depo.report.plots_training import training_curves
from depo.report.sweep import SweepView

_DATA_STAGES = ((("script", "generate"), "Trajectories"), (("annotate",), "Samples"))


def write_report(
    out_dir: Path,
    results: Mapping[str, Any],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    manifests: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    config: ExperimentConfig,
    sweeps: Sequence[SweepView] = (),
    paper: Sequence[PaperRow] = (),
    unread: Sequence[str] = (),
) -> Path:
    """Write `out_dir/index.html`, which needs nothing beside itself, and `report.md`; the page's path.

    `results` is `results.json`; `curves` method name to the rows of its `metrics.jsonl`, each with
    "step"; `manifests` rows of `Manifest` in the order the stages ran; `paper` what is published on the
    environment; `unread` the sweeps that could not be shown. The files depend on these alone: same input,
    same bytes on the same machine.
    """
    page = render(results, curves, manifests, examples, config, sweeps, paper, unread)
    write_text(out_dir / "report.md", run_markdown(results, paper))
    return write_text(out_dir / "index.html", page)


def render(
    results: Mapping[str, Any],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    manifests: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    config: ExperimentConfig,
    sweeps: Sequence[SweepView] = (),
    paper: Sequence[PaperRow] = (),
    unread: Sequence[str] = (),
) -> str:
    """The page as text; arguments as for `write_report`."""
    pair, tiles = tables.headline(results)
    fingerprints = {m["stage"]: m["fingerprint"] for m in manifests}
    return fill(
        "page.html.j2",
        config=config,
        config_yaml=dump_config(config),
        results=results,
        pair=pair,
        tiles=tiles,
        panels=_panels(results, curves, config),
        trained={s: f[:8] for s, f in fingerprints.items() if s.removeprefix("train ") in curves},
        data_tables=_data_tables(manifests),
        examples=examples,
        sweeps=sweeps,
        unread=unread,
        paper=paper,
        paper_metrics=paper_columns(paper),
        manifests=manifests,
        versions=dict(item for m in manifests for item in m["versions"].items()),
        provenance=_provenance(results, manifests, config),
        **result_tables(results),
    )


def result_tables(results: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a `results.json`, by the names that the template knows them under."""
    seed_metrics, seed_means = tables_detail.interquartile_table(results)
    return {
        "metrics": list(tables.metrics_of(results, "paper").values()),
        "more_metrics": list(tables.metrics_of(results, "more").values()),
        "level_metrics": [results["metrics"][key] for key in tables_detail.LEVEL_METRICS],
        "decodings": tables.decodings_of(results),
        "result_rows": [(d, tables.result_rows(results, d)) for d in tables.decodings_of(results)],
        "comparisons": _comparisons(results),
        "behaviour": tables_detail.behaviour_rows(results),
        "economics": tables_detail.economics_table(results),
        "seed_metrics": seed_metrics,
        "seed_means": seed_means,
        "by_seed": tables_detail.seed_rows(results),
        "groups": [
            (word, found)
            for key, word in tables_detail.GROUPS.items()
            if (found := tables_detail.group_rows(results, key))
        ],
        "suites": tables_detail.suites(results),
        "thoughts": tables_detail.thought_rows(results),
    }


def _comparisons(results: Mapping[str, Any]) -> list[tuple[str, list[tables.Row]]]:
    found = [(d, tables.comparison_rows(results, d)) for d in tables.decodings_of(results)]
    return [(decoding, rows) for decoding, rows in found if rows]


def _panels(
    results: Mapping[str, Any],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    config: ExperimentConfig,
) -> dict[str, list[Panel]]:
    """Section to its drawings."""
    objectives = {name: method.objective for name, method in config.methods.items()}
    ink = colours([*config.methods, *results["methods"], *curves])
    return {
        "trade_off": plots_results.trade_offs(results, ink),
        "forest": plots_results.forest(_against_reference(results), ink),
        "budget": plots_results.budget_curves(results, ink),
        "thoughts": plots_results.thought_curves(results, ink),
        "training": training_curves(curves, objectives, ink),
    }


def _against_reference(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Comparisons of the table's decoding with the reference."""
    primary = (results["reference"], results["decoding"])
    return [row for row in results["comparisons"] if (row["b"], row["decoding"]) == primary]


def _data_tables(manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], list[list[str]]]]:
    found = [(title, *tables_detail.stage_tables(manifests, kinds)) for kinds, title in _DATA_STAGES]
    return [(title, header, rows) for title, header, rows in found if rows]


def _provenance(
    results: Mapping[str, Any], manifests: Sequence[Mapping[str, Any]], config: ExperimentConfig
) -> dict[str, str]:
    """What the numbers rest on, beside the manifests: revision, seeds, machine, what the caller adds."""
    revisions = sorted({m["git_revision"] for m in manifests if m["git_revision"]})
    seeds = {"experiment": config.seed, "evaluation": config.evaluation.seeds}
    seeds |= {name: method.seed for name, method in config.methods.items()}
    facts = {
        "git revision": ", ".join(revisions) or "not a checkout",
        "seeds": ", ".join(f"{name} {seed}" for name, seed in seeds.items()),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    given = {str(key): value for key, value in results["provenance"].items()}
    return facts | {key: tables.plain(v) for key, v in given.items() if isinstance(v, (str, int, float))}
