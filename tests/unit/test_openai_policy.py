"""The endpoint policy against a real HTTP server on this machine that misbehaves on demand."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime
from depo.config.schema import OpenAIConfig, StudentConfig
from depo.policies.base import Exchange, Reply, Request, Sampling
from depo.policies.engine import make_policy
from depo.policies.openai import EndpointError, OpenAIPolicy

KEY = "sk-secret-0123"
TEXT = "Thought: near.\nAction: go to ball"


class Endpoint(ThreadingHTTPServer):
    """Answers chat completions; each queued fault replaces one answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Callable[[Handler], None]] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most_choices = 100
        self.delay_s = 0.0
        self.active = self.most_active = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoint = self.server
        with endpoint.lock:
            endpoint.bodies.append({"path": self.path, **body})
            endpoint.keys.append(self.headers.get("Authorization"))
            endpoint.active += 1
            endpoint.most_active = max(endpoint.most_active, endpoint.active)
            fault = endpoint.faults.pop(0) if endpoint.faults else None
        time.sleep(endpoint.delay_s)
        try:
            if fault is not None:
                fault(self)
            else:
                self.complete(body)
        finally:
            with endpoint.lock:
                endpoint.active -= 1

    def complete(self, body: dict[str, Any]) -> None:
        n = min(body["n"], self.server.most_choices)
        said = body["messages"][-1]["content"]
        choices = [
            {"index": i, "message": {"role": "assistant", "content": f"{TEXT} {said} {body['seed'] + i}"}}
            for i in range(n)
        ]
        self.send(200, {"choices": choices, "usage": {"prompt_tokens": 11, "completion_tokens": 5 * n + 1}})

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def policy(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIPolicy]:
    monkeypatch.setenv("TEST_KEY", KEY)
    made = make(endpoint)
    yield made
    made.close()


def make(endpoint: Endpoint, **options: Any) -> OpenAIPolicy:
    config = {"base_url": endpoint.url, "model": "m", "api_key_env": "TEST_KEY", "retries": 3, **options}
    return OpenAIPolicy(OpenAIConfig(**config), name="remote", backoff_s=0.01)


def ask(observation: str = "look", n: int = 1, seed: int = 0) -> Request:
    past = Exchange("before", Reply(TEXT, "near.", "go to ball", False, 4))
    return Request("be good", (past,), observation, n, Sampling(0.5, 0.9, 32), seed)


def status(number: int, headers: dict[str, str] | None = None, **error: str) -> Callable[[Handler], None]:
    return lambda handler: handler.send(number, {"error": {"message": "no", **error}}, headers)


def garbage(handler: Handler) -> None:
    handler.send(200, b"<html>busy</html>")


def empty(handler: Handler) -> None:
    handler.send(200, {"choices": []})


