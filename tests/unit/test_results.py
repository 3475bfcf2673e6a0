"""`results.json`: methods, levels, seeds, suites, comparisons; and the terminal's table."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest

from depo.config.base import ConfigError
from depo.config.load import parse_config
from depo.evaluation.metrics import METRICS
from depo.evaluation.results import build_results
from depo.evaluation.text import format_table
from depo.records import Episode

PAPER = ["success", "reward", "tokens_all", "steps_all", "tokens_success", "steps_success"]
KEYS = [*PAPER, "input_tokens_all", "invalid_rate", "malformed_rate", "repeated_rate"]


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
    return build_results(
        episodes(), config(comparisons=[("kto", "bc_raw")]), {"seed": 0}, {"bc": {"steps": 60}}
    )


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
    assert set(first) == {
        "a", "b", "metric", "decoding", "difference", "ci_low", "ci_high", "n", "excludes_zero", "relative",
        "probability",
    }  # fmt: skip


def named(methods, **evaluation):
    """The pairs compared, and the pair in question, of methods given as objective and what it starts from."""
    settings = {
        name: {"objective": objective, "init": init, **({"alpha_tokens": 3} if objective == "dpo" else {})}
        for name, (objective, init) in methods.items()
    }
    rounds = [{"name": "teacher", "policy": {"kind": "teacher"}}]
    config = parse_config(
        {
            "name": "exp",
            "rounds": rounds,
            "methods": settings,
            "evaluation": {"reference": "base", **evaluation},
        }
    )
    found = build_results(episodes(tuple(methods), ("sampled",), tasks=6), config, {})
    compared = dict.fromkeys((c["a"], c["b"]) for c in found["comparisons"])
    return list(compared), found["headline"]


def test_which_methods_are_compared_follows_what_they_are_and_not_their_names():
    base = {"base": ("sft", "student")}
    renamed = {**base, "plain": ("kto", "base"), "my_depo": ("depo", "base")}
    compared, headline = named(renamed)
    assert compared == [("plain", "base"), ("my_depo", "base"), ("my_depo", "plain")]
    assert headline == ["my_depo", "base"]
    misnamed = {**base, "depo": ("sft", "base"), "kto": ("sft", "base"), "last": ("simpo", "base")}
    compared, headline = named(misnamed)
    assert compared == [("depo", "base"), ("kto", "base"), ("last", "base")]
    assert headline == ["last", "base"]


def test_a_bonus_is_held_against_its_absence_from_the_same_start_only():
    methods = {
        "base": ("sft", "student"), "other": ("sft", "student"), "kto": ("kto", "other"),
        "depo": ("depo", "base"), "dpo": ("dpo", "base"),
    }  # fmt: skip
    compared, _ = named(methods, comparisons=[["depo", "kto"], ["kto", "dpo"]])
    assert compared == [
        ("other", "base"), ("kto", "base"), ("depo", "base"), ("dpo", "base"), ("depo", "kto"), ("kto", "dpo")
    ]  # fmt: skip


def test_a_pair_asked_for_twice_stands_once():
    found = build_results(episodes(), config(comparisons=[("depo", "kto"), ("depo", "bc")]), {})
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
    again = build_results(
        shuffled, config(comparisons=[("kto", "bc_raw")]), {"seed": 0}, {"bc": {"steps": 60}}
    )
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
    assert lines[0] == "Success: the environment's own end."
    chance = difference["probability"]
    better = next(line for line in lines if line.startswith("depo, bc"))
    low, high = 100 * chance["ci_low"], 100 * chance["ci_high"]
    assert f"{100 * chance['mean']:.0f} [{low:.0f}, {high:.0f}]" in better
    assert chance["ci_low"] > 0.5  # fewer tokens are better


def test_over_fewer_than_five_tasks_nothing_has_an_interval_and_every_reader_is_told_why():
    found = build_results(episodes(tasks=4), config(), {})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    estimates = [m[key] for m in found["methods"].values() for key in KEYS]
    chances = [c["probability"] for c in found["comparisons"]]
    for shown in [*estimates, *found["comparisons"], *chances]:
        assert (shown["ci_low"], shown["ci_high"]) == (None, None)
        value = shown.get("difference", shown.get("mean"))
        assert value is None or shown["reason"] == "fewer than 5 tasks"
    assert not any(c["excludes_zero"] for c in found["comparisons"])
    text = format_table(found)
    assert "*" not in text.replace("* the interval excludes zero", "")
    assert text.count("[–] no interval: fewer than 5 tasks") == 4  # two decodings, differences, chances


def test_twenty_failures_have_a_proper_interval_in_every_table():
    lost = [dataclasses.replace(e, success=False, reward=0.0) for e in episodes(tasks=20)]
    found = build_results(lost, config(seeds=[0]), {})
    for key in ("success", "reward"):
        bc = found["methods"]["bc"][key]
        assert (bc["mean"], bc["ci_low"]) == (0.0, 0.0)
        assert bc["ci_high"] == pytest.approx(0.168, abs=5e-4)
        difference = row(found, "depo", "bc", key)
        assert (
            difference["ci_low"] == pytest.approx(-difference["ci_high"]) == pytest.approx(-0.168, abs=5e-4)
        )
        assert 0 < difference["probability"]["ci_low"] < 0.5 < difference["probability"]["ci_high"] < 1
    wasted = found["methods"]["bc"]["economics"]["tokens_on_failures"]
    assert (wasted["mean"], wasted["ci_high"]) == (1.0, 1.0)
    assert 0.7 < wasted["ci_low"] < 0.9
    assert "0.0 [0.0, 16.8]" in format_table(found)


def test_a_method_tried_with_one_decoding_only_is_left_out_of_the_others_table():
    some = [e for e in episodes() if e.method != "kto" or e.decoding == "sampled"]
    text = format_table(build_results(some, config(), {}))
    assert sum(line.startswith("kto ") and "−" not in line.split("[")[0] for line in text.splitlines()) == 1


def with_seeds(seeds, **evaluation):
    """The episodes once a seed when sampled, with other numbers, and once when greedy."""
    some = [
        dataclasses.replace(e, seed=seed, num_tokens=e.num_tokens + seed)
        for e in episodes()
        for seed in (seeds if e.decoding == "sampled" else seeds[:1])
    ]
    return build_results(some, config(seeds=list(seeds), **evaluation), {})


def test_version_2_says_what_it_is_about(results):
    assert results["version"] == 2
    assert (results["tasks"], results["seeds"], results["reference"]) == (40, [0], "bc")
    assert [key for key, m in results["metrics"].items() if m["group"] == "paper"] == PAPER
    assert list(results["metrics"]) == KEYS == [m.key for m in METRICS]


def test_each_seed_has_its_means_and_several_have_an_interquartile_mean(results):
    assert set(results["methods"]["bc"]["by_seed"]) == {"0"}
    assert "iqm" not in results["methods"]["bc"]
    found = with_seeds((0, 5))["methods"]["bc"]
    assert found["by_seed"]["5"]["tokens_all"] == pytest.approx(found["by_seed"]["0"]["tokens_all"] + 5)
    assert found["tokens_all"]["mean"] == pytest.approx(found["by_seed"]["0"]["tokens_all"] + 2.5)
    assert set(found["iqm"]) == {"success", "reward", "tokens_all", "steps_all", "input_tokens_all"}
    assert found["iqm"]["tokens_all"]["n"] == 80
    assert (found["success"]["n"], found["episodes"]) == (40, 80)
    assert found["decodings"]["greedy"]["episodes"] == 40


def test_what_counts_as_success_is_settled_here_and_printed():
    strict = build_results(episodes(), config(success_reward=0.95), {})
    assert strict["success"] == "return of at least 0.95"
    assert strict["methods"]["bc"]["success"]["mean"] == 0.0
    assert format_table(strict).startswith("Success: return of at least 0.95.")


def test_levels_are_gathered_into_difficulties_and_the_first_that_names_one_has_it():
    found = build_results(episodes(), config(difficulty={"easy": ["L0"], "rest": ["L*"]}), {})
    bc = found["methods"]["bc"]
    assert list(bc["difficulties"]) == ["easy", "rest"]
    assert bc["difficulties"]["easy"] == bc["levels"]["L0"]
    assert bc["difficulties"]["rest"] == bc["levels"]["L1"]
    some = build_results(episodes(), config(difficulty={"easy": ["?0"]}), {})
    assert some["methods"]["bc"]["difficulties"]["easy"]["episodes"] == 20


def test_a_pattern_that_matches_no_level_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"evaluation.difficulty.easy: 'GoTo\*' matches no level.*L0, L1"):
        build_results(episodes(), config(difficulty={"easy": ["L0", "GoTo*"]}), {})


def test_prices_give_costs_and_a_controlled_policy_costs_what_the_one_it_holds_does():
    names = ("bc", "depo", "short")
    settings = {
        "controlled": {"short": {"method": "bc", "tokens": 5}},
        "prices": {"bc": {"input": 1, "output": 10}, "default": {"input": 0, "output": 0}},
    }
    found = build_results(episodes(methods=names), config(**settings), {})
    costs = {name: found["methods"][name]["economics"]["cost"]["mean"] for name in names}
    bc, short = found["methods"]["bc"], found["methods"]["short"]
    assert costs["bc"] == pytest.approx(
        (bc["input_tokens_all"]["mean"] + 10 * bc["tokens_all"]["mean"]) / 1e6
    )
    assert costs["short"] == pytest.approx(
        (short["input_tokens_all"]["mean"] + 10 * short["tokens_all"]["mean"]) / 1e6
    )
    assert costs["depo"] == 0.0
    assert found["economics"]["prices"]["bc"]["output"] == 10


def test_without_prices_nothing_is_priced_and_the_frontier_is_there_all_the_same(results):
    economics = results["methods"]["bc"]["economics"]
    assert economics["cost"]["mean"] is None
    assert economics["cost_of_pass"] is None
    assert 0 < economics["tokens_on_failures"]["mean"] < 1
    pareto = [name for name, m in results["methods"].items() if m["economics"]["pareto"]]
    assert pareto == results["economics"]["pareto"] != []
    assert 0 < results["economics"]["hypervolume"]["value"] < 1
    assert set(results["curves"]["tokens"]["methods"]) == set(results["methods"])


def test_thought_utility_stands_by_itself_and_the_rest_in_info():
    told = {"bc": {"steps": 60, "thoughts": {"utility_mean": 0.3}}}
    found = build_results(episodes(), config(), {}, told)["methods"]
    assert found["bc"]["thought_utility"] == {"utility_mean": 0.3}
    assert found["bc"]["info"] == {"steps": 60}
    assert "thought_utility" not in found["kto"]


def test_a_suite_has_its_own_tasks_table_and_definition_of_success():
    elsewhere = [dataclasses.replace(e, suite="sums") for e in episodes(decodings=("sampled",), tasks=12)]
    suites = {"sums": {"env": {"id": "maths"}, "success_reward": 0.5, "tasks": 12}}
    found = build_results([*episodes(), *elsewhere], config(suites=suites), {})
    plain = build_results(episodes(), config(suites=suites), {})
    assert {**found, "suites": {}} == {**plain, "suites": {}}
    suite = found["suites"]["sums"]
    assert (suite["env"], suite["tasks"], suite["success"]) == ("maths", 12, "return of at least 0.5")
    assert suite["methods"]["bc"]["success"]["n"] == 12
    assert set(suite["methods"]["bc"]["levels"]) == {"L0", "L1"}
    pairs = dict.fromkeys((c["a"], c["b"]) for c in suite["comparisons"])
    assert list(pairs) == [("bc_raw", "bc"), ("kto", "bc"), ("depo", "bc"), ("depo", "kto")]
    assert "Suite sums: 12 test tasks of maths, sampled; success: return of at least 0.5" in format_table(
        found
    )


def test_episodes_of_a_suite_alone_are_not_an_evaluation():
    elsewhere = [dataclasses.replace(e, suite="sums") for e in episodes()]
    with pytest.raises(ValueError, match="no episodes"):
        build_results(elsewhere, config(suites={"sums": {"env": {"id": "maths"}}}), {})


def test_without_one_under_the_first_decoding_the_other_is_still_shown():
    found = build_results(episodes(decodings=("greedy",)), config(), {})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["methods"]["bc"]["decodings"]["greedy"]["success"]["n"] == 40
    assert "greedy" in format_table(found)
