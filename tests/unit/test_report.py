"""The HTML page: the numbers it shows, what it escapes, and that it needs nothing beside itself."""

from __future__ import annotations

import html
import random
import re

import pytest

from depo.config.load import parse_config
from depo.evaluation.results import build_results
from depo.records import Episode, Manifest, Step, Task, Trajectory
from depo.report.examples import pick_examples
from depo.report.html import render, write_report
from depo.report.plots import colours, sweep_plot, training_curves

METHODS = ("bc_raw", "bc", "sft", "kto", "depo")
EVIL = "<script>alert('x')</script> & \"quoted\""


def make_config(**values):
    return parse_config(
        {
            "name": "babyai-tiny",
            "description": "Small agents on BabyAI.",
            "departures": "own rollouts, paired by task",
            "rounds": [{"name": "teacher", "policy": {"kind": "teacher"}}],
            "methods": {
                "bc_raw": {"objective": "sft", "init": "student", "view": "raw"},
                "bc": {"objective": "sft", "init": "student"},
                "sft": {"objective": "sft"},
                "kto": {"objective": "kto"},
                "depo": {"objective": "depo", "alpha_tokens": 3, "alpha_steps": 3},
            },
            "evaluation": {"bootstrap": 300},
            **values,
        }
    )


def make_episodes(tasks=60):
    rng = random.Random(1)
    found = []
    for task in range(tasks):
        level, hard = ("GoToObj", "OpenRedDoor")[task % 2], 1 + rng.randrange(5)
        for m, method in enumerate(METHODS):
            for decoding in ("sampled", "greedy"):
                success = rng.random() < 0.82 + 0.03 * m
                steps = hard + rng.randrange(3) if success else 12
                tokens = steps * (32 if method == "bc_raw" else 13 - m)
                found.append(
                    Episode(
                        method,
                        decoding,
                        f"babyai/{level}/{task}",
                        level,
                        success,
                        0.95 * success,
                        tokens,
                        steps,
                        150 * steps,
                        "terminated" if success else "max_steps",
                        f"{method}{task}",
                    )
                )
    return found


def make_trajectory(policy, seed, thoughts, success=True):
    steps = tuple(
        Step(
            observation=f"You see a red ball 2 steps forward. (turn {i})",
            text=f"Thought: {t}\nAction: go to ball",
            thought=t,
            action="go to red ball 1",
            reward=0.0,
            valid=i % 3 != 2,
            malformed=False,
            num_tokens=len(t.split()) + 5,
        )
        for i, t in enumerate(thoughts)
    )
    return Trajectory(
        task=Task("babyai", "GoToObj", seed, "test"),
        policy=policy,
        tokenizer="",
        system="",
        steps=steps,
        reward=0.9 * success,
        success=success,
        stop_reason="terminated" if success else "max_steps",
    )


def make_examples():
    wordy = "I think the red ball is ahead of me, so it may be best to walk to it now"
    before = [make_trajectory("bc", seed, [wordy] * (2 + seed % 3)) for seed in range(9)]
    after = [make_trajectory("depo", seed, ["Ball ahead."] * (1 + seed % 2), seed != 4) for seed in range(9)]
    return pick_examples(before, after)


def make_curves(steps=60):
    rng = random.Random(2)
    sft = [{"step": s, "loss": 0.4 + 2 / s + 0.05 * rng.random()} for s in range(1, steps)]
    kto = [
        {
            "step": s,
            "loss": 0.5 - 0.002 * s + 0.02 * rng.random(),
            "log_ratio/desirable": 0.01 * s,
            "log_ratio/undesirable": -0.08 * s + rng.random(),
            "z0": 0.02 * rng.random(),
            "bonus": 0.9,
        }
        for s in range(1, steps)
    ]
    return {"student": sft, "bc_raw": sft, "bc": sft, "sft": sft, "kto": kto, "depo": kto}


def make_manifests():
    def manifest(stage, inputs, **metrics):
        return Manifest(
            stage,
            1,
            f"{abs(hash(stage)) % 16**8:016x}",
            {},
            inputs,
            2400,
            3,
            61.5,
            "2026-11-21T10:00:00+00:00",
            metrics,
            {"depo": "0.1.0", "torch": "2.13.0"},
            "6e9d64712345+",
        ).to_row()

    return [
        manifest("generate teacher", {}, tasks=300, success=0.93, reward=0.871, tokens=61.2, steps=3.9),
        manifest(
            "annotate teacher", {"trajectories": "ab" * 8}, trajectories=2400, desirable=1301, share=0.542
        ),
        manifest("train depo", {"samples": "cd" * 8, "reference": "ef" * 8}, loss=0.41),
    ]


