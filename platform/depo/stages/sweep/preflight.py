"""What a trial needs against what the cluster has: how many trials run at a time, or that none ever could."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig

_NOTHING = 1e-9


@dataclass(frozen=True)
class Bundle:
    """What one process asks of one node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        parts = [_count(self.cpus, "CPU")] if self.cpus or not self.gpus else []
        return " and ".join([*parts, *([_count(self.gpus, "GPU")] if self.gpus else [])])


@dataclass(frozen=True)
class Phase:
    """The processes that a trial has at the same time."""

    purpose: str
    key: str
    """Configuration key that says how much each process asks for."""
    count_key: str
    """Configuration key that says how many there are."""
    bundles: tuple[Bundle, ...]

    def __str__(self) -> str:
        each = str(self.bundles[0])
        several = f"{len(self.bundles)} x ({each})" if len(self.bundles) > 1 else each
        return f"{several} to {self.purpose}"


def phases(runtime: RuntimeConfig) -> tuple[Phase, ...]:
    """What one trial asks for, phase by phase.

    In one process it is the same all along; a distributed one has training workers, and between and after
    them at least `runtime.generation.min_actors` workers that evaluate.
    """
    sweep = runtime.sweep
    if not sweep.distributed:
        bundle = Bundle(sweep.cpus_per_trial, sweep.gpus_per_trial)
        key = "runtime.sweep.gpus_per_trial" if sweep.gpus_per_trial else "runtime.sweep.cpus_per_trial"
        return (Phase("train and evaluate", key, key, (bundle,)),)
    training, generation = runtime.training, runtime.generation
    worker = Bundle(training.cpus_per_worker, 1.0 if training.use_gpu else 0.0)
    actor = Bundle(generation.num_cpus, generation.num_gpus)
    return (
        Phase(
            "train", "runtime.training.cpus_per_worker", "runtime.training.num_workers",
            (worker,) * training.num_workers,
        ),
        Phase(
            "evaluate", "runtime.generation.num_gpus" if actor.gpus else "runtime.generation.num_cpus",
            "runtime.generation.min_actors", (actor,) * generation.min_actors,
        ),
    )  # fmt: skip


def at_a_time(phase: Phase, nodes: Sequence[Bundle], most: int) -> int:
    """Largest number of trials, `most` at the most, whose bundles all find a node.

    Bundles are placed largest first, each where it fits first; a part of a GPU comes from one GPU.
    """
    for count in range(most, 0, -1):
        if _placed(sorted(phase.bundles * count, key=lambda b: (-b.gpus, -b.cpus)), nodes):
            return count
    return 0


def preflight(runtime: RuntimeConfig, nodes: Sequence[Bundle], trials: int) -> tuple[int, str]:
    """(trials at a time, what to say of it) for `trials` on a cluster of `nodes`.

    Raises `ConfigError`, one line with the key and the mend, for what could never be scheduled.
    """
    _check_gpu_share(runtime)
    wanted = min(runtime.sweep.max_concurrent, trials)
    needed = phases(runtime)
    found = {phase: at_a_time(phase, nodes, wanted) for phase in needed}
    for phase, count in found.items():
        if count == 0:
            raise ConfigError(_refusal(phase, nodes))
    concurrent = min(found.values())
    text = f"one trial needs {', and '.join(map(str, needed))}; the cluster has {_cluster(nodes)}: "
    text += f"{concurrent} of {trials} trials at a time"
    if concurrent < wanted:
        text += f" (runtime.sweep.max_concurrent is {runtime.sweep.max_concurrent})"
    return concurrent, text


def member_cpus(runtime: RuntimeConfig, nodes: Sequence[Bundle], members: int, concurrent: int) -> float:
    """CPUs that each member of a population asks for.

    Ray Tune starts every member that finds room, so where fewer may run at a time each asks for more of a
    node. Raises `ConfigError` for distributed members that don't all find room: they hold none themselves,
    so all would start, and wait for each other.
    """
    if runtime.sweep.distributed:
        for phase in phases(runtime):
            if at_a_time(phase, nodes, members) < members:
                raise ConfigError(
                    f"sweep.trials: all {members} distributed members of a population train at a time, and "
                    f" {_cluster(nodes)} have no room for {members} x ({phase}); lower it, or "
                    f"{phase.count_key}"
                )
        return 0.01
    asked = runtime.sweep.cpus_per_trial
    if len(nodes) == 1 and at_a_time(phases(runtime)[0], nodes, members) > concurrent:
        return max(asked, int(100 * nodes[0].cpus / concurrent) / 100)
    return asked


