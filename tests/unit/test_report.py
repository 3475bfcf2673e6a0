"""The page of one run: the numbers it shows, what it escapes, and that it needs nothing beside itself."""

from __future__ import annotations

import html
import re

import pytest
from report_help import (
    EVIL,
    make_config,
    make_curves,
    make_episodes,
    make_examples,
    make_manifests,
    make_results,
    make_sweep,
    make_trajectory,
)

from depo.evaluation.results import build_results
from depo.report.examples import pick_examples
from depo.report.html import render, write_report
from depo.report.paper import paper_rows
from depo.report.plots import colours
from depo.report.plots_training import training_curves
from depo.report.sweep import sweep_view

PAPER = ("success", "reward", "tokens_all", "steps_all", "tokens_success", "steps_success")


@pytest.fixture(scope="module")
def config():
    return make_config()


@pytest.fixture(scope="module")
def results(config):
    return make_results(config, **{"data hash": "0123abcd"})


@pytest.fixture(scope="module")
def page(results, config):
    sweeps = [
        sweep_view(make_sweep({"alpha_tokens": [0.0, 3.0], "alpha_steps": [0.0, 3.0]}, failed=[1]), ()),
        sweep_view(make_sweep({"beta": [0.1, 0.2]}, name="beta"), ()),
    ]
    paper = paper_rows("babyai", ["suites"])
    curves, manifests, examples = make_curves(), make_manifests(), make_examples()
    return render(results, curves, manifests, examples, config, sweeps, paper, ["sweep/old/results.json"])


def cells(page):
    """data-key to (value, interval) as printed."""
    found = re.findall(
        r'data-key="([^"]+)"><b>([^<]*)</b>(?: <span class="relative">[^<]*</span>)?'
        r'(?:<span class="interval">([^<]*)</span>)?',
        page,
    )
    return {
        html.unescape(key): (value.replace("−", "-"), interval.replace("−", "-"))
        for key, value, interval in found
    }


def printed(row, key, metric, sign=""):
    value, low, high = (
        None if row[k] is None else format(row[k] * metric["scale"], f"{sign}.{metric['digits']}f")
        for k in (key, "ci_low", "ci_high")
    )
    return value, f"no interval: {row['reason']}" if low is None else f"[{low}, {high}]"


def test_every_number_of_the_results_table_is_that_of_results_json(page, results):
    shown, checked = cells(page), 0
    for name, method in results["methods"].items():
        for decoding, values in [("sampled", method), ("greedy", method["decodings"]["greedy"])]:
            for key, metric in results["metrics"].items():
                assert shown[f"{decoding}/{name}/{key}"] == printed(values[key], "mean", metric)
                checked += 1
    assert checked == 5 * 2 * 10


def test_every_number_of_the_comparisons_is_that_of_results_json(page, results):
    shown = cells(page)
    rows = [row for row in results["comparisons"] if row["metric"] in PAPER]
    assert len(rows) == 5 * 2 * 6
    for row in rows:
        key = f"{row['decoding']}/{row['a']}-{row['b']}/{row['metric']}"
        assert shown[key] == printed(row, "difference", results["metrics"][row["metric"]], "+")


def test_suites_seeds_money_and_thoughts_are_shown_as_results_json_has_them(page, results):
    shown, metrics = cells(page), results["metrics"]
    for name, method in results["methods"].items():
        for key in ("success", "tokens_all"):
            suite = results["suites"]["gsm"]["methods"][name][key]
            assert shown[f"gsm/sampled/{name}/{key}"] == printed(suite, "mean", metrics[key])
            assert shown[f"iqm/{name}/{key}"] == printed(method["iqm"][key], "mean", metrics[key])
        cost = method["economics"]["cost_of_pass"]
        assert shown[f"economics/{name}/cost_of_pass"][0] == f"{cost['mean']:.4g}"
    useful = results["methods"]["depo"]["thought_utility"]["intervals"]["share_positive"]
    assert shown["thoughts/depo/share_positive"] == (f"{100 * useful['mean']:.4g}", "[70, 90]")
    for title in ("By level", "By difficulty", "Suite gsm", "Sweep alpha", "Sweep beta", "Economics"):
        assert f"<h2>{title}</h2>" in page
    assert "sweep/old/results.json" in page and "nothing of this table was measured here" in page


def test_a_comparison_carries_how_likely_a_is_better(page, results):
    (row,) = [
        r
        for r in results["comparisons"]
        if (r["a"], r["b"], r["decoding"], r["metric"]) == ("depo", "bc", "sampled", "tokens_all")
    ]
    chance = row["probability"]
    shown = f"P {chance['mean']:.2f} [{chance['ci_low']:.2f}, {chance['ci_high']:.2f}]"
    cell = page[page.index('data-key="sampled/depo-bc/tokens_all"') :]
    assert shown in cell[: cell.index("</td>")]


def test_a_rows_numbers_name_the_stage_they_come_from(page):
    row = page[page.index('data-key="sampled/depo/success"') - 300 :]
    assert "evaluate depo 55555555" in row[:300]


