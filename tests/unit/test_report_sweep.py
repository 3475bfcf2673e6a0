"""A sweep's page, table and figure: which trials they show, and what is drawn over which settings."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from report_help import EVIL, make_sweep

from depo.report.paper import paper_rows
from depo.report.parallel import scale_of
from depo.report.sweep import sweep_text, sweep_view, write_sweep
from depo.report.trials import column

ALPHAS = {"alpha_tokens": [0.0, 3.0], "alpha_steps": [0.0, 3.0]}


def titles(results):
    return [panel.title for panel in sweep_view(results, ()).panels]


def text_in(svg):
    """What is written in a drawing."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.fixture
def written(tmp_path):
    return write_sweep(tmp_path, make_sweep(ALPHAS, failed=[1]), paper_rows("babyai", ALPHAS))


def test_a_sweep_becomes_a_page_a_table_and_a_figure_and_again_the_same_bytes(tmp_path, written):
    assert {key: path.name for key, path in written.items()} == {
        "html": "index.html",
        "markdown": "sweep.md",
        "svg": "sweep.svg",
    }
    before = {path: path.read_bytes() for path in written.values()}
    write_sweep(tmp_path, make_sweep(ALPHAS, failed=[1]), paper_rows("babyai", ALPHAS))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_failed_trial_is_shown_with_its_cause_and_cannot_write_html(written):
    page, markdown = (written[key].read_text() for key in ("html", "markdown"))
    assert "<script" not in page and "<b>Trial 2 failed:</b> RuntimeError: &lt;script&gt;" in page
    assert "<script" not in markdown and "- trial 2 failed: RuntimeError: &lt;script>" in markdown
    assert f"trial 2 failed: RuntimeError: {EVIL}" in sweep_text(make_sweep(ALPHAS, failed=[1]), ())


def test_the_papers_numbers_are_labelled_as_the_papers(written):
    for key in ("html", "markdown"):
        text = written[key].read_text()
        assert (
            "paper" in text
            and "Qwen2.5-7B" in text
            and "not measured here"
            in text.replace("nothing of this table was measured here", "not measured here")
        )
    assert "the paper's own numbers" in sweep_text(make_sweep(ALPHAS), paper_rows("babyai"))


def test_the_figure_stands_by_itself(written):
    root = ElementTree.fromstring(written["svg"].read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "currentColor" in written["svg"].read_text() and "color:#1c2330" in root.attrib["style"]
    outside = re.findall(r"""(?:href="|url\()(?!#)[^")]*""", written["svg"].read_text())
    assert outside == []


def test_the_terminal_shows_a_line_a_trial_and_marks_best_and_pareto():
    lines = sweep_text(make_sweep(ALPHAS, failed=[1]), ()).splitlines()
    assert lines[0].split() == [
        "trial",
        "alpha_tokens",
        "alpha_steps",
        "T@All",
        "Succ.",
        "%",
        "S@All",
        "state",
    ]
    assert lines[2].split() == ["1", "0", "0", "60.0", "70.0", "5.00", "done"]
    assert lines[3].split() == ["2", "0", "3", "–", "–", "–", "failed"]
    assert lines[5].split() == ["4", "3", "3", "57.0", "73.0", "5.00", "done", "best,", "Pareto"]


def test_one_setting_is_a_line_two_numbers_are_a_heat_map():
    assert titles(make_sweep({"beta": [0.1, 0.2, 0.5]}))[:2] == ["T@All over beta", "Succ. % over beta"]
    view = sweep_view(make_sweep(ALPHAS), ())
    assert view.panels[0].title == "T@All over alpha_tokens and alpha_steps"
    assert {"57.0", "58.0", "59.0", "60.0"} <= set(text_in(view.panels[0].svg))


def test_a_setting_in_words_splits_the_line_and_a_third_number_is_averaged_over():
    lines = sweep_view(make_sweep({"placement": ["log_ratio", "weight"], "beta": [0.1, 0.2]}), ())
    assert lines.panels[0].title == "T@All over beta"
    assert {"placement log_ratio", "placement weight"} <= set(text_in(lines.panels[0].svg))
    words = sweep_view(make_sweep({"use_bonus": [True, False]}), ())
    assert {"true", "false"} <= set(text_in(words.panels[0].svg))
    three = sweep_view(make_sweep({**ALPHAS, "beta": [0.1, 0.2]}), ())
    written = text_in(three.panels[0].svg)
    assert "T@All, mean over beta" in written and "59.5" in written  # the mean of 60 and 59


def test_draws_from_ranges_are_points_rather_than_a_heat_map_of_holes():
    results = make_sweep({"alpha_tokens": [0.0], "alpha_steps": [0.0]})
    (trial,) = results["trials"]
    results["trials"] = [
        {**trial, "settings": {"alpha_tokens": i * 0.37, "alpha_steps": (i * 7 % 13) * 0.11}}
        for i in range(13)
    ]
    results["space"] = {key: {"low": 0.0, "high": 5.0, "log": False} for key in trial["settings"]}
    view = sweep_view(results, ())
    assert "60.0" not in text_in(view.panels[0].svg)  # a colour bar in place of cells
    assert ("space", "alpha_tokens: 0 to 5; alpha_steps: 0 to 5") in view.facts


def test_every_trial_has_a_line_and_the_parallel_axes_name_settings_and_metrics():
    results = make_sweep(ALPHAS, failed=[1], stopped=[2])
    parallel = sweep_view(results, ()).panels[-1]
    assert parallel.wide and parallel.title == "All trials, a line each"
    assert {"alpha_tokens", "alpha_steps", "T@All ↓", "Succ. % ↑"} <= set(text_in(parallel.svg))
    assert parallel.svg.count("stroke-dasharray") == 2  # the stopped one dashed, the failed one dotted


def test_axes_of_parallel_coordinates_place_numbers_words_and_logarithms():
    assert [scale_of([1, 3, 2]).place(v) for v in (1, 2, 3)] == [0.0, 0.5, 1.0]
    assert scale_of([0.01, 1.0], log=True).place(0.1) == pytest.approx(0.5)
    words = scale_of(["b", "a", None, "c"])
    assert [words.place(v) for v in ("b", "a", "c", None)] == [0.0, 0.5, 1.0, None]
    assert scale_of([2.0, 2.0]).place(2.0) == 0.5
    assert scale_of([0.7, 0.9], metric=column("success", {})).ticks() == [(0.0, "70.0"), (1.0, "90.0")]


def test_a_metric_that_became_nan_is_no_number_and_breaks_no_drawing():
    results = make_sweep(ALPHAS)
    results["trials"][0]["metrics"]["tokens_all"] = math.nan
    view = sweep_view(results, ())
    assert "nan" not in "".join(panel.svg for panel in view.panels)
    assert view.rows[0].cells[2] == "–"
    assert scale_of([0.0, 2.0], log=True).place(1.0) == 0.5  # no logarithm of nothing


def test_a_sweep_of_which_nothing_got_through_still_has_its_page(tmp_path):
    results = make_sweep({"beta": [0.1, 0.2]}, failed=[0, 1])
    written = write_sweep(tmp_path, results, ())
    assert "no trial has results" in written["svg"].read_text()
    assert sweep_view(results, ()).panels == ()
    assert written["html"].read_text().count("Trial ") == 2
