"""How much of an engine tree search makes use of, and how far it scales.

    python experiments/benchmarks/generation.py [--json] [--repeats N] [--only PART ...]

vLLM on the CPU serves the demo's student with random weights. Such a model writes no actions, so a
reply's tokens pick one: the environment plays on, and replies have near-exponential lengths, as a
trained policy's vary. All figures come from one run on one machine.

engine     A search is timed with 128 (32) requests in flight from its first request on, new trees
           coming as others end, until so many requests are answered. Those very requests, with the
           same contexts and seeds, are then given to the same engine as one offline batch
           (`LLM.generate`, up to 256 sequences at a time), which is timed from their ids to their
           tokens; both begin with an empty prefix cache and make the same tokens, which is
           checked. Utilisation is the offline time as a share of the search's. That favours the
           batch: it renders no context, reads no reply and never waits for an environment.
           "few trees" keeps about as many requests in flight by simulations inside 8 (2) trees.
           "one tree" is the loop that searches the same trees one after the other.
pipeline   The same searches through Ray Data with one actor: time outside the engine's own calls,
           as a share of the time from the first request to the last answer.
scaling    Engines that answer each request after a fixed time, on a simulated cluster of several
           nodes: trees a second with N actors, over N times those with one, from when all actors
           are there until the last tree is on disk.

Of `--repeats` the fastest counts, since whatever else the machine does only ever adds time. Figures
named cpu are the same ratios of the process's CPU time, which other processes disturb less.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])

from engines import RandomVllm, make_random_model  # noqa: E402

from depo.config.runtime import GenerationRuntime  # noqa: E402
from depo.config.schema import CustomConfig, EnvConfig, SearchConfig, StudentConfig  # noqa: E402
from depo.envs.base import TextEnv  # noqa: E402
from depo.envs.registry import make_env  # noqa: E402
from depo.search.driver import Driver  # noqa: E402
from depo.search.run import search  # noqa: E402

LEVELS = ["GoToObjS6-v1", "GoToLocalS5N2-v0", "GoToRedBall-v0"]
ENV = EnvConfig(options={"levels": LEVELS, "show_actions": True, "instructions": "brief"})
SEARCH = SearchConfig(simulations=4, width=4, max_steps=8, max_tokens=64)
FEW = SearchConfig(simulations=96, width=4, max_steps=8, max_tokens=64, parallel=32)
TASKS = make_env(ENV.id, ENV.options).tasks("train", 256)

SIZES = (1, 8, 32)
NODES = 4
LATENCY_S = 1.0
TREES_EACH = 8
AT_A_TIME = 2
PACED = SearchConfig(simulations=2, width=2, max_steps=4)
"""Seven requests one after the other."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Timing:
    """One search, up to some number of answers, and the same requests as an offline batch."""

    tokens: int
    wall: float
    cpu: float
    engine: float
    open: float
    """Mean requests in flight."""
    offline_wall: float = 0.0
    offline_cpu: float = 0.0


class Trees:
    """Searches without end over the tasks, in environments that are used again, as a worker does."""

    def __init__(self, policy: RandomVllm, config: SearchConfig, in_flight: int) -> None:
        self._policy, self._config = policy, config
        self._driver = Driver(policy, in_flight)
        self._numbers = itertools.count()
        self._free: list[TextEnv] = []
        self._used: dict[Any, TextEnv] = {}

    def run(self, answers: int) -> float:
        """Go on until `answers` requests are answered; the mean number in flight."""
        driver, counted = self._driver, []
        while driver.progress.requests < answers:
            while driver.room:
                number = next(self._numbers)
                env = self._free.pop() if self._free else make_env(ENV.id, ENV.options)
                self._used[number] = env
                task = TASKS[number % len(TASKS)]
                driver.add(number, search(task, env, self._config, number, "random", ""))
            for finished in driver.wait():
                if finished.error is not None:
                    raise finished.error
                self._free.append(self._used.pop(finished.key))
            counted.append(driver.progress.open)
        return sum(counted) / len(counted)

    def close(self) -> None:
        self._driver.abandon()


def measure(policy: RandomVllm, config: SearchConfig, in_flight: int, answers: int, batch: bool) -> Timing:
    """Search until so many requests are answered; then, with `batch`, do the same ones offline."""
    policy.forget()
    tokens, engine = policy.usage.tokens, policy.usage.seconds
    trees = Trees(policy, config, in_flight)
    wall, cpu = time.perf_counter(), time.process_time()
    in_the_mean = trees.run(answers)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens, engine = policy.usage.tokens - tokens, policy.usage.seconds - engine
    answered = policy.answered
    trees.close()
    timing = Timing(tokens, wall, cpu, engine, in_the_mean)
    if not batch:
        return timing
    wall, cpu = time.perf_counter(), time.process_time()
    again = policy.offline(answered)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if again != timing.tokens:
        raise RuntimeError(f"the search made {timing.tokens} tokens, the same requests offline {again}")
    return Timing(timing.tokens, timing.wall, timing.cpu, engine, in_the_mean, wall, cpu)


def best(timings: list[Timing]) -> Timing:
    """The fastest of each, of runs that do the same."""
    first = timings[0]
    fastest = min(timings, key=lambda t: t.wall)
    return Timing(
        first.tokens,
        fastest.wall,
        min(t.cpu for t in timings),
        fastest.engine,
        first.open,
        min(t.offline_wall for t in timings),
        min(t.offline_cpu for t in timings),
    )


