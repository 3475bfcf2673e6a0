"""How full tree search keeps an engine, side by side in one run.

    python experiments/benchmarks/generation.py [--json] [--requests N] [--actors 1,4,16,32] [--skip-scaling]

One vLLM engine in this process serves a random Llama of a million weights, whose replies have near
exponential lengths. Search plays BabyAI on it with so many requests in flight, trees following one
another without end, until enough requests are answered. The very same requests then go to the same
engine as one offline batch (prefix cache emptied before either). Utilisation is the ratio of generated
tokens a second. Rounds of both alternate, and the median of the rounds' ratios is reported, since
other work on a shared machine hits both.

Scaling runs the real pipeline over Ray nodes made up on this machine, with engines that answer after a
fixed time and compute nothing: answers a second from the moment that all engines are there, over four
fifths of the time, before work runs out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines import RandomVllm, make_random_model

from depo.config.runtime import GenerationRuntime
from depo.config.schema import CustomConfig, EnvConfig, SearchConfig, StudentConfig
from depo.envs.base import TextEnv
from depo.envs.registry import make_env
from depo.records import Task
from depo.search.driver import Driver
from depo.search.run import search

OPTIONS = {"levels": ["GoToObjS6-v1"], "show_actions": False, "instructions": "brief"}
SEARCH = SearchConfig(simulations=4, width=4, max_steps=8, max_tokens=64)
_ROUNDS = 3


@dataclass(frozen=True)
class Load:
    """How many trees at a time, searched how."""

    name: str
    trees: int
    search: SearchConfig


def few(trees: int, parallel: int) -> Load:
    """Few trees with many simulations in flight in each. Since they are backed up in turn, some wait."""
    wide = SEARCH.model_copy(update={"parallel": parallel, "simulations": 6 * parallel})
    return Load(f"{trees} trees of {parallel}", trees, wide)


LOADS = {
    "32": Load("32 trees", 32, SEARCH),
    "128": Load("128 trees", 128, SEARCH),
    "32_few_trees": few(4, 16),
    "128_few_trees": few(8, 32),
}


@dataclass(frozen=True)
class Window:
    """What a stretch of search brought."""

    seconds: float
    engine_seconds: float
    tokens: int
    in_flight: float
    """Requests, in the mean over the engine's answers."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def stretch(engine: RandomVllm, tasks: Sequence[Task], load: Load, requests: int) -> Window:
    """Search until `requests` are answered; what is in flight then is abandoned."""
    engine.forget()
    before = (engine.usage.seconds, engine.usage.tokens)
    envs = [make_env("babyai", OPTIONS) for _ in range(load.trees)]
    stream, numbers = itertools.cycle(tasks), itertools.count()
    running: dict[Hashable, TextEnv] = {}
    driver = Driver(engine, load.trees)
    in_flight: list[int] = []
    started = time.perf_counter()
    while driver.progress.requests < requests:
        while driver.room:
            number, env = next(numbers), envs.pop()
            running[number] = env
            driver.add(number, search(next(stream), env, load.search, number, "random", ""))
        for finished in driver.wait():
            if finished.error is not None:
                raise finished.error
            envs.append(running.pop(finished.key))
        in_flight.append(driver.progress.open)
    seconds = time.perf_counter() - started
    window = Window(
        seconds,
        engine.usage.seconds - before[0],
        engine.usage.tokens - before[1],
        statistics.mean(in_flight),
    )
    driver.abandon()
    return window


def utilisation(engine: RandomVllm, tasks: Sequence[Task], load: Load, requests: int) -> tuple[float, Window]:
    """(search's tokens a second over the offline batch's, the stretch in the middle of the rounds)."""
    ratios = []
    for _ in range(_ROUNDS):
        window = stretch(engine, tasks, load, requests)
        seconds, tokens = engine.offline(list(engine.answered))
        ratios.append((window.tokens_per_s / (tokens / seconds), window))
    return sorted(ratios, key=lambda pair: pair[0])[_ROUNDS // 2]


def scaling(actors: int, folder: Path) -> float:
    """Answers a second of `actors` engines of fixed latency, each on a node of its own."""
    import ray
    from ray.cluster_utils import Cluster

    from depo.stages.jobs import RolloutJob
    from depo.stages.rollouts import run_jobs

    meeting = folder / f"meeting-{actors}"
    meeting.mkdir()
    here = str(Path(__file__).parent)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(actors):
        cluster.add_node(num_cpus=1, resources={"engine": 1})
    try:
        ray.init(
            address=cluster.address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}},
        )
        trees, each = 8, 40
        env = EnvConfig(id="babyai", options=OPTIONS)
        options = {"latency": 0.5, "actors": actors, "meeting": str(meeting)}
        job = RolloutJob(
            name="fixed",
            policy=CustomConfig(cls="engines:FixedLatency", options=options),
            model_dir="",
            plan=SearchConfig(simulations=2, width=2, max_steps=5),
            tasks=tuple(make_env("babyai", OPTIONS).tasks("train", each * actors)),
            out_dir=str(folder / f"rows-{actors}"),
            seed=0,
        )
        runtime = GenerationRuntime(actors=actors, min_actors=actors, batch_tasks=trees)
        run_jobs([job], env, StudentConfig(), runtime, f"{actors} actors")
        began = max(float(path.read_text()) for path in meeting.glob("*.began"))
        until = began + 0.8 * (time.time() - began)
        lines = [
            line.split() for path in meeting.glob("*.answered") for line in path.read_text().splitlines()
        ]
        counts = [int(count) for at, count in lines if began <= float(at) <= until]
        return sum(counts) / (until - began)
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--requests", type=int, default=2_000, help="answered in each stretch of search")
    parser.add_argument("--actors", default="1,4,16,32", help="sizes of the simulated cluster")
    parser.add_argument("--skip-scaling", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    say(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, no GPU")
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        env = make_env("babyai", OPTIONS)
        tasks = env.tasks("train", 600)
        engine = RandomVllm(str(make_random_model(env, tasks[:100], Path(folder) / "model")))
        stretch(engine, tasks, LOADS["32"], 200)  # warms up
        say(f"\n{'':18}{'in flight':>10}{'tokens/s':>10}{'of offline':>12}{'outside engine':>16}")
        for key, load in LOADS.items():
            share, window = utilisation(engine, tasks, load, options.requests)
            outside = 1 - window.engine_seconds / window.seconds
            found |= {
                f"utilisation_{key}": share,
                f"outside_{key}": outside,
                f"tokens_per_s_{key}": window.tokens_per_s,
                f"in_flight_{key}": window.in_flight,
            }
            say(
                f"{load.name:18}{window.in_flight:10.0f}{window.tokens_per_s:10,.0f}{share:12.2f}{outside:16.3f}"
            )
        alone = statistics.median(
            stretch(engine, tasks, Load("one tree", 1, SEARCH), options.requests // 10).tokens_per_s
            for _ in range(_ROUNDS)
        )
        found["speedup_over_one_tree"] = found["tokens_per_s_128"] / alone
        say(f"{'one tree':18}{1:10}{alone:10,.0f}")
        say(f"128 trees over one: {found['speedup_over_one_tree']:.1f} times")
        engine.close()
        if not options.skip_scaling:
            rates = {n: scaling(n, Path(folder)) for n in map(int, options.actors.split(","))}
            first = rates[min(rates)] / min(rates)
            for n, rate in rates.items():
                found[f"scaling_{n}"] = rate / (n * first)
                say(f"{n:4} actors {rate:8.1f} answers/s, {found[f'scaling_{n}']:.3f} of linear")
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
