"""How many BabyAI tasks the scripted teacher solves, level by level, and in how many text actions.

    python experiments/benchmarks/teacher.py [--json] [--tasks N] [--levels L ...] [--compat RULES]

Without waste, mistakes or filler, on the first N tasks of each level's test split. Times are CPU
times of one process, the making of the start states left out.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from depo.config.schema import TeacherConfig
from depo.envs.babyai.env import COMPAT, BabyAIEnv
from depo.envs.babyai.levels import AGENTGYM_LEVELS, PINNED_LEVELS, level_name
from depo.envs.babyai.tasks import published
from depo.policies.base import Exchange, Request, Sampling, answer_all
from depo.policies.teacher import TeacherPolicy
from depo.records import Task


@dataclass
class Tally:
    """One level's episodes."""

    level: str
    tasks: int = 0
    steps: list[int] = field(default_factory=list)
    """Text actions of each solved episode."""
    low_level: list[int] = field(default_factory=list)
    seconds: float = 0.0
    slowest: float = 0.0
    unsolved: dict[int, str] = field(default_factory=dict)
    """Seed to how the episode ended."""


def play(env: BabyAIEnv, task: Task, turns: int, tally: Tally) -> None:
    policy = TeacherPolicy(TeacherConfig(wordiness=0, waste=0, mistakes=0))
    observation = env.reset(task)
    history: list[Exchange] = []
    low_level, success = 0, False
    started = time.process_time()
    for _ in range(turns):
        request = Request(env.system, tuple(history), observation, 1, Sampling(), 0, env)
        reply = answer_all(policy, [request])[0][0]
        result = env.step(reply.action)
        history.append(Exchange(observation, reply))
        observation = result.observation
        low_level += result.info["low_level_steps"]
        if result.terminated or result.truncated:
            success = result.info["success"]
            break
    spent = time.process_time() - started
    tally.tasks += 1
    tally.seconds += spent
    tally.slowest = max(tally.slowest, spent)
    if success:
        tally.steps.append(len(history))
        tally.low_level.append(low_level)
    else:
        tally.unsolved[task.seed] = env.outcome or f"open after {turns} actions"


def survey(level: str, count: int, turns: int, options: Mapping[str, Any]) -> Tally:
    env = BabyAIEnv([level], **options)
    tally = Tally(level)
    listed = published("test").levels.get(level)
    if listed is not None and listed.complete:
        count = min(count, len(listed.seeds))
    for task in env.tasks("test", count):
        play(env, task, turns, tally)
    return tally


def mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else float("nan")


def row(number: str, tally: Tally) -> str:
    missed = ", ".join(f"{seed} ({how})" for seed, how in tally.unsolved.items())
    return (
        f"{number:>3} {tally.level:24}{len(tally.steps):5}/{tally.tasks:<5}{mean(tally.steps):7.1f}"
        f"{max(tally.steps, default=0):5}{mean(tally.low_level):9.1f}{tally.seconds / tally.tasks:9.3f}"
        f"{tally.slowest:9.3f}  {missed}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--tasks", type=int, default=20, help="test tasks of each level, or all it has")
    parser.add_argument(
        "--levels", nargs="+", default=[str(i) for i in range(1, 41)], help="numbers or names"
    )
    parser.add_argument("--turns", type=int, default=200, help="text actions after which to give up")
    parser.add_argument("--compat", choices=COMPAT, help="play by AgentGym's rules")
    options = parser.parse_args()
    pinned = options.compat == "agentgym"
    numbers = {name: str(i) for i, name in enumerate(PINNED_LEVELS if pinned else AGENTGYM_LEVELS, 1)}
    levels = [level_name(int(level) if level.isdigit() else level, pinned) for level in options.levels]
    rules: dict[str, Any] = {"compat": options.compat} if options.compat else {}

    say = (lambda text: print(text, file=sys.stderr)) if options.json else print
    say(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one core")
    head = f"{'':3} {'level':24}{'solved':>11}{'steps':>7}{'max':>5}{'low-level':>9}{'s/task':>9}{'max':>9}"
    say(f"{head}  unsolved")
    tallies = []
    for level in levels:
        tallies.append(survey(level, options.tasks, options.turns, rules))
        say(row(numbers.get(level, ""), tallies[-1]))
    solved, tasks = sum(len(t.steps) for t in tallies), sum(t.tasks for t in tallies)
    say(f"\nsolved {solved} of {tasks} ({solved / tasks:.1%})")
    if options.json:
        print(json.dumps({"solved": solved, "tasks": tasks, "levels": [asdict(tally) for tally in tallies]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
