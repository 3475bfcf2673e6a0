"""What tests of reports are made of: a configuration, episodes, curves, manifests, a sweep."""

from __future__ import annotations

import itertools
import random

from depo.config.load import parse_config
from depo.evaluation.results import build_results
from depo.records import Episode, Manifest, Step, Task, Trajectory, content_hash
from depo.report.examples import pick_examples

EVIL = "<script>alert('x')</script> & \"quoted\""
METHODS = ("bc_raw", "bc", "sft", "kto", "depo")


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
            "evaluation": {
                "bootstrap": 300,
                "seeds": [0, 1],
                "success_reward": 0.9,
                "difficulty": {"easy": ["GoTo*"], "hard": ["Open*"]},
                "prices": {"default": {"input": 0.5, "output": 2.0}},
                "suites": {"gsm": {"env": {"id": "maths"}}},
            },
            **values,
        }
    )


def make_episodes(tasks=60):
    rng = random.Random(1)
    plays = [("sampled", 0, ""), ("sampled", 1, ""), ("greedy", 0, ""), ("sampled", 0, "gsm")]
    return [
        make_episode(rng, m, ("GoToObj", "OpenRedDoor")[task % 2], task, *play)
        for task in range(tasks)
        for m in range(len(METHODS))
        for play in plays
    ]


def make_episode(rng, m, level, task, decoding, seed, suite):
    method = METHODS[m]
    success = rng.random() < 0.82 + 0.03 * m
    steps = 1 + task % 5 + rng.randrange(3) if success else 12
    return Episode(
        method=method,
        decoding=decoding,
        task_id=f"babyai/{level}/{task}",
        level=level,
        success=success,
        reward=0.95 * success,
        num_tokens=steps * (32 if method == "bc_raw" else 13 - m),
        num_steps=steps,
        input_tokens=150 * steps,
        stop_reason="terminated" if success else "max_steps",
        trajectory_id=f"{method}{task}",
        seed=seed,
        suite=suite,
        invalid=rng.randrange(2),
        malformed=0,
        repeated=rng.randrange(3),
    )


def make_thoughts(gain):
    """What scoring the thoughts of a method reports."""

    def about(mean):
        return {"mean": mean, "ci_low": mean - 0.1, "ci_high": mean + 0.1, "n": 20}

    return {
        "episodes": 20,
        "turns": 70,
        "thought_tokens_mean": 11.5,
        "intervals": {
            "utility_mean": about(gain),
            "utility_per_token": about(gain / 4),
            "share_positive": about(0.8),
        },
        "by_position": {str(n): {"utility_mean": gain / n, "turns": 40 // n} for n in range(1, 5)},
    }


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
            content_hash(stage),
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


def make_results(config, **values):
    """The results of `make_episodes` with thoughts of two methods, and where they come from."""
    told = {"bc": {"thoughts": make_thoughts(1.2)}, "depo": {"thoughts": make_thoughts(0.7)}}
    manifests = {f"evaluate {name}": f"{i}" * 16 for i, name in enumerate(METHODS, 1)}
    return build_results(make_episodes(), config, {"manifests": manifests, **values}, told)


def make_sweep(space, name="alpha", failed=(), stopped=(), objectives=None):
    """The `results.json` of a sweep over the product of `space`, tokens falling with each trial."""
    settings = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    trials = []
    for i, setting in enumerate(settings):
        state = "failed" if i in failed else "stopped" if i in stopped else "done"
        metrics = {"success": 0.7 + 0.01 * i, "tokens_all": 60.0 - i, "steps_all": 5.0, "train/loss": 0.4}
        trials.append(
            {
                "settings": setting,
                "state": state,
                "metrics": {} if state == "failed" else metrics,
                "rung": None if state == "failed" else 1,
                "seconds": 12.25,
                "error": f"RuntimeError: {EVIL} | out of memory" if state == "failed" else "",
                "dir": f"trials/{i}-0123abcd",
                "kept": i == 0,
                "pareto": state == "done" and i >= len(settings) - 2,
            }
        )
    done = [i for i, trial in enumerate(trials) if trial["state"] == "done"]
    return {
        "version": 1,
        "name": name,
        "method": "depo",
        "space": space,
        "searcher": "grid",
        "scheduler": "none",
        "rungs": 1,
        "objectives": objectives or {"tokens_all": "min"},
        "tasks": 100,
        "split": "validation",
        "seconds": 321.0,
        "trials": trials,
        "best": done[-1] if done else None,
    }