def nodes_of(
    nodes: Sequence[Mapping[str, object]], groups: Sequence[tuple[Bundle, int]] = ()
) -> list[Bundle]:
    """Nodes that are alive, as `ray.nodes` tells of them, and those that an autoscaler may start.

    `groups` holds a node's resources and how many such there may be in all.
    """
    found = []
    for node in nodes:
        resources = node.get("Resources")
        if node.get("Alive") and isinstance(resources, Mapping):
            found.append(Bundle(float(resources.get("CPU", 0)), float(resources.get("GPU", 0))))
    for bundle, most in groups:
        found += [bundle] * max(0, most - sum(node == bundle for node in found))
    return found


def _check_gpu_share(runtime: RuntimeConfig) -> None:
    """Trials that share a GPU must fit into its memory, engine by engine."""
    gpus = runtime.sweep.gpus_per_trial
    if not runtime.sweep.distributed and runtime.training.use_gpu and not gpus:
        raise ConfigError(
            "runtime.sweep.gpus_per_trial: trials train on a GPU (runtime.training.use_gpu) and ask for "
            "none; set it to 1, or to a part of one"
        )
    sharing = int(1 / gpus + _NOTHING) if 0 < gpus < 1 else 1
    share = runtime.generation.vllm.gpu_memory_utilization
    if sharing > 1 and runtime.generation.engine != "transformers" and share * sharing > 1 + _NOTHING:
        raise ConfigError(
            f"runtime.generation.vllm.gpu_memory_utilization: {sharing} trials share a GPU "
            f"(runtime.sweep.gpus_per_trial is {gpus:g}) and each engine takes {share:g} of its memory; "
            f"lower it below {1 / sharing:.2g}"
        )


def _placed(bundles: Sequence[Bundle], nodes: Sequence[Bundle]) -> bool:
    cpus = [node.cpus for node in nodes]
    gpus = [[1.0] * int(node.gpus) for node in nodes]
    for bundle in bundles:
        for number in range(len(nodes)):
            if bundle.cpus <= cpus[number] + _NOTHING and _take_gpus(gpus[number], bundle.gpus):
                cpus[number] -= bundle.cpus
                break
        else:
            return False
    return True


def _take_gpus(free: list[float], wanted: float) -> bool:
    """Take whole free GPUs, or a part of one, off `free`; whether there were enough."""
    if wanted <= 0:
        return True
    if wanted < 1:
        fitting = [number for number, left in enumerate(free) if left >= wanted - _NOTHING]
        if fitting:
            # The fullest that has room, so that whole ones stay free.
            free[min(fitting, key=lambda number: free[number])] -= wanted
        return bool(fitting)
    whole = [number for number, left in enumerate(free) if left >= 1 - _NOTHING]
    for number in whole[: int(wanted)] if len(whole) >= wanted else ():
        free[number] = 0.0
    return len(whole) >= wanted


def _refusal(phase: Phase, nodes: Sequence[Bundle]) -> str:
    bundle = phase.bundles[0]
    if at_a_time(Phase("", "", "", (bundle,)), nodes, 1) == 0:
        largest = max(nodes, key=lambda n: (n.gpus, n.cpus), default=Bundle(0, 0))
        return (
            f"{phase.key}: {bundle} to {phase.purpose} fit on no node (the largest has {largest}), so no "
            "trial could ever start; ask for less, or add a node that has it"
        )
    return (
        f"{phase.count_key}: a trial needs {phase}, the cluster has {_cluster(nodes)}, so none could ever "
        "start; ask for fewer, or add nodes"
    )


def _cluster(nodes: Sequence[Bundle]) -> str:
    total = Bundle(sum(n.cpus for n in nodes), sum(n.gpus for n in nodes))
    text = f"{total} on {len(nodes)} node{'s' if len(nodes) != 1 else ''}"
    if len(nodes) > 1:
        text += f", at most {max(nodes, key=lambda n: (n.gpus, n.cpus))} on one"
    return text


def _count(number: float, unit: str) -> str:
    return f"{number:g} {unit}{'' if 0 < number <= 1 else 's'}"
