"""The endpoint policy against a real vLLM server on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from policy_contract import CONTRACT, Rule
from tiny_llama import save_model

from depo.config.endpoint import OpenAIConfig, PriceConfig
from depo.policies.base import Exchange, Reply, Request, Sampling, answer_all
from depo.policies.checkpoint import load_renderer
from depo.policies.openai import EndpointError, OpenAIPolicy, RequestFailed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

KEY = "sk-loopback-4711"
SAMPLED = Sampling(temperature=1.0, max_tokens=12)
LONGEST = 512
READY_WITHIN_S = 240


@dataclass(frozen=True)
class Server:
    url: str
    model_dir: str


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    model_dir = save_model(folder / "model", seed=0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model_dir), "--served-model-name", "tiny", "--dtype", "float32"),
        *("--max-model-len", str(LONGEST), "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY),
        *("--block-size", "32", "--enforce-eager", "--enable-prompt-tokens-details"),
        *("--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192"),
    ]
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | cpu, stdout=log, stderr=log)
    try:
        await_ready(process, f"http://127.0.0.1:{port}/health", folder / "log")
        yield Server(f"http://127.0.0.1:{port}/v1", str(model_dir))
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    last = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < last:
        if process.poll() is not None:
            break
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", KEY)


def make(server: Server, **options: Any) -> OpenAIPolicy:
    fields = {"base_url": server.url, "model": "tiny", "api_key_env": "LOOPBACK_KEY", **options}
    return OpenAIPolicy(OpenAIConfig(**fields), "remote", backoff_s=0.1)


@pytest.fixture(params=["chat", "ids"])
def policy(request: pytest.FixtureRequest, server: Server) -> Iterator[OpenAIPolicy]:
    made = make(server, tokenizer=server.model_dir if request.param == "ids" else None)
    yield made
    made.close()


def ask(observation: str, n: int = 1, seed: int = 0, history: tuple[Exchange, ...] = ()) -> Request:
    return Request("act", history, observation, n, SAMPLED, seed)


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_endpoint_keeps_the_contract_of_all_policies(policy: OpenAIPolicy, rule: Rule) -> None:
    rule(policy, [ask(f"the {'red ' * i}ball is {i} ahead", n=2, seed=100 * i) for i in range(6)])


def test_many_requests_get_the_replies_that_each_gets_alone(policy: OpenAIPolicy) -> None:
    requests = [ask(f"door {i}", n=1 + i % 4, seed=10 * i) for i in range(40)]
    together = answer_all(policy, requests)
    assert [len(replies) for replies in together] == [request.n for request in requests]
    assert len({reply.text for replies in together for reply in replies}) > 60
    alone = [answer_all(policy, [request])[0] for request in requests[:4]]
    assert [[r.text for r in replies] for replies in alone] == [[r.text for r in t] for t in together[:4]]
    assert policy.usage.requests == 44
    assert policy.usage.tokens >= sum(reply.num_tokens for replies in together for reply in replies)
    assert all(0 < reply.num_tokens <= 12 for replies in together for reply in replies if reply.text)


def test_siblings_are_single_requests_with_seeds_in_a_row(policy: OpenAIPolicy) -> None:
    (siblings,) = answer_all(policy, [ask("door", n=3, seed=7)])
    singles = answer_all(policy, [ask("door", seed=7 + i) for i in range(3)])
    assert [reply.text for reply in siblings] == [replies[0].text for replies in singles]


def test_greedy_siblings_are_equal(policy: OpenAIPolicy) -> None:
    greedy = Request("act", (), "door", 3, Sampling(temperature=0.0, max_tokens=12), 0)
    (replies,) = answer_all(policy, [greedy])
    assert len(replies) == 3 and len({reply.text for reply in replies}) == 1


def test_with_a_tokenizer_what_was_generated_is_what_goes_in_again(server: Server) -> None:
    policy, renderer = make(server, tokenizer=server.model_dir), load_renderer(server.model_dir)
    assert policy.tokenizer_fingerprint == renderer.fingerprint
    history: tuple[Exchange, ...] = ()
    for turn in range(3):
        request = ask(f"turn {turn}", seed=turn, history=history)
        ((reply,),) = answer_all(policy, [request])
        assert reply.input_tokens == len(renderer.context("act", history, f"turn {turn}"))
        assert reply == renderer.read(reply.token_ids, reply.input_tokens)
        assert 0 < len(reply.token_ids) <= 12
        history = (*history, Exchange(f"turn {turn}", reply))
    # A random model's ids are not those of its text, so that text alone would have changed them.
    assert any(renderer.reply(e.reply.text)[:-1] != e.reply.token_ids for e in history)
    policy.close()


def test_the_bill_follows_the_servers_own_counts(server: Server) -> None:
    price = PriceConfig(input=1e6, cached_input=0.25e6, output=4e6)
    policy = make(server, prices={"tiny": price})
    long = "a long way round to the red ball " * 6
    answers = [answer_all(policy, [ask(long, n=2, seed=seed)])[0] for seed in range(2)]
    usage = policy.usage
    assert usage.cached_tokens >= 64  # the second prompt's whole blocks
    fresh = usage.prompt_tokens - usage.cached_tokens
    assert usage.money == pytest.approx(fresh + 0.25 * usage.cached_tokens + 4 * usage.tokens)
    assert sum(reply.money for replies in answers for reply in replies) == pytest.approx(usage.money)
    assert usage.estimated == usage.lost == usage.retried == 0
    policy.close()


def test_a_context_that_is_too_long_gets_malformed_replies(policy: OpenAIPolicy) -> None:
    past = Exchange("far " * 600, Reply("Action: go", "", "go", False, 3))
    too_long, fits = answer_all(policy, [ask("far", n=2, history=(past,)), ask("near")])
    assert [(reply.text, reply.malformed) for reply in too_long] == [("", True)] * 2
    assert fits[0].num_tokens > 0


def test_text_of_every_kind_goes_through(policy: OpenAIPolicy) -> None:
    past = Exchange("\udcff", Reply("", "", "", True, 0))
    answers = answer_all(policy, [ask("<|end|>\x00 é 漢 🙂", history=(past,)), ask("")])
    assert all(isinstance(reply, Reply) for replies in answers for reply in replies)


def test_a_wrong_key_is_one_clear_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOPBACK_KEY", "sk-wrong")
    refused(make(server), r"HTTP 401: .*\(check the key in LOOPBACK_KEY\)$")


def test_an_unknown_model_is_one_clear_line(server: Server) -> None:
    refused(make(server, model="other"), r"\(other\): HTTP 404: The model `other` does not exist")


def refused(policy: OpenAIPolicy, message: str) -> None:
    with pytest.raises(EndpointError, match=message) as raised:
        answer_all(policy, [ask("door")])
    assert not isinstance(raised.value, RequestFailed)
    assert "\n" not in str(raised.value)
    policy.close()
