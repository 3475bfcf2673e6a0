"""`results.json` and the terminal's table."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from depo.config.load import parse_config
from depo.evaluation.results import build_results, format_table
from depo.records import Episode

KEYS = ["success", "reward", "tokens_all", "steps_all", "tokens_success", "steps_success", "input_tokens_all"]


def config(**evaluation):
    method = {"objective": "sft"}
    return parse_config(
        {
            "name": "exp",
            "rounds": [{"name": "teacher", "policy": {"kind": "teacher"}}],
            "methods": {
                "bc_raw": {**method, "init": "student", "view": "raw"},
                "bc": {**method, "init": "student"},
                "kto": {"objective": "kto"},
                "depo": {"objective": "depo", "alpha_tokens": 3},
            },
            "evaluation": {"bootstrap": 500, **evaluation},
        }
    )


def episodes(methods=("bc_raw", "bc", "kto", "depo"), decodings=("sampled", "greedy"), tasks=40):
    rng = random.Random(0)
    found = []
    for task in range(tasks):
        hard = 1 + rng.randrange(6)
        for m, method in enumerate(methods):
            for decoding in decodings:
                success = rng.random() < 0.8
                steps = hard + rng.randrange(3) if success else 12
                found.append(
                    Episode(
                        method=method, decoding=decoding, task_id=f"babyai/L{task % 2}/{task}",
                        level=f"L{task % 2}", success=success, reward=0.9 * success,
                        num_tokens=steps * (20 - 3 * m), num_steps=steps, input_tokens=steps * 50,
                        stop_reason="terminated" if success else "max_steps",
                        trajectory_id=f"{method}-{decoding}-{task}",
                    )
                )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def results():
    return build_results(episodes(), config(compare=[("kto", "bc_raw")]), {"seed": 0}, {"bc": {"steps": 60}})


def row(results, a, b, metric, decoding="sampled"):
    [found] = [
        c
        for c in results["comparisons"]
        if (c["a"], c["b"], c["metric"], c["decoding"]) == (a, b, metric, decoding)
    ]
    return found


def test_methods_carry_every_metric_for_both_decodings_and_each_level(results):
    assert list(results["methods"]) == ["bc_raw", "bc", "kto", "depo"]
    bc = results["methods"]["bc"]
    for part in (bc, bc["decodings"]["greedy"], bc["levels"]["L0"]):
        assert all(set(part[key]) == {"mean", "ci_low", "ci_high", "n"} for key in KEYS)
    assert bc["decoding"] == "sampled"
    assert bc["success"]["n"] == 40
    assert bc["levels"]["L0"]["success"]["n"] + bc["levels"]["L1"]["success"]["n"] == 40
    assert bc["info"] == {"steps": 60}


def test_the_comparisons_are_against_the_reference_depo_against_kto_and_those_asked_for(results):
    pairs = [(c["a"], c["b"]) for c in results["comparisons"]]
    assert list(dict.fromkeys(pairs)) == [
        ("bc_raw", "bc"), ("kto", "bc"), ("depo", "bc"), ("depo", "kto"), ("kto", "bc_raw")
    ]  # fmt: skip
    assert len(pairs) == 5 * 2 * len(KEYS)
    first = results["comparisons"][0]
    assert {"a", "b", "metric", "decoding", "difference", "ci_low", "ci_high", "n"} <= set(first)


def test_a_pair_asked_for_twice_stands_once():
    found = build_results(episodes(), config(compare=[("depo", "kto"), ("depo", "bc")]), {})
    assert len(found["comparisons"]) == 4 * 2 * len(KEYS)


def test_the_paired_difference_over_all_tasks_is_the_difference_of_the_means(results):
    means = {name: method["tokens_all"]["mean"] for name, method in results["methods"].items()}
    found = row(results, "depo", "bc", "tokens_all")
    assert found["difference"] == pytest.approx(means["depo"] - means["bc"])
    assert found["relative"]["difference"] == pytest.approx(means["depo"] / means["bc"] - 1)


def test_differences_over_successes_are_over_tasks_where_both_succeed(results):
    solved = {
        method: {
            e.task_id for e in episodes() if e.method == method and e.decoding == "sampled" and e.success
        }
        for method in ("depo", "bc")
    }
    both = solved["depo"] & solved["bc"]
    assert 0 < len(both) < min(map(len, solved.values()))
    assert row(results, "depo", "bc", "steps_success")["n"] == len(both)


def test_the_order_of_episodes_changes_nothing(results):
    shuffled = episodes()
    random.Random(3).shuffle(shuffled)
    again = build_results(shuffled, config(compare=[("kto", "bc_raw")]), {"seed": 0}, {"bc": {"steps": 60}})
    assert again == results


def test_only_tasks_that_both_methods_tried_are_compared():
    fewer = [e for e in episodes() if e.method != "depo" or not e.task_id.endswith("7")]
    found = build_results(fewer, config(), {})
    assert row(found, "depo", "bc", "success")["n"] == 36
    assert found["methods"]["bc"]["success"]["n"] == 40


def test_results_are_strict_json_even_where_nothing_succeeds():
    lost = [dataclasses.replace(e, success=False, reward=0.0) for e in episodes()]
    found = build_results(lost, config(), {"seed": 0})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert row(found, "depo", "bc", "tokens_success")["difference"] is None
    assert "–" in format_table(found)


def test_without_episodes_it_says_so():
    with pytest.raises(ValueError, match="no episodes"):
        build_results([], config(), {})


def test_the_terminal_table_shows_the_means_and_marks_intervals_that_exclude_zero(results):
    text = format_table(results)
    lines = text.splitlines()
    bc = results["methods"]["bc"]["tokens_all"]
    assert any(
        line.startswith("bc ") and f"{bc['mean']:.1f} [{bc['ci_low']:.1f}, {bc['ci_high']:.1f}]" in line
        for line in lines
    )
    assert row(results, "depo", "bc", "tokens_all")["excludes_zero"]
    depo = next(line for line in lines if line.startswith("depo − bc"))
    difference = row(results, "depo", "bc", "tokens_all")
    assert f"{difference['difference']:+.1f}" in depo
    assert f"{difference['ci_high']:+.1f}]*" in depo
    assert sum("greedy" in line for line in lines) == 1


def test_a_method_tried_with_one_decoding_only_is_left_out_of_the_others_table():
    some = [e for e in episodes() if e.method != "kto" or e.decoding == "sampled"]
    text = format_table(build_results(some, config(), {}))
    assert sum(line.startswith("kto ") and "−" not in line.split("[")[0] for line in text.splitlines()) == 1
