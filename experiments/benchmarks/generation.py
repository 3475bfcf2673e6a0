"""How much of an engine tree search makes use of, and how far it scales.

    python experiments/benchmarks/generation.py [--json] [--repeats N] [--only PART ...]

vLLM on the CPU serves the demo's student with random weights, in the demo's environment and its search
of round "student". Such a model writes no actions, so a reply's tokens pick one: the environment plays
on. Replies have near-exponential lengths, as a trained policy's vary. All figures come from one run on
one machine.

engine     Search is timed with 128 (32) requests in flight, new trees coming as others end, from its
           first request until so many are answered. Those very requests, with the same contexts and
           seeds, are then given to the same engine as one offline batch (`LLM.generate`, as many
           sequences at a time as the engine takes: 128, or `--max-num-seqs`), timed from their ids
           to their tokens. Both begin with an empty
           prefix cache and make the same tokens, which is checked. Utilisation is search's generated
           tokens a second, those of replies not finished at its end included, as a share of the
           batch's. That favours the batch: it renders no context, reads no reply, plays no
           environment, and reads no context whose reply is then not wanted.
           "few trees" keeps about as many requests in flight by simulations inside 8 (2) trees.
           "one tree" is the loop that searches the same trees one after the other.
pipeline   The same searches through Ray Data with one actor: time outside the engine's own calls,
           as a share of the time from the first request to the last answer.
scaling    Engines that answer each request after a fixed time, on a simulated cluster of several
           nodes: trees a second with N actors, over N times those with one, from when all actors
           are there until the last tree is on disk.
memory     Peak memory of the driver after 1,000 one-step trees, and after 100,000 in the same process.

Of `--repeats` the fastest counts, since whatever else the machine does only ever adds time. Figures
named cpu, with `--in-process`, are the same ratios of the process's CPU time, which other processes
disturb less.

vLLM's core runs in a process of its own, beside which search and environments do their work: so it is by
default on a GPU. `--in-process` has both take turns in one thread, as workers do by default on the CPU,
where there is one to a core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])

from engines import RandomVllm, make_random_model  # noqa: E402

from depo.config.load import load_config  # noqa: E402
from depo.config.runtime import GenerationRuntime  # noqa: E402
from depo.config.schema import CustomConfig, SearchConfig, StudentConfig  # noqa: E402
from depo.envs.base import TextEnv  # noqa: E402
from depo.envs.registry import make_env  # noqa: E402
from depo.search.driver import Driver  # noqa: E402
from depo.search.run import search  # noqa: E402

DEMO = load_config(HERE.parent / "configs" / "babyai-tiny.yaml")
ENV = DEMO.env
SEARCH = next(one.search for one in DEMO.rounds if one.name == "student")
FEW = SEARCH.model_copy(update={"simulations": 96, "parallel": 32})
TASKS = make_env(ENV.id, ENV.options).tasks("train", 256)

PARTS = ["engine", "pipeline", "scaling", "memory"]
SIZES = (1, 8, 32)
NODES = 4
LATENCY_S = 2.0
TREES_EACH = 8
AT_A_TIME = 2
PACED = SearchConfig(simulations=2, width=2, max_steps=4)
"""Seven requests one after the other."""

FEW_TASKS, MANY_TASKS = 1_000, 100_000
ONE_STEP = SearchConfig(simulations=1, width=1, max_steps=1)

Say = Callable[[str], None]
Vllm = dict[str, Any]
"""Settings of `VllmConfig`."""


@dataclass(frozen=True)
class Timing:
    """One search, up to some number of answers, and the same requests as an offline batch."""

    answered: int
    """Tokens of the requests answered."""
    tokens: int
    """Tokens generated in all."""
    wall: float
    cpu: float
    engine: float
    open: float
    """Mean requests in flight."""
    offline_wall: float = 0.0
    offline_cpu: float = 0.0

    @property
    def utilisation(self) -> float:
        return (self.tokens / self.wall) / (self.answered / self.offline_wall)

    @property
    def utilisation_cpu(self) -> float:
        return (self.tokens / self.cpu) / (self.answered / self.offline_cpu)


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
    answered, unfinished = policy.answered, policy.unfinished()
    trees.close()
    timing = Timing(tokens, tokens + unfinished, wall, cpu, engine, in_the_mean)
    if not batch:
        return timing
    wall, cpu = time.perf_counter(), time.process_time()
    again = policy.offline(answered)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if again != tokens:
        raise RuntimeError(f"the search made {tokens} tokens, the same requests offline {again}")
    return replace(timing, offline_wall=wall, offline_cpu=cpu)


def best(timings: list[Timing]) -> Timing:
    """The fastest search and the fastest batch of runs that do the same."""
    return replace(
        min(timings, key=lambda t: t.wall),
        cpu=min(t.cpu for t in timings),
        offline_wall=min(t.offline_wall for t in timings),
        offline_cpu=min(t.offline_cpu for t in timings),
    )


def engine_part(model: Path, vllm: Vllm, repeats: int, say: Say) -> dict[str, float]:
    """Utilisation, and the gain over one tree at a time."""
    cases = {
        "128": (SEARCH, 128, 4000),
        "32": (SEARCH, 32, 1500),
        "128_few": (FEW, 8, 4000),
        "32_few": (FEW, 2, 1500),
        "one_tree": (SEARCH, 1, 150),
    }
    policy = RandomVllm(str(model), vllm)
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
            result[f"utilisation_{name}"] = timing.utilisation
            if vllm["in_process"]:
                result[f"utilisation_{name}_cpu"] = timing.utilisation_cpu
    one, many = found["one_tree"], found["128"]
    result["vs_one_tree"] = (many.tokens / many.wall) / (one.tokens / one.wall)
    result["tokens_per_second_128"] = many.tokens / many.wall
    result["overhead_share_128"] = 1 - many.engine / many.wall
    return result


def _line(name: str, t: Timing) -> str:
    text = (
        f"{name:9}{t.open:6.0f} in flight{t.tokens:8} tokens{t.wall:7.1f} s{t.tokens / t.wall:7.0f} tokens/s"
        f"{1 - t.engine / t.wall:7.1%} outside the engine"
    )
    if t.offline_wall:
        text += f" | offline{t.answered / t.offline_wall:7.0f} tokens/s"
        text += f": {t.utilisation:.2f}"
    return text


def pipeline_part(model: Path, vllm: Vllm, folder: Path, say: Say) -> dict[str, float]:
    """Time outside the engine's calls with Ray Data around it all."""
    import ray

    from depo.stages.rollouts import RolloutJob, run_jobs

    log = folder / "engine.json"
    options = {"model_dir": str(model), "vllm": vllm, "log": str(log)}
    policy = CustomConfig(cls="engines:RandomVllm", options=options)
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