def test_the_markdown_holds_the_same_numbers(tmp_path, results, config):
    write_report(tmp_path, results, {}, [], [], config, paper=paper_rows("babyai"))
    lines = (tmp_path / "report.md").read_text().splitlines()
    (row,) = [line for line in lines if line.startswith("| depo | 9")][:1]
    metrics = [results["metrics"][key] for key in PAPER]
    values = [
        printed(results["methods"]["depo"][key], "mean", m) for key, m in zip(PAPER, metrics, strict=True)
    ]
    assert row == f"| depo | {' | '.join(f'{value} {interval}' for value, interval in values)} |"
    assert "| evaluate depo | 5555555555555555 |" in lines
    assert any("Llama-3.1-8B" in line and "| 88.0 | 327.0 |" in line for line in lines)
    assert {line.count("|") for line in lines if line.startswith("| depo − bc ")} == {8}


def test_colour_is_given_only_where_the_interval_excludes_zero_and_says_which_way(page, results):
    tones = {
        html.unescape(key): tone
        for tone, key in re.findall(r'<td class="num (\w*)" data-key="([^"]+)"', page)
    }
    for row in results["comparisons"]:
        if row["metric"] not in PAPER:
            continue
        better = (row["difference"] > 0) == (results["metrics"][row["metric"]]["better"] == "higher")
        expected = ("good" if better else "bad") if row["excludes_zero"] else ""
        assert tones[f"{row['decoding']}/{row['a']}-{row['b']}/{row['metric']}"] == expected
    assert {"good", "bad", ""} <= set(tones.values())


def test_the_page_loads_nothing_from_elsewhere(page):
    assert not re.search(r"<(link|script|img|iframe|object|embed|base)\b", page)
    assert not re.search(r"""(src|href|action)\s*=\s*["'](?!#)""", page)
    assert not re.search(r"url\((?!#)|@import", page)
    assert "http://" not in page and "https://" not in page


def test_what_agents_and_configurations_say_is_escaped(results):
    example = pick_examples([make_trajectory("bc", 1, [EVIL])], [make_trajectory("depo", 1, [EVIL])])
    config = make_config(description=EVIL, departures=EVIL)
    page = render({**results, "provenance": {"note": EVIL}}, {}, [], example, config)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5


def test_the_svg_of_different_plots_shares_no_id_and_every_reference_resolves(page):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) <= set(ids)


def test_departures_description_and_provenance_are_shown(page):
    for text in (
        "own rollouts, paired by task",
        "Small agents on BabyAI.",
        "6e9d64712345+",
        "0123abcd",
        "torch 2.13.0",
    ):
        assert text in page
    assert "experiment 0, evaluation [0, 1], bc_raw 0" in page
    assert page.count("Success:</b> return of at least 0.9") == 1


def test_the_report_is_written_and_written_again_to_the_same_bytes(tmp_path, results, config):
    arguments = (results, make_curves(), make_manifests(), make_examples(), config)
    first = write_report(tmp_path / "report", *arguments)
    before = first.read_bytes()
    assert write_report(tmp_path / "report", *arguments).read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["index.html", "report.md"]


def test_a_report_can_be_made_of_one_method_without_curves_examples_or_manifests():
    config = make_config(evaluation={"bootstrap": 50})
    tried = [e for e in make_episodes(6) if (e.method, e.decoding, e.suite) == ("bc", "sampled", "")]
    lost = [e for e in tried if not e.success]
    assert lost
    page = render(build_results(lost, config, {}), {}, [], [], config)
    assert "Paired comparisons" not in page
    assert page.count("<svg") == 2
    assert cells(page)["sampled/bc/tokens_success"] == ("–", "")


def test_examples_are_the_median_the_largest_saving_and_the_first_failure():
    def run(policy, seed, words, success=True):
        return make_trajectory(policy, seed, ["w " * words], success)

    before = [run("bc", seed, 10) for seed in range(6)]
    after = [run("depo", s, w, s != 5) for s, w in enumerate((9, 1, 8, 12, 7, 2))]
    chosen = {e.before.task.seed: e.why for e in pick_examples(before, after)}
    assert list(chosen) == [2, 1, 5]  # savings are 1, 9, 2, -2, 3: the median is 2; task 5 fails
    assert [e.before.task.seed for e in pick_examples(reversed(before), reversed(after))] == [2, 1, 5]
    assert pick_examples(before, []) == []


def test_curves_without_anything_to_show_make_no_plot():
    ink = colours(["bc", "depo"])
    assert training_curves({}, {}, ink) == []
    assert training_curves({"bc": [{"step": 1, "seconds": 3.0}]}, {"bc": "sft"}, ink) == []
    (panel,) = training_curves({"depo": [{"step": 1, "bonus": 0.9}]}, {"depo": "depo"}, ink)
    assert "bonus" in panel.svg


def test_curves_of_every_objective_are_drawn_by_their_kind():
    ink = colours(["weighted_bc", "simpo", "own"])
    row = {"step": 1, "loss": 0.5, "gradient_corr_tokens": -0.2, "saturated_share": 0.1}
    curves = {"weighted_bc": [{"step": 1, "loss": 2.0}], "simpo": [row], "own": [row]}
    objectives = {"weighted_bc": "weighted_bc", "simpo": "simpo", "own": "mine:LOSS"}
    drawn = "".join(panel.svg for panel in training_curves(curves, objectives, ink))
    for title in ("loss, SFT", "loss, preference stage", "gradient weight against tokens", "saturated"):
        assert title in drawn
    assert "pre-training" not in drawn
