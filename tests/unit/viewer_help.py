"""A run directory with evaluations, a suite, a searched round and its labels, as the stages lay it out."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from builders import said, step
from toys import Corridor, Scripted, toy_task, wander

from depo.config.load import dump_config, parse_config
from depo.config.schema import ExperimentConfig, SearchConfig
from depo.data.store import write_atomic, write_table
from depo.pipeline import build
from depo.records import Sample, Task, Trajectory
from depo.search.driver import drive
from depo.search.run import search
from depo.stages.base import Outcome, begin, finish

EVIL = '<img src=x onerror="window.owned = 1"></script><script>window.owned = 2</script>'
LEVELS = ("GoToRedBall", "OpenRedDoor")
TASKS = 12


def make_config(runs_dir: Path, **evaluation) -> ExperimentConfig:
    """Two methods, two seeds, a suite and a round."""
    values = {
        "decoding": ["sampled", "greedy"],
        "seeds": [0, 1],
        "suites": {"far": {"env": {"id": "babyai"}, "tasks": 3, "success_reward": 0.5}},
    }
    return parse_config(
        {
            "name": "toy",
            "rounds": [{"name": "teacher", "policy": {"kind": "teacher"}}],
            "methods": {
                "bc": {"objective": "sft", "init": "student"},
                "depo": {"objective": "depo", "alpha_tokens": 3, "alpha_steps": 3},
            },
            "evaluation": {**values, **evaluation},
            "runtime": {"runs_dir": str(runs_dir)},
        }
    )


def episode(policy: str, seed: int, turns: int, **changes) -> Trajectory:
    """One evaluation episode; its second turn, where there is one, is an invalid action."""
    steps = tuple(
        said(
            f"The ball is {turns - i} ahead, says {policy}.",
            f"go {('left', 'right')[i % 2]}",
            observation=f"Your goal: reach ball {seed}.\nYou see: door {i}.",
            num_tokens=5 + i,
            input_tokens=40 * (i + 1),
            valid=i != 1,
            logprob=-1.5,
        )
        for i in range(turns)
    )
    made = Trajectory(
        task=Task("babyai", LEVELS[seed % 2], seed, "test"),
        policy=policy,
        tokenizer="",
        system="Reach the goal.",
        steps=steps,
        reward=1 - 0.1 * turns,
        success=True,
        stop_reason="terminated",
        final_observation="Done: the goal is reached.",
    )
    return replace(made, **changes)


def episodes(policy: str, extra: int) -> list[Trajectory]:
    """An episode of every task, `extra` turns longer than need be. Of "depo", task 3 broke off, task 4
    holds what nobody should run, task 5 a malformed reply that is said twice."""
    found = [episode(policy, seed, 1 + seed % 3 + extra) for seed in range(TASKS)]
    if policy == "depo":
        lost = "ConnectionError: the server went away"
        found[3] = replace(found[3], success=False, reward=0.0, stop_reason="error", error=lost)
        evil = step(thought=EVIL, action=EVIL, text=EVIL, observation=EVIL, num_tokens=3)
        found[4] = replace(found[4], steps=(evil,), system=EVIL, error=EVIL, final_observation=EVIL)
        lame = step(thought="I wonder.", action="", text="I wonder.", valid=False, malformed=True)
        stuck = {"success": False, "reward": 0.0, "stop_reason": "max_steps"}
        found[5] = replace(found[5], steps=(lame, lame), **stuck)
    return found


def trees(tasks: int = 3) -> list[Trajectory]:
    """Rollouts of a real search of each task."""
    config = SearchConfig(simulations=10, width=3, max_steps=6)
    searches = ((n, search(toy_task(n), Corridor(), config, n, "teacher", "")) for n in range(tasks))
    return [t for done in drive(searches, Scripted(wander), in_flight=1) for t in done.trajectories]


def sample_of(trajectory: Trajectory) -> Sample:
    """The row that annotation would make of it; successes are desirable."""
    return Sample(
        id=f"s{trajectory.id}",
        trajectory_id=trajectory.id,
        task_id=trajectory.task.id,
        env="toy",
        level="toy",
        policy=trajectory.policy,
        label="D" if trajectory.success else "U",
        view="raw",
        reward=trajectory.reward,
        success=trajectory.success,
        num_steps=trajectory.num_steps,
        num_tokens=trajectory.num_tokens,
        token_ids=(1, 2),
        agent_mask=(0, 1),
        prompt_length=1,
        kl_partner="s",
    )


def write_shards(folder: Path, trajectories: list[Trajectory], shards: int = 2) -> None:
    """Trajectories as shards that hold tasks whole."""
    tasks = sorted({t.task.id for t in trajectories})
    for number in range(shards):
        own = [t for t in trajectories if tasks.index(t.task.id) % shards == number]
        write_table(folder / f"{number:016x}.parquet", own, Trajectory)


def write_run(config: ExperimentConfig) -> Path:
    """All of it, through the pipeline's own directories and manifests; the run directory."""
    experiment = build(config)

    def put(node: str, folder: str, trajectories: list[Trajectory]) -> None:
        spec, started = experiment.nodes[node].spec, time.time()
        begin(spec)
        write_shards(spec.out_dir / folder, trajectories)
        finish(spec, Outcome(rows=len(trajectories)), started)

    for method, extra in (("bc", 2), ("depo", 0)):
        put(f"evaluate {method}", "greedy", episodes(method, extra))
        put(f"evaluate {method}", "sampled-seed1", episodes(method, extra + 1))
        put(f"evaluate {method}", "sampled", episodes(method, extra))
    put("evaluate bc on far", "sampled", [episode("bc", seed, 6 * seed) for seed in (0, 1)])
    searched = trees()
    put("generate teacher", "", searched)
    labelled = [sample_of(t) for t in searched]
    write_table(experiment.out("annotate teacher") / "samples.parquet", labelled, Sample)
    write_atomic(experiment.run_dir / "config.yaml", dump_config(config))
    return experiment.run_dir
