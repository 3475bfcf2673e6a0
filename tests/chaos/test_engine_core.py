"""vLLM's core, in a process of its own, is killed under a live worker."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import ray
from chaos_jobs import ENV, TASKS

from depo.config.runtime import GenerationRuntime, RuntimeConfig, VllmConfig
from depo.config.schema import EngineConfig, SearchConfig, StudentConfig
from depo.data.store import read_trajectories
from depo.stages.accounting import total_spent
from depo.stages.cluster import connect
from depo.stages.jobs import RolloutJob, WorkerSettings
from depo.stages.rollouts import run_jobs
from depo.stages.shards import finished_tasks, quarantined
from depo.stages.worker import RolloutWorker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

INTEGRATION = Path(__file__).parents[1] / "integration"
SEARCH = SearchConfig(simulations=3, width=2, max_steps=5, max_tokens=40)


def engine_cores() -> list[psutil.Process]:
    """Those below this process; other runs on this machine have their own."""
    return [p for p in psutil.Process().children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]


def test_a_killed_engine_core_costs_only_the_trees_in_flight(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(INTEGRATION))
    from tiny_llama import save_model

    model = save_model(tmp_path / "model", seed=3)
    out = tmp_path / "out"
    job = RolloutJob("tiny", EngineConfig(model="student"), str(model), SEARCH, TASKS[:12], str(out), seed=5)
    student = StudentConfig(max_length=480)
    runtime = GenerationRuntime(actors=1, batch_tasks=3, vllm=VllmConfig(in_process=False))
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 150
        while not finished_tasks(out) and time.monotonic() < deadline:
            time.sleep(0.05)
        for core in engine_cores():
            killed.append(core.pid)
            core.kill()

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    connect(RuntimeConfig(num_cpus=2))
    try:
        killer = threading.Thread(target=kill)
        killer.start()
        run_jobs([job], ENV, student, runtime, "chaos")
        killer.join()
    finally:
        ray.shutdown()
    assert len(killed) == 1
    assert total_spent(out).retried >= 1, "it was killed when all was done"
    assert not quarantined(out)

    calm = RolloutJob(**{**vars(job), "out_dir": str(tmp_path / "calm")})
    here = runtime.model_copy(update={"vllm": VllmConfig(in_process=True)})
    worker = RolloutWorker(WorkerSettings(ENV, student, here, None), [calm])
    worker.run(calm, calm.tasks)
    worker.close()
    assert read_trajectories(out) == read_trajectories(tmp_path / "calm")
