"""The AgentGym environment against a real server process that fails in every way told."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from agentgym_server import Lighthouse

from depo.config.base import ConfigError
from depo.config.schema import SearchConfig
from depo.envs.agentgym import AgentGymEnv
from depo.envs.agentgym_client import ServerError
from depo.envs.base import SnapshotUnsupported, StepResult
from depo.envs.check import check_env
from depo.envs.registry import make_env
from depo.policies.base import Immediate, Reply, Request, format_reply
from depo.records import Task, Trajectory, content_hash
from depo.search.driver import drive
from depo.search.run import search

PROGRAM = Path(__file__).with_name("agentgym_server.py")
SPLITS = {"train": [0, 12], "validation": [12, 18], "test": [18, 24]}
TASK = Task("agentgym", "babyai", 1, "train")  # three floors, the oil on the second
WIN = ["up", "up", "take oil", "up", "light the lamp"]
EXPECTED = [(reward, done) for reward, done in zip([0, 0, 0, 0, 1], [False] * 4 + [True], strict=True)]


class Server:
    """One server process; `restart` gives another on the same port, without its environments."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self._start(0, 0)

    def _start(self, port: int, shift: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), self.dialect, str(port), str(shift)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restart(self, shift: int = 0) -> None:
        self.stop()
        self._start(self.port, shift)

    def fault(self, path: str, kind: str, count: int = 1) -> None:
        self._post("/fault", {"path": path, "kind": kind, "count": count})

    def forget(self) -> None:
        self._post("/forget", {})

    def calls(self) -> dict[str, int]:
        return httpx.get(f"{self.url}/calls", trust_env=False).json()

    def _post(self, path: str, body: dict[str, Any]) -> None:
        httpx.post(self.url + path, json=body, trust_env=False).raise_for_status()

    def env(self, **options: Any) -> AgentGymEnv:
        settings = {"server": self.dialect, "timeout_s": 0.4, "retries": 2, "splits": SPLITS, **options}
        return AgentGymEnv(self.url, **settings)