def engine_part(model: Path, repeats: int, say: Say) -> dict[str, float]:
    """Utilisation, and the gain over one tree at a time."""
    cases = {
        "128": (SEARCH, 128, 4000),
        "32": (SEARCH, 32, 1500),
        "128_few": (FEW, 8, 4000),
        "32_few": (FEW, 2, 1500),
        "one_tree": (SEARCH, 1, 150),
    }
    policy = RandomVllm(str(model))
    measure(policy, SEARCH, 32, 300, batch=True)
    timings: dict[str, list[Timing]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, (config, in_flight, answers) in cases.items():
            timings[name].append(measure(policy, config, in_flight, answers, batch=name != "one_tree"))
            say(_line(name, timings[name][-1]))
    policy.close()
    found = {name: best(runs) for name, runs in timings.items()}
    say("\nbest of each")
    result: dict[str, float] = {}
    for name, timing in found.items():
        say(_line(name, timing))
        if name != "one_tree":
            result[f"utilisation_{name}"] = timing.offline_wall / timing.wall
            result[f"utilisation_{name}_cpu"] = timing.offline_cpu / timing.cpu
    one, many = found["one_tree"], found["128"]
    result["vs_one_tree"] = (many.tokens / many.wall) / (one.tokens / one.wall)
    result["vs_one_tree_cpu"] = (many.tokens / many.cpu) / (one.tokens / one.cpu)
    result["tokens_per_second_128"] = many.tokens / many.wall
    result["overhead_share_128"] = 1 - many.engine / many.wall
    return result


def _line(name: str, t: Timing) -> str:
    text = (
        f"{name:9}{t.open:6.0f} in flight{t.tokens:8} tokens{t.wall:7.1f} s{t.tokens / t.wall:7.0f} tokens/s"
        f"{1 - t.engine / t.wall:7.1%} outside the engine"
    )
    if t.offline_wall:
        wall, cpu = t.offline_wall / t.wall, t.offline_cpu / t.cpu
        text += f" | offline{t.offline_wall:7.1f} s: {wall:.2f} (cpu {cpu:.2f})"
    return text


def pipeline_part(model: Path, folder: Path, say: Say) -> dict[str, float]:
    """Time outside the engine's calls with Ray Data around it all."""
    import ray

    from depo.stages.rollouts import RolloutJob, run_jobs

    log = folder / "engine.json"
    policy = CustomConfig(cls="engines:RandomVllm", options={"model_dir": str(model), "log": str(log)})
    job = RolloutJob("random", policy, "", SEARCH, tuple(TASKS), str(folder / "pipeline"), seed=0)
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run_jobs([job], ENV, StudentConfig(), GenerationRuntime(actors=1, batch_tasks=128), "pipeline")
    finally:
        ray.shutdown()
    times = json.loads(log.read_text())
    share = 1 - times["engine"] / times["seconds"]
    say(f"{times['tokens']} tokens in {times['seconds']:.1f} s, {share:.1%} outside the engine")
    return {"overhead_share": share, "tokens_per_second_pipeline": times["tokens"] / times["seconds"]}


def scaling_part(folder: Path, say: Say) -> dict[str, float]:
    """Trees a second over simulated engines on a simulated cluster."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    each = -(-max(SIZES) // NODES)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(NODES):
        cluster.add_node(num_cpus=each)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        rates = {actors: trees_a_second(actors, folder / f"scaling-{actors}", say) for actors in SIZES}
    finally:
        ray.shutdown()
        cluster.shutdown()
    return {f"scaling_{actors}": rates[actors] / (actors * rates[1]) for actors in SIZES if actors > 1}


def trees_a_second(actors: int, folder: Path, say: Say) -> float:
    from depo.stages.rollouts import RolloutJob, run_jobs

    meeting, out = folder / "meeting", folder / "out"
    meeting.mkdir(parents=True)
    options = {"latency": LATENCY_S, "actors": actors, "meeting": str(meeting)}
    env = make_env(ENV.id, ENV.options)
    tasks = tuple(env.tasks("train", TREES_EACH * actors))
    job = RolloutJob(
        "fixed", CustomConfig(cls="engines:FixedLatency", options=options), "", PACED, tasks, str(out), seed=0
    )
    run_jobs(
        [job],
        ENV,
        StudentConfig(),
        GenerationRuntime(actors=actors, batch_tasks=AT_A_TIME),
        f"{actors} actors",
    )
    began = max(float(file.read_text()) for file in meeting.glob("*.began"))
    taken = max(file.stat().st_mtime for file in out.rglob("*.parquet")) - began
    say(f"{actors:3} actors: {len(tasks)} trees in {taken:.1f} s, {len(tasks) / taken:.2f} trees/s")
    return len(tasks) / taken


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--repeats", type=int, default=3, help="times that the engine part is done")
    parser.add_argument("--only", nargs="+", choices=["engine", "pipeline", "scaling"])
    options = parser.parse_args()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    parts = options.only or ["engine", "pipeline", "scaling"]

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    say(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        model = make_random_model(make_env(ENV.id, ENV.options), TASKS, folder / "model")
        if "engine" in parts:
            result |= engine_part(model, options.repeats, say)
        if "pipeline" in parts:
            result |= pipeline_part(model, folder, say)
        if "scaling" in parts:
            result |= scaling_part(folder, say)
    result = {name: round(value, 3) for name, value in result.items()}
    if options.json:
        print(json.dumps(result))
    else:
        print("\n" + "\n".join(f"{name:28}{value:10}" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
