"""Which cluster is joined, and how soon and in what words one that cannot be is told of."""

from __future__ import annotations

import os
import socket
import time

import pytest

from depo.config.base import ConfigError
from depo.config.runtime import RuntimeConfig
from depo.stages import cluster


@pytest.fixture
def calls(monkeypatch):
    """What would be started or joined; nothing is."""
    made: list[tuple] = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(cluster, "_ANSWER_S", 0.5)
    monkeypatch.setattr(cluster, "_cluster_here", lambda: None)
    monkeypatch.setattr(cluster, "_noted_by", os.getuid)
    monkeypatch.setattr(cluster, "_own_token", lambda: None)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", lambda *args, **options: made.append((args, options)))
    return made


@pytest.fixture
def silent_port():
    """One where something listens and never answers."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


@pytest.mark.parametrize("kind", ["", "ray://"])
def test_an_address_where_nobody_answers_is_one_line_at_once(kind, calls, silent_port, monkeypatch):
    began = time.monotonic()
    for port in (silent_port, 1):
        with pytest.raises(
            ConfigError, match=f"^runtime.ray_address: no cluster answers at {kind}127"
        ) as told:
            cluster.connect(RuntimeConfig(ray_address=f"{kind}127.0.0.1:{port}"))
        assert "\n" not in str(told.value)
    monkeypatch.setenv("RAY_ADDRESS", f"{kind}127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"^RAY_ADDRESS: no cluster answers"):
        cluster.connect(RuntimeConfig())
    assert time.monotonic() - began < 15
    assert calls == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "somewhere", "127.0.0.1"])
def test_what_is_no_address_is_refused(address, calls):
    with pytest.raises(ConfigError, match="no address of a cluster; give HOST:PORT"):
        cluster.connect(RuntimeConfig(ray_address=address))


def test_auto_wants_a_cluster_that_runs_here(calls):
    with pytest.raises(
        ConfigError, match=r"auto, and no cluster runs here; start one with `ray start --head`"
    ):
        cluster.connect(RuntimeConfig(ray_address="auto"))


def test_local_is_started_whatever_runs_here(calls, monkeypatch):
    monkeypatch.setattr(cluster, "_cluster_here", lambda: "127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    cluster.connect(RuntimeConfig(num_cpus=1))
    assert [args for args, _ in calls] == [("local",)]


@pytest.mark.parametrize(
    ("refusal", "owner", "told"),
    [
        (cluster._NO_TOKEN, os.getuid(), "the cluster at 127.0.0.1:9 wants its token"),
        (
            "the cluster at {} runs Ray 1.0; install that",
            os.getuid(),
            "the cluster at 127.0.0.1:9 runs Ray 1.0",
        ),
        ("", os.getuid() + 1, "the cluster at 127.0.0.1:9 is another user's"),
    ],
)
def test_a_found_cluster_that_is_not_ours_is_told_of_and_passed_over(
    refusal, owner, told, calls, monkeypatch, capsys
):
    monkeypatch.setattr(cluster, "_cluster_here", lambda: "127.0.0.1:9")
    monkeypatch.setattr(cluster, "_noted_by", lambda: owner)
    monkeypatch.setattr(cluster, "knock", lambda address, client: refusal)
    monkeypatch.setattr(cluster, "maybe_enable_token_auth_if_token_available", lambda **_: False)
    cluster.connect(RuntimeConfig())
    assert [args for args, _ in calls] == [("local",)]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{told}: a cluster of this run's own is started instead")


@pytest.mark.parametrize(
    "error", [Exception("timed out during startup. And more\nlines"), OSError("no room")]
)
def test_ray_that_does_not_come_up_is_one_line(error, calls, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(cluster.ray, "init", fail)
    with pytest.raises(ConfigError, match=r"^Ray does not start on this machine") as told:
        cluster.connect(RuntimeConfig())
    assert "\n" not in str(told.value)


def test_a_token_is_made_for_this_user_alone(tmp_path, monkeypatch):
    class Loader:
        @classmethod
        def instance(cls):
            return cls()

        def has_token(self, ignore_auth_mode):
            return (tmp_path / ".ray" / "auth_token").exists()

        def reset_cache(self):
            pass

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(cluster, "AuthenticationTokenLoader", Loader)
    cluster._own_token()
    file = tmp_path / ".ray" / "auth_token"
    token = file.read_text()
    assert len(token) >= 32
    assert file.stat().st_mode & 0o777 == 0o600
    cluster._own_token()
    assert file.read_text() == token
