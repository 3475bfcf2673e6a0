"""Trainings on several gloo ranks of this machine, without Ray: run as a script once for each rank."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest
from training_help import plain_sgd

from depo.training.run import Checkpoints, TrainSpec, train


@dataclass(frozen=True)
class Job:
    """One training of all ranks."""

    spec: TrainSpec
    checkpoints: Path | None = None
    """Folder of checkpoints; a training goes on from the last one in it that all ranks have written."""
    killed_at: int | None = None
    """Step at which rank 0 kills itself with SIGKILL."""
    sgd: bool = False
    """Steps of plain SGD, after which weights can be compared with those of another way to sum up."""


def run_ranks(folder: Path, jobs: list[Job], world: int = 2, timeout: float = 500) -> list[int]:
    """Do `jobs` one after the other in one process a rank; the exit codes by rank."""
    work = folder / "jobs.pickle"
    work.write_bytes(pickle.dumps(jobs))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(work)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(world)
    ]
    try:
        return [rank.wait(timeout) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


def work(job: Job) -> None:
    """One job on this rank."""

    def report(row: dict[str, float]) -> None:
        if job.killed_at is not None and row["step"] >= job.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints = None
    if job.checkpoints is not None:
        told = job.checkpoints / "saved.json"
        last = Path(json.loads(told.read_text())) if told.exists() else None

        def saved(step: int, path: Path) -> None:
            if os.environ["RANK"] == "0":
                told.write_text(json.dumps(str(path)))

        checkpoints = Checkpoints(job.checkpoints, last, saved)
    with pytest.MonkeyPatch.context() as patch:
        if job.sgd:
            plain_sgd(patch)
        train(job.spec, report, checkpoints)


def main() -> None:
    import torch.distributed
    from accelerate.state import AcceleratorState

    torch.distributed.init_process_group("gloo")
    for job in pickle.loads(Path(sys.argv[1]).read_bytes()):
        # Its plugins are those of the training before.
        AcceleratorState._reset_state()
        torch.manual_seed(0)
        work(job)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    code = 0
    try:
        main()
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # At an orderly exit, after an error too, gloo's threads abort the process now and then.
    os._exit(code)
