"""The Ray cluster of a run: a running one where there is one, else one of this machine."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray._private import services

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig

T = TypeVar("T")

_MANY_ROWS = 10_000

# One thread a worker: two threads on shared cores are slower than one.
_WORKER_ENV = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
}


def quieten(runtime: RuntimeConfig) -> None:
    """Settle what libraries would otherwise guess at import, each with a warning."""
    if not runtime.training.use_gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")


def connect(runtime: RuntimeConfig, trains: bool = True) -> None:
    """Join the cluster that is named or runs on this machine, or start one; a second call does nothing.

    One that is started for work in which Ray Train takes no part (`trains`) is up sooner.

    Raises `ConfigError` where `runtime.ray_address` does not answer.
    """
    if ray.is_initialized():
        return
    os.environ.update({key: os.environ.get(key, value) for key, value in _WORKER_ENV.items()})
    # A cluster of this machine needs no token, and one that switches itself on breaks jobs.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = runtime.ray_address or os.environ.get("RAY_ADDRESS") or _cluster_here()
    runtime_env = {"env_vars": _WORKER_ENV}
    common: dict[str, Any] = {
        "runtime_env": runtime_env,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if address is None:
        ray.init("local", num_cpus=runtime.num_cpus, include_dashboard=trains and has_dashboard(), **common)
    else:
        try:
            ray.init(address=address, **common)
        except ConnectionError as error:
            raise ConfigError(
                f"runtime.ray_address: no cluster answers at {address!r} ({error}); start one with "
                "`ray start --head` or leave the key out"
            ) from None
    _quiet_data()


def _cluster_here() -> str | None:
    """Address of the cluster that `ray start` left running on this machine.

    Ray notes the address in a file that stays behind when the cluster is killed. `ray.init` would wait
    for minutes for such a one and then give up, so it is asked first whether anybody is there.
    """
    address = services.find_bootstrap_address(None)
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return None
    return address


def has_dashboard() -> bool:
    """Ray Train reads its state from the dashboard; `ray[default]` brings it."""
    return find_spec("aiohttp_cors") is not None


def _quiet_data() -> None:
    """Our own progress lines replace Ray Data's bars and logs."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def apart(function: Callable[..., T], *arguments: Any, size: int) -> T:
    """What `function` answers; in a worker where `size`, the number of rows it reads, is large, so that
    the driver's memory does not grow with it."""
    if size < _MANY_ROWS:
        return function(*arguments)
    answer: T = ray.get(ray.remote(num_cpus=0)(function).remote(*arguments))
    return answer


def absolute(path: Path) -> str:
    """A path that means the same in workers, whose working directory is another."""
    return str(path.resolve())
