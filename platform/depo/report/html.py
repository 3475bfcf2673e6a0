"""One page on an experiment: tables, plots, examples, and where every number comes from."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from depo.config.load import dump_config
from depo.config.schema import ExperimentConfig
from depo.report import plots, tables
from depo.report.examples import Example

_DATA_STAGES = ((("script", "generate"), "Trajectories"), (("annotate",), "Samples"))


def write_report(
    out_dir: Path,
    results: Mapping[str, Any],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    manifests: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    config: ExperimentConfig,
    sweep: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write `out_dir/index.html`, which needs nothing beside itself, and return its path.

    `results` is `results.json`; `curves` method name to the rows of its `metrics.jsonl`, each with
    "step"; `manifests` rows of `Manifest` in the order the stages ran; `sweep` the trials as
    `{"params": {...}, "metrics": {...}}`. The page depends on these alone: same input, same bytes
    on the same machine.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    page = render(results, curves, manifests, examples, config, sweep)
    path = out_dir / "index.html"
    partial = path.with_suffix(".html.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def render(
    results: Mapping[str, Any],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    manifests: Sequence[Mapping[str, Any]],
    examples: Sequence[Example],
    config: ExperimentConfig,
    sweep: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page as text; arguments as for `write_report`."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pair, tiles = tables.headline(results)
    return environment.get_template("page.html.j2").render(
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        config=config,
        config_yaml=dump_config(config),
        results=results,
        metrics=[results["metrics"][key] for key in tables.PAPER_METRICS],
        level_metrics=[results["metrics"][key] for key in tables.LEVEL_METRICS],
        all_metrics=list(results["metrics"].values()),
        decodings=tables.decodings_of(results),
        result_rows=tables.result_rows(results),
        comparisons=_comparisons(results),
        whole=tables.whole_rows(results),
        levels=tables.level_rows(results),
        pair=pair,
        tiles=tiles,
        plots=_plots(results, curves, config, sweep),
        data_tables=_data_tables(manifests),
        examples=examples,
        sweep=tables.sweep_table(sweep) if sweep else None,
        manifests=manifests,
        versions=dict(item for m in manifests for item in m["versions"].items()),
        provenance=_provenance(results, manifests, config),
    )


def _comparisons(results: Mapping[str, Any]) -> list[tuple[str, list[tables.Row]]]:
    found = [(d, tables.comparison_rows(results, d)) for d in tables.decodings_of(results)]
    return [(decoding, rows) for decoding, rows in found if rows]


def _plots(
    results: Mapping[str, Any],
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    config: ExperimentConfig,
    sweep: Sequence[Mapping[str, Any]],
) -> dict[str, Markup]:
    """Plot name to SVG; the text in them is escaped by the SVG writer."""
    objectives = {name: method.objective for name, method in config.methods.items()}
    ink = plots.colours([*config.methods, *results["methods"], *curves])
    metric = next(iter(config.sweep.objectives)) if config.sweep else "tokens_all"
    drawn = {
        "tokens": plots.trade_off(results, "tokens_all", ink),
        "steps": plots.trade_off(results, "steps_all", ink),
        "forest": plots.forest(results, ink),
        "curves": plots.training_curves(curves, objectives, ink),
        "sweep": plots.sweep_plot(sweep, metric),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def _data_tables(manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str], list[list[str]]]]:
    found = [(title, *tables.stage_tables(manifests, kinds)) for kinds, title in _DATA_STAGES]
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
