"""The Ray cluster of a run: a running one where there is one, else one of this machine."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
import ray
from ray._common.network_utils import build_address, is_localhost, parse_address
from ray._common.utils import get_ray_address_file
from ray._private import auto_init_hook, ray_constants, services
from ray._private.authentication.authentication_token_generator import generate_new_authentication_token
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray._private.grpc_utils import init_grpc_channel
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc

from depo import interrupts
from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.stages.progress import say

T = TypeVar("T")

gcs_pb: Any = gcs_service_pb2
client_pb: Any = ray_client_pb2  # made by protoc at run time, so without types

_ANSWER_S = 8.0
"""How long a named address has to answer."""
_NO_TOKEN = (
    "the cluster at {} wants its token; put it into RAY_AUTH_TOKEN, into the file that RAY_AUTH_TOKEN_PATH "
    "names or into ~/.ray/auth_token (where the cluster was started `ray get-auth-token` prints it)"
)
_RAISED_BY_RAY = (RuntimeError, OSError, ValueError, AssertionError, ray.exceptions.RayError)
"""Where it cannot start or join; and plain `Exception`."""
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

    A named one is `runtime.ray_address`, else `RAY_ADDRESS` (`local`: start one). One that is only found and
    does not let us in is told of and passed over. One that is started listens on the loopback alone and takes
    no one without its token; for work in which Ray Train takes no part (`trains`) it is up sooner.

    Raises `ConfigError` within half a minute where a named cluster does not let us in, or none comes up.
    """
    if ray.is_initialized():
        return
    os.environ.update({key: os.environ.get(key, value) for key, value in _WORKER_ENV.items()})
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if not _joined(runtime):
            _start(runtime.num_cpus, include_dashboard=trains and has_dashboard())
    finally:
        interrupts.take_signals()  # Ray sets a handler of its own
    # A thread that outlives the cluster is not to start another one.
    auto_init_hook.enable_auto_connect = False
    interrupts.at_end(_leave)
    _quiet_data()


def _leave() -> None:
    """End an interrupted process, and with it those that it started: to shut Ray down in order would take
    longer than anybody waits, and its own reaper leaves some behind."""
    if (
        threading.current_thread() is threading.main_thread()
    ):  # where it is not, that one may hold the streams
        sys.stdout.flush()
        sys.stderr.flush()
    with suppress(psutil.Error):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
    os._exit(interrupts.EXIT_CODE)


def _joined(runtime: RuntimeConfig) -> bool:
    """Whether there is a cluster to join; then it is joined."""
    named = runtime.ray_address or os.environ.get("RAY_ADDRESS")
    if named == "auto":
        named = os.environ.get("RAY_ADDRESS", "auto").replace("auto", "") or _cluster_here()
        if named is None:
            raise ConfigError(
                "runtime.ray_address: auto, and no cluster runs here; start one with `ray start --head`"
            )
    if named:
        if named != "local":
            _join(named, "runtime.ray_address" if runtime.ray_address else "RAY_ADDRESS")
        return named != "local"
    found = _cluster_here()
    if found is None:
        return False
    try:
        if _noted_by() not in (0, os.getuid()):
            raise ConfigError(f"RAY_ADDRESS: the cluster at {found} is another user's")
        _join(found, "RAY_ADDRESS")
    except ConfigError as error:
        why = str(error).removeprefix("RAY_ADDRESS: ").partition(";")[0]
        say(f"{why}: a cluster of this run's own is started instead, as RAY_ADDRESS=local does at once")
        return False
    return True


def _cluster_here() -> str | None:
    """Address of the cluster that `ray start` left running on this machine.

    Ray notes the address in a file that stays behind when the cluster is killed; without an answer there
    is none.
    """
    address = services.find_bootstrap_address(None)
    host, port = (address and parse_address(address)) or ("", "")
    return address if _listens(host, port) else None


def _listens(host: str, port: str) -> bool:
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def _noted_by() -> int:
    """Id of the user who wrote that file."""
    return Path(get_ray_address_file(None)).stat().st_uid