@pytest.fixture(params=["babyai"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    running = Server(request.param)
    yield running
    running.stop()


def play(env: AgentGymEnv, actions: list[str]) -> list[tuple[float, bool]]:
    results = [env.step(action) for action in actions]
    assert all(result.info["valid"] for result in results)
    return [(result.reward, result.terminated) for result in results]


@pytest.mark.parametrize("server", ["generic", "babyai", "webshop"], indirect=True)
def test_every_dialect_keeps_the_contract(server):
    checks = check_env("agentgym", {"url": server.url, "server": server.dialect, "splits": SPLITS})
    assert [check for check in checks if not check.ok] == []
    details = {check.name: check.detail for check in checks}
    assert details["a restored state has the same future"] == "no snapshots; search replays actions"
    offers_none = details["available actions are valid"] == "none offered; any text may be an action"
    assert offers_none == (server.dialect == "generic")


@pytest.mark.parametrize("server", ["generic", "babyai", "webshop"], indirect=True)
def test_an_episode_is_won_and_then_over(server):
    env = server.env()
    assert env.reset(TASK).startswith("Lighthouse 1 needs light. You are on floor 0 of 3.")
    actions = [f"click[{action}]" for action in WIN] if server.dialect == "webshop" else WIN
    assert play(env, actions) == EXPECTED
    before = server.calls()
    late = env.step("up")
    assert (late.info, late.terminated, late.reward) == ({"valid": False, "success": True}, True, 0.0)
    assert env.available_actions() == [] and server.calls() == before


def test_what_a_lost_game_and_a_refused_action_look_like(server):
    env = server.env()
    env.reset(TASK)
    assert env.available_actions() == ["up"]
    refused = env.step("down")
    assert refused.info == {"valid": False} and refused.observation.startswith("Nothing happens.")
    play(env, ["up", "up", "up"])
    lost = env.step("light the lamp")
    assert (lost.terminated, lost.reward, lost.info["success"]) == (True, 0.0, False)


@pytest.mark.parametrize("server", ["generic"], indirect=True)
def test_an_action_that_cannot_be_one_is_not_sent(server):
    env = server.env()
    env.reset(TASK)
    before = server.calls()
    for action in ("", " \t", "x" * 3000, "up\x00", "up\x1bdown", "\ud800"):
        assert env.step(action).info == {"valid": False}
    assert server.calls() == before


def test_an_action_is_cleaned_and_an_empty_one_is_answered_with_the_list(server):
    env = server.env()
    env.reset(TASK)
    assert play(env, ["*up*.", "up\nand on"]) == [(0.0, False)] * 2
    nothing = env.step("?!")
    assert nothing.info == {"valid": False}
    assert nothing.observation == 'Nothing happens.\nAvailable actions: ["up", "down", "take oil"]'


@pytest.mark.parametrize("server", ["webshop"], indirect=True)
def test_a_click_on_what_is_not_on_the_page_is_invalid(server):
    env = server.env()
    env.reset(TASK)
    clicks = ("click[down]", "up", "scroll[up]", "click[up]")
    assert [env.step(action).info["valid"] for action in clicks] == [False, False, False, True]


@pytest.mark.parametrize("kind", ["slow", "500", "drop", "html"])
@pytest.mark.parametrize("path", ["/create", "/reset"])
def test_a_failed_start_is_tried_again(server, path, kind):
    server.fault(path, kind, count=2)
    env = server.env()
    env.reset(TASK)
    assert play(env, WIN) == EXPECTED


@pytest.mark.parametrize("kind", ["slow", "500", "drop", "html"])
def test_a_lost_step_is_never_repeated_but_the_episode_rebuilt(server, kind):
    env = server.env()
    env.reset(TASK)
    seen = play(env, WIN[:2])
    server.fault("/step", kind)
    # Were "take oil" or the second "up" taken twice, the rest of the game would not fit.
    assert seen + play(env, WIN[2:]) == EXPECTED
    calls = server.calls()
    assert calls["/create"] == 2, (
        "what was lost may arrive late, so the rebuilt game needs its own environment"
    )
    assert calls["alive"] == 1, "the abandoned environment was given back"


def test_a_server_that_forgets_its_environments_is_reminded(server):
    env = server.env()
    env.reset(TASK)
    seen = play(env, WIN[:3])
    server.forget()
    assert seen + play(env, WIN[3:]) == EXPECTED
    server.forget()
    env.reset(TASK)
    assert play(env, WIN) == EXPECTED


def test_an_episode_outlives_the_server(server):
    env = server.env()
    env.reset(TASK)
    seen = play(env, WIN[:3])
    server.restart()
    assert seen + play(env, WIN[3:]) == EXPECTED


def test_a_copy_goes_on_from_the_same_state_in_an_environment_of_its_own(server):
    env = server.env()
    env.reset(TASK)
    seen = play(env, WIN[:3])
    copy = pickle.loads(pickle.dumps(env))
    assert play(env, ["down"]) == [(0.0, False)]
    assert copy.available_actions() == ["up", "down"]
    assert seen + play(copy, WIN[3:]) == EXPECTED


@pytest.mark.parametrize(
    ("kind", "count", "message"),
    [
        ("error", 1, "error: the kettle is on fire"),
        ("slow", 9, "no answer in time; raise timeout_s, or look at the server"),
        ("500", 9, "status 500: Internal Server Error"),
        ("html", 9, "not JSON: '<html>It works!</html>'; is this AgentGym's port?"),
        ("drop", 9, "look at the server"),
    ],
)
def test_what_cannot_be_mended_is_one_line_naming_call_and_url(server, kind, count, message):
    env = server.env(retries=1, timeout_s=0.2)
    env.reset(TASK)
    server.fault("/step", kind, count)
    with pytest.raises(ServerError) as error:
        env.step("up")
    assert str(error.value).startswith(f"AgentGym server, POST {server.url}/step: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_error_inside_an_answer_of_status_200_is_no_observation(server):
    env = server.env()
    server.fault("/reset", "error")
    with pytest.raises(ServerError, match="/reset: error: the kettle is on fire"):
        env.reset(TASK)


def test_no_server_and_the_wrong_kind_of_server_are_told_apart(server):
    with pytest.raises(ServerError, match=r"no 'env_idx' in .*; set server or protocol.id_field"):
        server.env(server="webshop").reset(TASK)
    other = {"server": "generic", "protocol": {"reward_field": "gain"}}
    env = server.env(**other)
    env.reset(TASK)
    with pytest.raises(ServerError, match="no usable 'gain' in"):
        env.step("up")
    server.stop()
    with pytest.raises(ServerError, match="start the server or mend url"):
        server.env(retries=0).reset(TASK)


def test_a_game_that_cannot_be_replayed_is_not_passed_off_as_the_same(server):
    env = server.env()
    env.reset(TASK)
    play(env, WIN[:2])
    server.restart(shift=1)
    with pytest.raises(ServerError, match="the task begins differently now"):
        env.step("take oil")


def test_the_remote_environment_is_given_back(server):
    closed, dropped = server.env(), server.env()
    closed.reset(TASK)
    dropped.reset(TASK)
    assert server.calls()["alive"] == 2
    closed.close()
    assert server.calls()["alive"] == 1
    del dropped
    assert server.calls()["alive"] == 0


class Local:
    """The same game without a server; it can save its state."""

    id, system = "agentgym", AgentGymEnv("http://127.0.0.1:1", SPLITS).system

    def reset(self, task: Task) -> str:
        self.game = Lighthouse(task.seed)
        return self._look(self.game.look())

    def step(self, action: str) -> StepResult:
        valid = action in self.game.actions()
        text, reward = self.game.play(action)
        info = {"valid": valid} | ({"success": reward > 0} if self.game.done else {})
        return StepResult(self._look(text), reward, self.game.done, False, info)

    def _look(self, text: str) -> str:
        return f"{text}\nAvailable actions: " + str(self.game.actions()).replace("'", '"')

    def available_actions(self) -> list[str]:
        return self.game.actions()

    def snapshot(self) -> Any:
        return dict(vars(self.game))

    def restore(self, state: Any) -> None:
        vars(self.game).update(state)


class Drawn(Immediate):
    """A policy that draws from the usual actions by the request's seed."""

    name, tokenizer_fingerprint = "drawn", ""

    def reply(self, request: Request) -> list[Reply]:
        return [self._draw(request, i) for i in range(request.n)]

    def _draw(self, request: Request, i: int) -> Reply:
        number = int(content_hash([request.seed + i, request.observation]), 16)
        action = (*WIN, "down")[number % 6]
        return Reply(format_reply("so", action), "so", action, False, 5)


def searched(env: Any) -> list[Trajectory]:
    config = SearchConfig(simulations=12, width=3, max_steps=8)
    tasks = [Task("agentgym", "babyai", seed, "train") for seed in range(3)]
    searches = ((task.id, search(task, env, config, 7, "drawn", "")) for task in tasks)
    return [t for finished in drive(searches, Drawn(), in_flight=1) for t in finished.trajectories]


def test_search_by_replay_finds_what_search_by_snapshots_finds(server):
    env = server.env()
    with pytest.raises(SnapshotUnsupported):
        env.snapshot()
    server.fault("/step", "drop", count=1)
    remote, local = searched(env), searched(Local())
    assert remote == local
    assert any(t.success for t in remote) and not any(t.error for t in remote)
    assert len({len(t.nodes) for t in remote}) > 1, "the search went deeper than the root's children"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "url: give http://host:port, not 'localhost:8000'"),
        ({"url": "http://[::1"}, "url: 'http://[::1' is no address"),
        ({"splits": {}}, "splits: give tasks such as"),
        ({"splits": {"dev": [0, 1]}}, "splits.dev: unknown split; use train, validation, test"),
        ({"splits": {"test": [5, 5]}}, "splits.test: give [first, end) with 0 <= first < end, not [5, 5]"),
        ({"splits": {"test": "all"}}, "splits.test: all: cannot be read"),
        ({"splits": {"train": [0, 9], "test": [8, 20]}}, "splits.test: overlaps train"),
        ({"server": "babyay"}, "server: unknown kind 'babyay'; did you mean 'babyai'?"),
        ({"protocol": {"id_feild": "x"}}, "protocol.id_feild: unknown field; did you mean 'id_field'?"),
        ({"protocol": {"id_field": 3}}, "protocol.id_field: expected str, got 3"),
        ({"timeout_s": 0}, "timeout_s: give seconds above 0"),
        ({"retries": -1}, "retries: give a whole number from 0"),
    ],
)
def test_bad_options_are_one_line_with_the_mend(options, message):
    with pytest.raises(ConfigError) as error:
        make_env("agentgym", {"url": "http://127.0.0.1:1", "splits": SPLITS, **options})
    assert f"env.options.{message}" in str(error.value)
    assert "\n" not in str(error.value)


def test_tasks_come_from_the_ranges_and_never_run_short_in_silence():
    env = AgentGymEnv("http://127.0.0.1:1", {"test": [40, 43]}, name="kitchen")
    assert [t.id for t in env.tasks("test", 3)] == [f"agentgym/kitchen/{n}" for n in (40, 41, 42)]
    for split, count in (("test", 4), ("train", 1), ("dev", 1)):
        with pytest.raises(ConfigError):
            env.tasks(split, count)


def test_a_return_below_the_mark_is_no_success(server):
    env = server.env(protocol={"reward_scale": 0.5, "success_at": 0.75, "cumulative": True})
    env.reset(TASK)
    results = [env.step(action) for action in WIN]
    assert (results[-1].reward, results[-1].terminated, results[-1].info["success"]) == (0.5, True, False)