def memory_part(folder: Path, say: Say) -> dict[str, float]:
    """Peak memory of the driver with many tasks, over that with few."""
    import ray

    from depo.stages.rollouts import RolloutJob, run_jobs

    (folder / "alone").mkdir()
    options = {"latency": 0.0, "actors": 1, "meeting": str(folder / "alone")}
    policy = CustomConfig(cls="engines:FixedLatency", options=options)
    peaks = []
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        for size in (FEW_TASKS, MANY_TASKS):
            tasks = tuple(make_env(ENV.id, ENV.options).tasks("train", size))
            out = str(folder / f"memory-{size}")
            job = RolloutJob("fixed", policy, "", ONE_STEP, tasks, out, seed=0)
            run_jobs([job], ENV, StudentConfig(), GenerationRuntime(actors=1), f"{size} tasks")
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            say(f"{size:7} tasks: the driver's peak is {peaks[-1]:.0f} MiB")
    finally:
        ray.shutdown()
    return {"driver_memory_100000_vs_1000": peaks[1] / peaks[0]}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--repeats", type=int, default=3, help="times that the engine part is done")
    parser.add_argument(
        "--in-process", action="store_true", help="vLLM's core in the same process as the search"
    )
    parser.add_argument("--max-num-seqs", type=int, help="sequences the engine works on at a time")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    vllm = {"in_process": options.in_process, "max_num_seqs": options.max_num_seqs}

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    say(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        model = make_random_model(DEMO.student.tiny, make_env(ENV.id, ENV.options), TASKS, folder / "model")
        if "engine" in options.only:
            result |= engine_part(model, vllm, options.repeats, say)
        if "pipeline" in options.only:
            result |= pipeline_part(model, vllm, folder, say)
        if "scaling" in options.only:
            result |= scaling_part(folder, say)
        if "memory" in options.only:
            result |= memory_part(folder, say)
    result = {name: round(value, 3) for name, value in result.items()}
    if options.json:
        print(json.dumps(result))
    else:
        print("\n" + "\n".join(f"{name:28}{value:10}" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