def drop(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.close()


def test_request_is_a_chat_completion_with_the_whole_conversation(
    endpoint: Endpoint, policy: OpenAIPolicy
) -> None:
    ((reply,),) = policy.sample([ask(seed=3)])
    (body,) = endpoint.bodies
    assert body == {
        "path": "/v1/chat/completions",
        "model": "m",
        "messages": [
            {"role": "system", "content": "be good"},
            {"role": "user", "content": "before"},
            {"role": "assistant", "content": TEXT},
            {"role": "user", "content": "look"},
        ],
        "n": 1,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 32,
        "seed": 3,
    }
    assert endpoint.keys == [f"Bearer {KEY}"]
    assert (reply.thought, reply.action, reply.malformed) == ("near.", "go to ball look 3", False)
    assert (reply.num_tokens, reply.input_tokens, reply.token_ids) == (6, 11, ())


@pytest.mark.parametrize(
    "fault",
    [status(408), status(409), status(429), status(500), status(503), garbage, empty, drop],
    ids=["408", "409", "429", "500", "503", "garbage", "empty", "dropped"],
)
def test_passing_faults_are_tried_again(
    endpoint: Endpoint, policy: OpenAIPolicy, fault: Callable[[Handler], None]
) -> None:
    endpoint.faults = [fault, fault]
    ((reply,),) = policy.sample([ask()])
    assert reply.action == "go to ball look 0"
    assert len(endpoint.bodies) == 3


def test_retry_after_is_waited_for(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    endpoint.faults = [status(429, {"Retry-After": "0.4"})]
    start = time.monotonic()
    policy.sample([ask()])
    assert time.monotonic() - start >= 0.4


def test_lasting_fault_ends_in_a_clear_error(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    endpoint.faults = [status(503)] * 10
    with pytest.raises(EndpointError, match=r"no answer after 4 tries; the last: HTTP 503"):
        policy.sample([ask()])
    assert len(endpoint.bodies) == 4


def test_refused_request_is_not_tried_again_and_hides_the_key(
    endpoint: Endpoint, policy: OpenAIPolicy
) -> None:
    endpoint.faults = [status(401, message=f"bad key {KEY}")]
    with pytest.raises(
        EndpointError, match=r"HTTP 401: bad key \*\*\* \(check the key in TEST_KEY"
    ) as raised:
        policy.sample([ask()])
    assert KEY not in str(raised.value)
    assert len(endpoint.bodies) == 1


def test_key_that_cannot_be_a_header_is_refused_unseen(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret\nsecond-line")
    with pytest.raises(ConfigError, match="TEST_KEY holds a line break") as raised:
        make(endpoint)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("code", ["context_length_exceeded", "content_filter"])
def test_context_that_cannot_be_answered_gets_malformed_replies(
    endpoint: Endpoint, policy: OpenAIPolicy, code: str
) -> None:
    endpoint.faults = [status(400, code=code)]
    (replies,) = policy.sample([ask(n=3)])
    assert [(r.text, r.malformed) for r in replies] == [("", True)] * 3


@pytest.mark.parametrize("most", [1, 2, 4])
def test_fewer_choices_than_asked_are_made_up_by_further_requests(
    endpoint: Endpoint, policy: OpenAIPolicy, most: int
) -> None:
    endpoint.most_choices = most
    (replies,) = policy.sample([ask(n=4, seed=10)])
    assert [r.action for r in replies] == [f"go to ball look {seed}" for seed in (10, 11, 12, 13)]
    assert sum(r.num_tokens for r in replies) == 4 * 5 + len(endpoint.bodies)


def test_answers_keep_the_order_of_requests_and_run_side_by_side(endpoint: Endpoint) -> None:
    policy = make(endpoint, concurrency=4)
    endpoint.delay_s = 0.05
    answers = policy.sample([ask(f"o{i}") for i in range(12)])
    assert [replies[0].action for replies in answers] == [f"go to ball o{i} 0" for i in range(12)]
    assert endpoint.most_active == 4
    policy.close()


def test_unset_key_is_an_error_naming_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    config = OpenAIConfig(base_url="https://example.org/v1", model="m", api_key_env="TEST_KEY")
    with pytest.raises(ConfigError, match="TEST_KEY is not set"):
        OpenAIPolicy(config, name="remote")


def test_endpoint_of_this_machine_needs_no_key(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    policy = make(endpoint)
    policy.sample([ask()])
    assert endpoint.keys == [None]
    policy.close()


def test_factory_makes_the_endpoint_policy_by_its_kind(endpoint: Endpoint) -> None:
    config = OpenAIConfig(base_url=endpoint.url, model="m", api_key_env="TEST_KEY")
    made = make_policy(
        config, name="round", model_dir="", student=StudentConfig(), runtime=GenerationRuntime()
    )
    assert made.name == "round"
    ((reply,),) = made.sample([ask()])
    assert reply.action == "go to ball look 0"


def test_policy_pickles_without_its_key(policy: OpenAIPolicy) -> None:
    data = pickle.dumps(policy)
    assert KEY.encode() not in data
    copy = pickle.loads(data)
    ((reply,),) = copy.sample([ask()])
    assert reply.action == "go to ball look 0"
    copy.close()