@pytest.fixture(scope="module")
def config():
    return make_config()


@pytest.fixture(scope="module")
def results(config):
    return build_results(make_episodes(), config, {"data hash": "0123abcd"})


@pytest.fixture(scope="module")
def page(results, config):
    return render(results, make_curves(), make_manifests(), make_examples(), config)


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
        format(row[k] * metric["scale"], f"{sign}.{metric['digits']}f") for k in (key, "ci_low", "ci_high")
    )
    return value, f"[{low}, {high}]"


def test_every_number_of_the_results_table_is_that_of_results_json(page, results):
    shown, checked = cells(page), 0
    for name, method in results["methods"].items():
        for decoding, values in [("sampled", method), ("greedy", method["decodings"]["greedy"])]:
            for key, metric in results["metrics"].items():
                if key != "input_tokens_all":
                    assert shown[f"{decoding}/{name}/{key}"] == printed(values[key], "mean", metric)
                    checked += 1
    assert checked == 5 * 2 * 6


def test_every_number_of_the_comparisons_is_that_of_results_json(page, results):
    shown = cells(page)
    rows = [row for row in results["comparisons"] if row["metric"] != "input_tokens_all"]
    assert len(rows) == 5 * 2 * 6
    for row in rows:
        key = f"{row['decoding']}/{row['a']}-{row['b']}/{row['metric']}"
        assert shown[key] == printed(row, "difference", results["metrics"][row["metric"]], "+")


def test_colour_is_given_only_where_the_interval_excludes_zero_and_says_which_way(page, results):
    tones = {
        html.unescape(key): tone
        for tone, key in re.findall(r'<td class="num (\w*)" data-key="([^"]+)"', page)
    }
    for row in results["comparisons"]:
        if row["metric"] == "input_tokens_all":
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
    assert "experiment 0, evaluation [0], bc_raw 0" in page
    assert page.count("<svg") == 4


def test_the_report_is_written_and_written_again_to_the_same_bytes(tmp_path, results, config):
    arguments = (results, make_curves(), make_manifests(), make_examples(), config)
    first = write_report(tmp_path / "report", *arguments)
    before = first.read_bytes()
    assert write_report(tmp_path / "report", *arguments).read_bytes() == before
    assert [p.name for p in (tmp_path / "report").iterdir()] == ["index.html"]


def test_a_report_can_be_made_of_one_method_without_curves_examples_or_manifests(config):
    lost = [e for e in make_episodes(6) if e.method == "bc" and e.decoding == "sampled" and not e.success]
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


def test_a_sweep_over_one_setting_is_a_line_over_two_a_heat_map_over_three_only_a_table(results, config):
    def trials(*names):
        return [
            {"params": dict.fromkeys(names, 0.0) | {name: 3.0}, "metrics": {"tokens_all": 30.0 + i}}
            for i, name in enumerate(names)
        ] + [{"params": dict.fromkeys(names, 0.0), "metrics": {"tokens_all": 40.0}}]

    one, two, three = trials("alpha"), trials("alpha", "beta"), trials("alpha", "beta", "gamma")
    assert "alpha" in sweep_plot(one, "tokens_all")
    assert "40" in sweep_plot(two, "tokens_all") and "beta" in sweep_plot(two, "tokens_all")
    assert sweep_plot(three, "tokens_all") == ""
    page = render(results, {}, [], [], config, sweep=three)
    assert "<h2>Sweep</h2>" in page and "<th>gamma</th>" in page


def test_curves_without_anything_to_show_make_no_plot():
    ink = colours(["bc", "depo"])
    assert training_curves({}, {}, ink) == ""
    assert training_curves({"bc": [{"step": 1, "seconds": 3.0}]}, {"bc": "sft"}, ink) == ""
    assert "bonus" in training_curves({"depo": [{"step": 1, "bonus": 0.9}]}, {"depo": "depo"}, ink)


def test_curves_of_every_objective_are_drawn_by_their_kind():
    ink = colours(["weighted_bc", "simpo", "own"])
    row = {"step": 1, "loss": 0.5, "gradient_corr_tokens": -0.2, "saturated_share": 0.1}
    curves = {"weighted_bc": [{"step": 1, "loss": 2.0}], "simpo": [row], "own": [row]}
    objectives = {"weighted_bc": "weighted_bc", "simpo": "simpo", "own": "mine:LOSS"}
    drawn = training_curves(curves, objectives, ink)
    for title in ("loss, SFT", "loss, preference stage", "gradient weight against tokens", "saturated"):
        assert title in drawn
    assert "pre-training" not in drawn
