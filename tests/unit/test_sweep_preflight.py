"""What a trial needs against what the cluster has."""

import pytest

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.stages.sweep.preflight import Bundle, Phase, at_a_time, member_cpus, nodes_of, preflight

LAPTOP = [Bundle(2, 0)]
GPU_NODES = [Bundle(16, 4), Bundle(16, 4), Bundle(8, 0)]


def runtime(**sections) -> RuntimeConfig:
    return RuntimeConfig.model_validate(sections)


def gpus(share: float, most: int = 100, **generation) -> RuntimeConfig:
    sweep = {"gpus_per_trial": share, "max_concurrent": most}
    return runtime(sweep=sweep, generation=generation, training={"use_gpu": True})


def distributed(workers: int, most: int = 4, actors: int = 1) -> RuntimeConfig:
    return runtime(
        sweep={"distributed": True, "max_concurrent": most},
        training={"num_workers": workers, "use_gpu": True, "cpus_per_worker": 2},
        generation={"num_gpus": 1, "min_actors": actors, "actors": 9},
    )


@pytest.mark.parametrize(
    ("bundles", "nodes", "expected"),
    [
        ([Bundle(1, 0)], LAPTOP, 2),
        ([Bundle(0.5, 0)], LAPTOP, 4),
        ([Bundle(3, 0)], LAPTOP, 0),
        ([Bundle(1, 1)], GPU_NODES, 8),
        ([Bundle(1, 0.25)], GPU_NODES, 32),
        ([Bundle(1, 0.6)], GPU_NODES, 8),  # two of them never share a GPU
        ([Bundle(1, 3)], GPU_NODES, 2),  # three of one node's four, so one is left over on each
        ([Bundle(1, 1)] * 4, GPU_NODES, 2),
        ([Bundle(1, 1)] * 3, GPU_NODES, 2),
        ([Bundle(1, 1)] * 6, GPU_NODES, 1),  # across nodes
        ([Bundle(1, 1)] * 9, GPU_NODES, 0),
        ([Bundle(8, 1)], GPU_NODES, 4),  # CPUs bind
    ],
)
def test_how_many_trials_find_room(bundles, nodes, expected):
    assert at_a_time(Phase("train", "", "", tuple(bundles)), nodes, 40) == expected


def test_the_line_says_need_room_and_how_many_run():
    assert preflight(runtime(), LAPTOP, 16) == (
        2,
        "one trial needs 1 CPU to train and evaluate; the cluster has 2 CPUs on 1 node: "
        "2 of 16 trials at a time",
    )
    concurrent, text = preflight(distributed(4), GPU_NODES, 16)
    assert concurrent == 2
    assert text == (
        "one trial needs 4 x (2 CPUs and 1 GPU) to train, and 1 CPU and 1 GPU to evaluate; the cluster has "
        "40 CPUs and 8 GPUs on 3 nodes, at most 16 CPUs and 4 GPUs on one: 2 of 16 trials at a time "
        "(runtime.sweep.max_concurrent is 4)"
    )
    quarter = gpus(0.25, engine="transformers")
    assert preflight(quarter, [Bundle(16, 1)], 16)[0] == 4


@pytest.mark.parametrize(
    ("settings", "nodes", "message"),
    [
        (gpus(1), LAPTOP, "runtime.sweep.gpus_per_trial: 1 CPU and 1 GPU to train and"),
        (runtime(sweep={"cpus_per_trial": 4}), LAPTOP, "runtime.sweep.cpus_per_trial: 4 CPUs"),
        (distributed(16), GPU_NODES, "runtime.training.num_workers: a trial needs 16 x (2 CPUs and 1"),
        (distributed(2), [Bundle(8, 0)], "runtime.training.cpus_per_worker: 2 CPUs and 1 GPU to train"),
        (distributed(2, actors=9), GPU_NODES, "runtime.generation.min_actors: a trial needs 9 x (1 CPU and"),
        (gpus(0.5), GPU_NODES, "runtime.generation.vllm.gpu_memory_utilization: 2 trials share a GPU"),
        (gpus(0), GPU_NODES, "runtime.sweep.gpus_per_trial: trials train on a GPU"),
        (runtime(), [], "runtime.sweep.cpus_per_trial: 1 CPU to train and evaluate fit on no node"),
    ],
)  # fmt: skip
def test_what_could_never_be_scheduled_is_refused_in_one_line(settings, nodes, message):
    with pytest.raises(ConfigError) as caught:
        preflight(settings, nodes, 4)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_engines_that_share_a_gpu_fit_once_they_take_less():
    shared = gpus(0.5, vllm={"gpu_memory_utilization": 0.45})
    assert preflight(shared, [Bundle(8, 1)], 4)[0] == 2


def test_a_population_runs_no_wider_than_asked():
    narrow = runtime(sweep={"cpus_per_trial": 0.5, "max_concurrent": 2})
    assert member_cpus(narrow, LAPTOP, 8, 2) == 1.0
    assert member_cpus(narrow, LAPTOP, 2, 2) == 0.5
    with pytest.raises(ConfigError, match=r"sweep\.trials: all 4 distributed members"):
        member_cpus(distributed(4), GPU_NODES, 4, 2)
    assert member_cpus(distributed(4), GPU_NODES, 2, 2) == 0.01


def test_nodes_that_are_dead_do_not_count_and_those_that_may_come_do():
    alive = {"Alive": True, "Resources": {"CPU": 2.0, "memory": 1e9}}
    dead = {"Alive": False, "Resources": {"CPU": 64.0}}
    assert nodes_of([alive, dead]) == LAPTOP
    groups = [(Bundle(2, 0), 1), (Bundle(8, 1), 2)]
    assert nodes_of([alive, dead], groups) == [Bundle(2, 0), Bundle(8, 1), Bundle(8, 1)]