def _join(address: str, key: str) -> None:
    """Join the cluster at `address`. Raises `ConfigError` naming `key`, which it was taken from."""
    whole = address
    kind, _, rest = address.rpartition("://")
    if kind not in ("", "ray") or parse_address(rest) is None:
        raise ConfigError(
            f"{key}: {address!r} is no address of a cluster; give HOST:PORT, ray://HOST:10001, auto or local"
        )
    host, port = parse_address(rest) or ("", "")
    refusal = knock(build_address(host, port), client=kind == "ray")
    if refusal == _NO_TOKEN and maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
        # Ray takes its token up by itself only for clusters that it finds by itself.
        refusal = knock(build_address(host, port), client=kind == "ray")
    if refusal:
        raise ConfigError(f"{key}: {refusal.format(whole)}")
    # Ray takes loopback addresses for those of the network, where one of a command's own does not listen.
    alone = is_localhost(host) and not _listens(services.resolve_ip_for_localhost(host), port)
    with _on_loopback(alone), _in_one_line(f"{key}: the cluster at {whole} cannot be joined"):
        ray.init(address=whole, **_init_options())


def _start(num_cpus: int | None, include_dashboard: bool) -> None:
    """Start a cluster of this machine, which ends with this process."""
    _own_token()
    group = os.getpgrp()
    options = _init_options()
    if Path("/sys/class/net/lo").exists():
        options["runtime_env"]["env_vars"]["GLOO_SOCKET_IFNAME"] = "lo"
    what = "Ray does not start on this machine"
    try:
        with _on_loopback(), _in_one_line(what, "see that memory and CPUs are free, and run it again"):
            ray.init("local", num_cpus=num_cpus, include_dashboard=include_dashboard, **options)
    finally:
        if os.getpgrp() != group:
            # Ray makes a group of its processes and takes us along: out of reach of the terminal's Ctrl-C.
            os.setpgid(0, group)


def _init_options() -> dict[str, Any]:
    return {
        "runtime_env": {"env_vars": dict(_WORKER_ENV)},
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }


@contextmanager
def _in_one_line(what: str, mend: str = "") -> Iterator[None]:
    """Whatever Ray raises as a `ConfigError`; what it started until then is ended."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    except Exception as error:
        if type(error) is not Exception and not isinstance(error, _RAISED_BY_RAY):
            raise
        with suppress(Exception):
            ray.shutdown()
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise ConfigError(
            f"{what} ({type(error).__name__}: {first})" + (f"; {mend}" if mend else "")
        ) from error


@contextmanager
def _on_loopback(local: bool = True) -> Iterator[None]:
    """Have Ray take 127.0.0.1 for this machine's address: its processes then listen there and nowhere else.

    Its own setting for that is read once, at import.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = before and not local
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _own_token() -> None:
    """Where this user has no token yet, make one that nobody else can read; Ray's own anybody can."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token":
        return  # as the user chose
    if AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        return
    token = generate_new_authentication_token()
    path = Path.home() / ".ray" / "auth_token"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token)
    except OSError:  # a home that cannot be written: one for this run
        os.environ["RAY_AUTH_TOKEN"] = token
    AuthenticationTokenLoader.instance().reset_cache()


def knock(address: str, client: bool = False) -> str:
    """Why the cluster at HOST:PORT, or its server of Ray clients, lets nobody in, `{}` for its name; "" where
    it does. Ray itself would try for a quarter of an hour."""
    try:
        with init_grpc_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_S)
            if client:
                stub = ray_client_pb2_grpc.RayletDriverStub(channel)
                ping = client_pb.ClusterInfoRequest(type=client_pb.ClusterInfoType.PING)
                stub.ClusterInfo(ping, timeout=_ANSWER_S, metadata=[("client_id", "depo")])
                return ""
            nodes = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
            alive = nodes.CheckAlive(gcs_pb.CheckAliveRequest(), timeout=_ANSWER_S)
    except grpc.FutureTimeoutError:
        return "no cluster answers at {}; see that it runs and can be reached, or leave the address out"
    except grpc.RpcError as error:
        code = error.code()  # type: ignore[attr-defined]  # a call, too
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return _NO_TOKEN
        return f"what answers at {{}} is no Ray cluster ({code.name}); check the address"
    if alive.ray_version != ray.__version__:
        return (
            f"the cluster at {{}} runs Ray {alive.ray_version}, this is {ray.__version__}; install the same"
        )
    return ""


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
