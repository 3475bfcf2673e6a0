"""Speed and memory of the environments, against the straightforward way, side by side in one run.

    python experiments/benchmarks/environments.py [--json] [--seeds N] [--products N]

BabyAI is stepped through AgentGym's rules, whose text and plans are the peer's own, by random walks
over the 40 levels. The naive way takes the very same low-level moves through gymnasium's wrappers,
reads the drawn image, searches a way to each object by itself, and copies the level with `deepcopy`.
All times are CPU times of one process, ours and naive by turns. A walk is timed as it is taken, so every
state of it is new; nothing is measured twice and the best one kept.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import platform
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import psutil
from minigrid.core.constants import IDX_TO_COLOR, IDX_TO_OBJECT, STATE_TO_IDX

from depo.envs.babyai.env import BabyAIEnv
from depo.envs.babyai.levels import AGENTGYM_LEVELS
from depo.envs.webshop.env import WebShopEnv
from depo.records import Task

_TURNS = 25
_RESETS = 20
_QUERIES = 600
_LARGE = 50_000


@dataclass
class Timed:
    """CPU seconds that `count` things of one kind took."""

    count: int = 0
    seconds: float = 0.0

    @contextmanager
    def of(self, count: int = 1) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds += time.process_time() - started
        self.count += count

    @property
    def each_us(self) -> float:
        return self.seconds / self.count * 1e6

    @property
    def per_s(self) -> float:
        return self.count / self.seconds


# BabyAI


@dataclass(frozen=True)
class Walk:
    """A random walk, by the low-level moves that each of its actions came to."""

    task: Task
    moves: list[tuple[int, ...]]


def walk(env: BabyAIEnv, task: Task, steps: Timed, snapshots: Timed) -> Walk:
    rng = random.Random(task.seed)
    env.reset(task)
    moves: list[tuple[int, ...]] = []
    while len(moves) < _TURNS and not env.outcome:
        action = rng.choice(env.available_actions())
        with steps.of():
            result = env.step(action)
        moves.append(tuple(result.info["moves"]))
        with snapshots.of():
            env.restore(env.snapshot())
    return Walk(task, moves)


class NaiveText:
    """BabyAI in text as one would first write it: gymnasium, the image, one search an object."""

    def __init__(self, level: str) -> None:
        self.env = gymnasium.make(f"BabyAI-{level}" + ("" if "-v" in level else "-v0"))

    def reset(self, seed: int) -> str:
        seen, _ = self.env.reset(seed=seed)
        return self.describe(seen["image"])

    def step(self, moves: tuple[int, ...]) -> str:
        seen = None
        for move in moves:
            seen, *_ = self.env.step(move)
        return self.describe(seen["image"] if seen else self.env.unwrapped.gen_obs()["image"])  # type: ignore[attr-defined]

    def describe(self, image: Any) -> str:
        things = []
        blocked = set()
        for column in range(7):
            for row in range(7):
                kind, color, state = (int(code) for code in image[column, row])
                name = IDX_TO_OBJECT[kind]
                if name in ("unseen", "empty", "floor", "agent"):
                    continue
                if name == "wall" or not (name == "door" and state == STATE_TO_IDX["open"]):
                    blocked.add((column, row))
                if name != "wall":
                    things.append((abs(column - 3) + 6 - row, f"{IDX_TO_COLOR[color]} {name}", (column, row)))
        lines, actions = [], ["turn left", "turn right", "move forward"]
        for distance, name, cell in sorted(things):
            lines.append(f"There is a {name} {distance} steps away.")
            if self.way(cell, blocked) is not None:
                actions += [f"go to {name}", f"pickup {name}"]
        return " ".join(lines) + f"\nAvailable actions: {actions}"

    @staticmethod
    def way(target: tuple[int, int], blocked: set[tuple[int, int]]) -> list[str] | None:
        start = (3, 6, 0)
        queue = deque([(start, list[str]())])
        known = {start}
        around = ((0, -1), (1, 0), (0, 1), (-1, 0))
        while queue:
            (column, row, heading), way = queue.popleft()
            ahead = (column + around[heading][0], row + around[heading][1])
            if ahead == target:
                return way
            following = [(column, row, (heading + 3) % 4), (column, row, (heading + 1) % 4)]
            if ahead not in blocked and 0 <= ahead[0] < 7 and 0 <= ahead[1] < 7:
                following.insert(0, (*ahead, heading))
            for state in following:
                if state not in known:
                    known.add(state)
                    queue.append((state, [*way, "move"]))
        return None


def babyai(seeds: int) -> dict[str, Timed]:
    """Stepping, snapshot plus restore and a second reset, ours and naive, over all 40 levels."""
    kinds = ("step", "snapshot", "reset")
    times = {kind: Timed() for kind in (*kinds, *(f"naive {kind}" for kind in kinds))}
    for level in AGENTGYM_LEVELS:
        env, naive = BabyAIEnv([level], compat="agentgym"), NaiveText(level)
        for seed in range(seeds):
            taken = walk(env, Task("babyai", level, seed, "train"), times["step"], times["snapshot"])
            with times["reset"].of(_RESETS):
                for _ in range(_RESETS):
                    env.reset(taken.task)
            with times["naive reset"].of():
                naive.reset(seed)
            with times["naive step"].of(len(taken.moves)):
                for moves in taken.moves:
                    naive.step(moves)
            with times["naive snapshot"].of():
                copy.deepcopy(naive.env.unwrapped)
    return times


# WebShop


def webshop_steps(cache: Path, count: int = 2_000) -> Timed:
    """Random clicks, each episode after one search that is not timed."""
    env = WebShopEnv(size=1000, cache_dir=str(cache))
    rng, timed = random.Random(0), Timed()
    for task in env.tasks("train", count):
        env.reset(task)
        env.step(f"search[{env.goal.name}]")
        while not env.outcome:
            offered = [a for a in env.available_actions() if not a.startswith("search[")]
            if not offered:
                break  # back on the page that can only search
            action = rng.choice(offered)
            with timed.of():
                env.step(action)
        if timed.count >= count:
            break
    return timed


def queries(env: WebShopEnv) -> list[str]:
    """Half instructions, half fragments of titles."""
    rng, shop, found = random.Random(0), env.shop, list[str]()
    for i in range(_QUERIES):
        goal = shop.goals[rng.randrange(len(shop.goals))]
        words = (goal.instruction if i % 2 else goal.name).lower().split()
        start = rng.randrange(max(1, len(words) - 6))
        found.append(" ".join(words if i % 2 else words[start : start + 6]))
    return found


def webshop_search(size: int, cache: Path) -> Timed:
    env = WebShopEnv(size=size, cache_dir=str(cache))
    env.tasks("train", 1)  # all that is built once is built before anything is measured
    asked = queries(env)
    timed = Timed()
    with timed.of(len(asked)):
        for query in asked:
            env.shop.search(query)
    return timed


def _worker(size: int, cache: str, ready: Any, done: Any) -> None:
    """Opens the shop and uses it; sends (all memory, private memory) that it added, in bytes."""
    me = psutil.Process(os.getpid())
    before = me.memory_full_info()
    env = WebShopEnv(size=size, cache_dir=cache)
    for query in queries(env):
        for asin in env.shop.search(query)[:10]:
            env.shop.product(asin)
    for task in env.tasks("train", 20):
        env.reset(task)
    after = me.memory_full_info()
    ready.put((after.pss - before.pss, after.uss - before.uss))
    done.wait()


def second_worker(size: int, cache: Path) -> tuple[float, float]:
    """Bytes that a first worker of the machine adds, and a second one beside it."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Queue(), context.Event()
    added = []
    workers = []
    for _ in range(2):
        workers.append(context.Process(target=_worker, args=(size, str(cache), ready, done)))
        workers[-1].start()
        added.append(ready.get(timeout=600))
    done.set()
    for worker in workers:
        worker.join()
    return added[0][0], added[1][1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--seeds", type=int, default=5, help="tasks of each BabyAI level")
    parser.add_argument("--products", type=int, default=_LARGE, help="size of the large WebShop catalogue")
    options = parser.parse_args()
    say = (lambda text: print(text, file=sys.stderr)) if options.json else print

    say(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one core")
    times = babyai(options.seeds)
    say(f"\nBabyAI, AgentGym's rules, mean of 40 levels\n{'':24}{'ours':>14}{'naive':>14}{'ratio':>8}")
    for kind, unit in (("step", "steps/s"), ("snapshot", "us"), ("reset", "us")):
        ours, naive = times[kind], times[f"naive {kind}"]
        a, b = (ours.per_s, naive.per_s) if unit == "steps/s" else (ours.each_us, naive.each_us)
        say(f"{kind + ', ' + unit:24}{a:14,.1f}{b:14,.1f}{naive.each_us / ours.each_us:8,.0f}")

    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        steps = webshop_steps(cache)
        search = webshop_search(options.products, cache)
        first, second = second_worker(options.products, cache)
    say(f"\nWebShop\nsteps without search, 1,000 products  {steps.per_s:12,.0f} /s")
    say(f"search, {options.products:,} products  {search.each_us / 1000:25.3f} ms")
    say(f"memory of a first worker {first / 2**20:21.1f} MiB")
    say(f"of a second beside it  {second / 2**20:23.1f} MiB")
    if options.json:
        print(
            json.dumps(
                {
                    "babyai_steps_per_s": times["step"].per_s,
                    "babyai_vs_naive": times["naive step"].each_us / times["step"].each_us,
                    "snapshot_us": times["snapshot"].each_us,
                    "reset_us": times["reset"].each_us,
                    "webshop_steps_per_s": steps.per_s,
                    "search_ms_50k": search.each_us / 1000,
                    "second_worker_memory_share": second / first,
                }
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
