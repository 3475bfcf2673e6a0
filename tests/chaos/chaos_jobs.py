"""The work that the chaos tests disturb."""

from __future__ import annotations

from pathlib import Path

from depo.config.runtime import GenerationRuntime
from depo.config.schema import CustomConfig, EnvConfig, SearchConfig, StudentConfig, TeacherConfig
from depo.data.store import read_trajectories
from depo.envs.registry import make_env
from depo.records import Trajectory
from depo.stages.jobs import RolloutJob
from depo.stages.rollouts import run_jobs

ENV = EnvConfig(options={"levels": ["GoToObjS6-v1"], "show_actions": False, "instructions": "brief"})
TASKS = tuple(make_env("babyai", ENV.options).tasks("train", 24))
SEARCH = SearchConfig(simulations=4, width=3, parallel=2)
RUNTIME = GenerationRuntime(actors=2, batch_tasks=4)


def job(out_dir: Path, policy=None, plan=SEARCH, tasks=TASKS) -> RolloutJob:
    return RolloutJob("teacher", policy or TeacherConfig(), "", plan, tasks, str(out_dir), seed=5)


def generate(out_dir: Path, policy=None, runtime: GenerationRuntime = RUNTIME) -> list[Trajectory]:
    run_jobs([job(out_dir, policy)], ENV, StudentConfig(), runtime, "chaos")
    return read_trajectories(out_dir)


def slow(pids: Path, pause_s: float = 0.02) -> CustomConfig:
    return CustomConfig(cls="chaos_policies:Slow", options={"pids": str(pids), "pause_s": pause_s})


def faulty(log: Path, how: str, fatal: list[str], times: int = 10**6) -> CustomConfig:
    options = {"fatal": fatal, "how": how, "log": str(log), "times": times}
    return CustomConfig(cls="chaos_policies:Faulty", options=options)


def limited(requests: int) -> CustomConfig:
    return CustomConfig(cls="chaos_policies:Limited", options={"requests": requests})
