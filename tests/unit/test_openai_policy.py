"""The endpoint policy against a real HTTP server on this machine that misbehaves on demand."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import endpoint_server as faults
import pytest
from endpoint_server import PROMPT_TOKENS, TEXT, Endpoint, Fault, says, status

from depo.config.base import ConfigError
from depo.config.endpoint import OpenAIConfig, PriceConfig
from depo.config.runtime import GenerationRuntime
from depo.config.schema import StudentConfig
from depo.policies.base import Answer, BudgetSpent, Exchange, Reply, Request, Sampling, answer_all
from depo.policies.engine import make_policy
from depo.policies.openai import EndpointError, OpenAIPolicy, RequestFailed

KEY = "sk-secret-0123"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("TEST_KEY", KEY)
    server = Endpoint()
    server.serve()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def policy(endpoint: Endpoint) -> Iterator[OpenAIPolicy]:
    made = make(endpoint)
    yield made
    made.close()


def make(endpoint: Endpoint, share: float = 1.0, **options: Any) -> OpenAIPolicy:
    config = {"base_url": endpoint.url, "model": "m", "api_key_env": "TEST_KEY", "retries": 3, **options}
    return OpenAIPolicy(OpenAIConfig(**config), name="remote", share=share, backoff_s=0.01)


def ask(observation: str = "look", n: int = 1, seed: int = 0, max_tokens: int = 32) -> Request:
    past = Exchange("before", Reply(TEXT, "near.", "go to ball", False, 4))
    return Request("be good", (past,), observation, n, Sampling(0.5, 0.9, max_tokens), seed)


def one(policy: OpenAIPolicy, request: Request | None = None) -> Answer:
    """The answer to one request."""
    policy.submit("only", request or ask())
    (answer,) = policy.collect()
    assert answer.key == "only"
    return answer


def all_answers(policy: OpenAIPolicy) -> tuple[list[Answer], Exception | None]:
    """What comes until nothing is in flight, or until an exception."""
    answers: list[Answer] = []
    try:
        while found := policy.collect():
            answers += found
    except (BudgetSpent, EndpointError) as error:
        return answers, error
    return answers, None


def test_request_is_a_chat_completion_with_the_whole_conversation(
    endpoint: Endpoint, policy: OpenAIPolicy
) -> None:
    (reply,) = one(policy, ask(seed=3)).replies
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
    assert (reply.num_tokens, reply.input_tokens, reply.token_ids) == (6, PROMPT_TOKENS, ())


def test_options_add_to_the_body_and_take_out_of_it(endpoint: Endpoint) -> None:
    policy = make(endpoint, options={"max_completion_tokens": 9, "max_tokens": None})
    one(policy)
    assert endpoint.bodies[0]["max_completion_tokens"] == 9
    assert "max_tokens" not in endpoint.bodies[0]
    policy.close()


# What the endpoint does wrong


PASSING = {
    **{str(code): status(code) for code in (408, 409, 429, 500, 503)},
    **{f.__name__: f for f in (faults.garbage, faults.not_unicode, faults.nested, faults.empty)},
    **{f.__name__: f for f in (faults.no_message, faults.drop, faults.drop_in_body, faults.huge)},
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_passing_faults_are_tried_again(endpoint: Endpoint, policy: OpenAIPolicy, fault: Fault) -> None:
    endpoint.faults = [fault, fault]
    (reply,) = one(policy).replies
    assert reply.action == "go to ball look 0"
    assert len(endpoint.bodies) == 3
    assert (policy.usage.requests, policy.usage.retried, policy.usage.tokens) == (1, 2, 6)


def test_an_answer_that_never_ends_is_given_up(endpoint: Endpoint) -> None:
    policy = make(endpoint, timeout_s=0.3)
    endpoint.faults = [faults.hang]
    assert one(policy).replies[0].action == "go to ball look 0"
    assert policy.usage.lost == 1
    policy.close()


def test_retry_after_is_waited_for(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    endpoint.faults = [status(429, {"Retry-After": "0.4"})]
    start = time.monotonic()
    assert one(policy).error is None
    assert time.monotonic() - start >= 0.4


def test_a_request_that_fails_alone_is_its_answers_error(endpoint: Endpoint) -> None:
    policy = make(endpoint, concurrency=1)
    endpoint.faults = [status(503, message="busy")] * 4
    policy.submit("bad", ask())
    policy.submit("good", ask())
    answers, error = all_answers(policy)
    assert error is None
    found = {answer.key: answer for answer in answers}
    assert isinstance(found["bad"].error, RequestFailed)
    assert "no answer after 4 tries; the last: HTTP 503: busy" in str(found["bad"].error)
    assert found["good"].replies[0].action == "go to ball look 0"
    policy.close()


def test_failing_again_and_again_ends_the_policy(endpoint: Endpoint) -> None:
    policy = make(endpoint, concurrency=1, retries=0)
    endpoint.lasting = status(500)
    for key in range(10):
        policy.submit(key, ask())
    answers, error = all_answers(policy)
    assert [type(answer.error) for answer in answers] == [RequestFailed] * 3
    assert type(error) is EndpointError
    assert len(endpoint.bodies) == 4
    policy.close()


def test_an_endpoint_that_cannot_be_reached_is_one_clear_line() -> None:
    config = OpenAIConfig(base_url="http://127.0.0.1:9/v1", model="m", retries=1)
    policy = OpenAIPolicy(config, "remote", backoff_s=0.01)
    policy.submit(0, ask())
    with pytest.raises(EndpointError, match=r"^http://127.0.0.1:9/v1 \(m\): no answer after 2 tries; .*Conn"):
        policy.collect()
    with pytest.raises(EndpointError):
        policy.submit(1, ask())
    policy.close()


REFUSALS = {
    "key": (status(401, message="bad key"), r"HTTP 401: bad key \(check the key in TEST_KEY\)"),
    "forbidden": (status(403), r"HTTP 403: no \(check"),
    "credit": (status(402, message="Insufficient Balance"), "HTTP 402: Insufficient Balance"),
    "quota": (status(429, code="insufficient_quota"), "HTTP 429"),
    "model": (status(404, message="The model `m` does not exist."), "HTTP 404: The model `m`"),
    "model as 400": (status(400, message="Model Not Exist"), "HTTP 400: Model Not Exist"),
    "path": (lambda handler: handler.send(404, {"detail": "Not Found"}), "HTTP 404: Not Found"),
    "moved": (lambda handler: handler.send(301, b""), "HTTP 301"),
    "text": (lambda handler: handler.send(405, b"what?"), "HTTP 405"),
}


@pytest.mark.parametrize(("fault", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refusal_is_not_tried_again_and_ends_the_policy(
    endpoint: Endpoint, policy: OpenAIPolicy, fault: Fault, message: str
) -> None:
    endpoint.faults = [fault]
    policy.submit(0, ask())
    for _ in range(2):
        with pytest.raises(EndpointError, match=message) as raised:
            policy.collect()
    assert not isinstance(raised.value, RequestFailed)
    assert len(endpoint.bodies) == 1


def test_answers_in_flight_come_before_the_refusal(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    refuse, go_on = threading.Event(), threading.Event()
    endpoint.faults = [faults.after(refuse, status(401)), *[faults.after(go_on, says(TEXT))] * 4]
    for key in range(5):
        policy.submit(key, ask())
        endpoint.arrived.acquire()
    refuse.set()
    threading.Timer(0.3, go_on.set).start()
    answers, error = all_answers(policy)
    assert sorted(answer.key for answer in answers) == [1, 2, 3, 4]
    assert type(error) is EndpointError


def test_a_request_that_is_refused_alone_is_its_answers_error(
    endpoint: Endpoint, policy: OpenAIPolicy
) -> None:
    endpoint.faults = [status(400, message="temperature is out of range")]
    assert isinstance(one(policy).error, RequestFailed)
    assert len(endpoint.bodies) == 1
    assert one(policy).error is None


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded"},
        {"code": 400, "message": "This model's maximum context length is 512 tokens. However, you asked for"},
    ],
    ids=["length", "vllm"],
)
def test_context_that_cannot_be_answered_gets_malformed_replies(
    endpoint: Endpoint, policy: OpenAIPolicy, error: dict[str, Any]
) -> None:
    endpoint.faults = [status(400, **error)]
    replies = one(policy, ask(n=3)).replies
    assert [(r.text, r.malformed, r.num_tokens) for r in replies] == [("", True, 0)] * 3
    assert len(endpoint.bodies) == 1
    # Before its first turn nothing is of the policy's doing.
    endpoint.faults = [status(400, **error)]
    failed = one(policy, replace(ask(n=3), history=()))
    assert isinstance(failed.error, RequestFailed) and failed.replies == []


def cut_by_filter(handler: Any) -> None:
    message = {"role": "assistant", "content": "Thought: "}
    handler.send(200, {"choices": [{"index": 0, "message": message, "finish_reason": "content_filter"}]})


@pytest.mark.parametrize("where", ["request", "reply"])
def test_what_the_endpoint_filters_is_no_reply_of_the_policy(
    endpoint: Endpoint, policy: OpenAIPolicy, where: str
) -> None:
    for _ in range(6):  # however often in a row, the endpoint is of use
        endpoint.faults = [status(400, code="content_filter")] if where == "request" else [cut_by_filter]
        failed = one(policy)
        assert type(failed.error) is RequestFailed and "filter" in str(failed.error)
    assert one(policy).error is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        (17, ""),
        ("\ud800Action: go", "?Action: go"),
        ([{"type": "text", "text": "Thought: a."}, {"type": "text", "text": "\nAction: go"}], None),
    ],
    ids=["null", "number", "surrogate", "parts"],
)
def test_whatever_a_choice_says_becomes_text_that_can_be_kept(
    endpoint: Endpoint, policy: OpenAIPolicy, content: Any, text: str | None
) -> None:
    endpoint.faults = [says(content)]
    (reply,) = one(policy).replies
    assert reply.text == ("Thought: a.\nAction: go" if text is None else text)
    reply.text.encode()


def _reasons(message: dict[str, Any], **usage: Any) -> Fault:
    """An answer of one choice with `message`, and a usage of 11 and 20 tokens but for `usage`."""
    counts = {"prompt_tokens": 11, "completion_tokens": 20, **usage}
    return lambda handler: handler.send(200, {"choices": [{"message": message}], "usage": counts})


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_beside_the_answer_is_its_thought_and_is_not_sent_back(
    endpoint: Endpoint, policy: OpenAIPolicy, key: str
) -> None:
    endpoint.faults = [_reasons({"content": "Action: go", key: "It is near.\nAction: no"})]
    (reply,) = one(policy).replies
    assert (reply.thought, reply.action, reply.num_tokens) == ("It is near.\nAction: no", "go", 20)
    assert reply.text == "<think>\nIt is near.\nAction: no\n</think>\n\nAction: go"
    one(policy, replace(ask(), history=(Exchange("before", reply),)))
    assert endpoint.bodies[-1]["messages"][2] == {"role": "assistant", "content": "Action: go"}


@pytest.mark.parametrize("content", [None, "", " "])
def test_a_reply_cut_in_its_reasoning_is_malformed_and_keeps_it(
    endpoint: Endpoint, policy: OpenAIPolicy, content: Any
) -> None:
    endpoint.faults = [_reasons({"content": content, "reasoning_content": "Let me see.\nAction: go"})]
    (reply,) = one(policy).replies
    assert (reply.thought, reply.action, reply.malformed) == ("Let me see.\nAction: go", "", True)


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (
            {"completion_tokens_details": {"reasoning_tokens": 15}},
            20,
        ),  # among the completion's, as OpenAI counts
        ({"completion_tokens_details": {"reasoning_tokens": 15}, "total_tokens": 31}, 20),
        ({"completion_tokens_details": {"reasoning_tokens": 15}, "total_tokens": 46}, 35),
        ({"completion_tokens_details": {"reasoning_tokens": 25}}, 45),
        ({"completion_tokens_details": {"reasoning_tokens": -1}, "total_tokens": 99}, 20),
    ],
)
def test_reasoning_tokens_are_counted_once(
    endpoint: Endpoint, policy: OpenAIPolicy, usage: dict[str, Any], tokens: int
) -> None:
    endpoint.faults = [_reasons({"content": TEXT, "reasoning_content": "hm"}, **usage)]
    assert [reply.num_tokens for reply in one(policy).replies] == [tokens]


def test_an_observation_that_is_not_valid_unicode_is_sent(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    assert one(policy, ask("\udcff!")).error is None
    assert endpoint.bodies[0]["messages"][-1]["content"] == "?!"


# How many, in which order


@pytest.mark.parametrize("most", [1, 2, 4])
def test_fewer_choices_than_asked_are_made_up_by_further_requests(
    endpoint: Endpoint, policy: OpenAIPolicy, most: int
) -> None:
    endpoint.most_choices = most
    replies = one(policy, ask(n=4, seed=10)).replies
    assert [r.action for r in replies] == [f"go to ball look {seed}" for seed in (10, 11, 12, 13)]
    tries = len(endpoint.bodies)
    assert sum(r.num_tokens for r in replies) == 4 * 5 + tries
    usage = policy.usage
    assert (usage.requests, usage.prompt_tokens, usage.tokens) == (1, PROMPT_TOKENS * tries, 20 + tries)


def test_greedy_siblings_are_asked_for_and_paid_for_once(endpoint: Endpoint) -> None:
    policy = make(endpoint, prices={"m": PRICE})
    greedy = Request("", (), "look", 3, Sampling(temperature=0.0), 5)
    replies = one(policy, greedy).replies
    assert [body["n"] for body in endpoint.bodies] == [1]
    assert [reply.action for reply in replies] == ["go to ball look 5"] * 3
    assert sum(reply.money for reply in replies) == policy.usage.money > 0
    policy.close()


def test_more_choices_than_asked_are_paid_for_and_left(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    endpoint.faults = [says(TEXT, TEXT, TEXT)]
    (reply,) = one(policy).replies
    assert reply.num_tokens == policy.usage.tokens == 16


def test_two_hundred_requests_are_answered_in_any_order_with_bounded_concurrency(endpoint: Endpoint) -> None:
    policy = make(endpoint, concurrency=32, retries=25)
    endpoint.faults = [status(500), faults.drop, status(429), faults.garbage] * 5
    for key in range(200):
        policy.submit(key, ask(f"o{key}"))
    answers, error = all_answers(policy)
    assert error is None
    assert sorted(answer.key for answer in answers) == list(range(200))
    assert all(a.replies[0].action == f"go to ball o{a.key} 0" for a in answers)
    assert endpoint.most_active <= 32
    assert policy.usage.requests == 200
    assert policy.usage.tokens == sum(a.replies[0].num_tokens for a in answers)
    assert policy.usage.seconds > 0
    policy.close()


def test_an_answer_does_not_wait_for_a_slower_one(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    slow = threading.Event()
    endpoint.faults = [faults.after(slow, says(TEXT))]
    policy.submit("slow", ask())
    endpoint.arrived.acquire()
    policy.submit("fast", ask())
    assert [answer.key for answer in policy.collect()] == ["fast"]
    slow.set()
    assert [answer.key for answer in policy.collect()] == ["slow"]
    assert policy.collect() == []


def test_a_withdrawn_request_is_not_sent_or_else_counted(endpoint: Endpoint) -> None:
    policy = make(endpoint, concurrency=1)
    endpoint.gate.clear()
    policy.submit("sent", ask("a"))
    endpoint.arrived.acquire()
    policy.submit("waiting", ask("b"))
    policy.withdraw("sent")
    policy.withdraw("waiting")
    policy.withdraw("unknown")
    assert policy.collect() == []
    policy.submit("sent", ask("c"))  # the key is free again, and gets its own answer
    endpoint.gate.set()
    (answer,) = policy.collect()
    assert answer.replies[0].action == "go to ball c 0"
    assert [body["messages"][-1]["content"] for body in endpoint.bodies] == ["a", "c"]
    assert (policy.usage.requests, policy.usage.tokens) == (1, 12)
    policy.close()


def test_close_leaves_no_threads_and_no_connections(endpoint: Endpoint) -> None:
    before = set(threading.enumerate())
    policy = make(endpoint, concurrency=2)
    assert set(threading.enumerate()) == before  # a policy that is only made costs nothing
    one(policy)
    endpoint.gate.clear()
    for key in range(5):
        policy.submit(key, ask())
    endpoint.arrived.acquire()
    policy.close()
    policy.close()
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert not any(name.startswith(("openai", "asyncio")) for name in names)
    assert policy.collect() == []
    endpoint.gate.set()
    assert one(policy).error is None  # it can be taken up again
    policy.close()


# Money


PRICE = PriceConfig(input=2e6, cached_input=0.5e6, output=3e6)  # of one token: 2, a half, 3


@pytest.mark.parametrize(
    ("details", "money"),
    [
        ({}, 11 * 2 + 11 * 3),
        ({"prompt_tokens_details": {"cached_tokens": 6}}, 5 * 2 + 6 * 0.5 + 11 * 3),
        ({"prompt_cache_hit_tokens": 6}, 5 * 2 + 6 * 0.5 + 11 * 3),
    ],
    ids=["plain", "openai", "deepseek"],
)
def test_money_is_the_price_of_the_tokens_reported(
    endpoint: Endpoint, details: dict[str, Any], money: float
) -> None:
    policy = make(endpoint, prices={"m": PRICE})
    endpoint.usage = lambda n: {"prompt_tokens": 11, "completion_tokens": 5 * n + 1, **details}
    replies = one(policy, ask(n=2)).replies
    assert sum(reply.money for reply in replies) == policy.usage.money == money
    assert policy.usage.cached_tokens == (6 if details else 0)
    policy.close()


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None, "completion_tokens": "many"}, {"completion_tokens": -1}, [1]]
)
def test_counts_that_are_not_reported_are_estimated_and_warned_of(
    endpoint: Endpoint, usage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy = make(endpoint, prices={"m": PRICE})
    endpoint.usage = lambda n: usage
    endpoint.faults = [says("x" * 10), says("")]
    reply, nothing = (one(policy).replies[0] for _ in range(2))
    assert (reply.num_tokens, nothing.num_tokens) == (3, 1)
    assert reply.input_tokens > 0
    assert reply.money == 2 * reply.input_tokens + 3 * 3
    assert policy.usage.estimated == 2
    assert [r.message for r in caplog.records if "reports no token counts" in r.message] != []
    policy.close()


def test_a_model_without_a_price_costs_nothing_and_is_warned_of(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    policy = make(endpoint, prices={"other": PRICE})
    assert one(policy).replies[0].money == 0
    assert "prices: none for m" in caplog.text
    policy.close()


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("limit", ["max_money", "max_tokens_total"])
def test_a_budget_is_used_and_never_exceeded(endpoint: Endpoint, limit: str, concurrency: int) -> None:
    # An answer comes to 138 tokens at a price of 1 each, and to 140 at the most: 64 for each of two
    # turns, 4 of text, 8 generated. So ten fit into 1400, and not an eleventh.
    one_each = PriceConfig(input=1e6, output=1e6)
    policy = make(endpoint, share=0.5, concurrency=concurrency, prices={"m": one_each}, **{limit: 2800})
    endpoint.usage = lambda n: {"prompt_tokens": 130, "completion_tokens": 8}
    for key in range(30):
        policy.submit(key, Request("", (), "look", 1, Sampling(max_tokens=8), 0))
    answers, error = all_answers(policy)
    assert isinstance(error, BudgetSpent)
    assert limit in str(error) and "raise it to go on" in str(error)
    assert len(answers) == len(endpoint.bodies) == policy.usage.requests == 10
    assert policy.usage.money == 1380
    with pytest.raises(BudgetSpent):
        policy.submit("more", ask())
    with pytest.raises(BudgetSpent):
        policy.collect()
    policy.close()


def test_a_budget_counts_tries_that_may_have_been_billed(endpoint: Endpoint) -> None:
    policy = make(endpoint, max_tokens_total=1000, retries=9)
    endpoint.lasting = faults.drop_in_body
    policy.submit(0, ask(max_tokens=100))
    with pytest.raises(BudgetSpent):
        policy.collect()
    # Each try may have come to some 400 tokens, so a third one might exceed the budget.
    assert len(endpoint.bodies) == policy.usage.lost == 2
    assert policy.usage.tokens == 0
    policy.close()


def test_requests_dropped_by_the_budget_do_not_hold_back_answers(endpoint: Endpoint) -> None:
    policy = make(endpoint, max_tokens_total=700, concurrency=4)
    endpoint.gate.clear()
    policy.submit("first", ask(max_tokens=64))
    endpoint.arrived.acquire()
    policy.submit("too much", ask(max_tokens=2000))
    endpoint.gate.set()
    answers, error = all_answers(policy)
    assert [answer.key for answer in answers] == ["first"]
    assert isinstance(error, BudgetSpent)
    policy.close()


# The key


def everything_in(error: BaseException) -> str:
    """All text that an exception carries, and those behind it."""
    seen: list[str] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None:
            seen += [str(link), repr(link), repr(link.args), repr(vars(link))]
            seen += traceback.format_exception(link)
            waiting += [link.__cause__, link.__context__]
    return "\n".join(seen)


LEAKS = {
    "echoed": lambda handler: handler.send(401, {"error": {"message": f"{'x' * 290} {KEY} is wrong"}}),
    "as text": lambda handler: handler.send(403, {"error": f"no such key: {KEY}"}),
    "as detail": lambda handler: handler.send(422, {"detail": [{"input": f"Bearer {KEY}"}]}),
    "busy": status(503, message=f"{KEY} is over its limit"),
    "dropped": faults.drop_in_body,
    "garbage": faults.garbage,
}


@pytest.mark.parametrize("fault", LEAKS.values(), ids=LEAKS.keys())
def test_the_key_is_in_no_error_log_repr_or_pickle(
    endpoint: Endpoint, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    policy = make(endpoint, retries=1)
    endpoint.lasting = fault
    policy.submit(0, ask())
    try:
        (answer,) = policy.collect()
        error = answer.error
    except EndpointError as raised:
        error = raised
    assert isinstance(error, EndpointError)
    assert endpoint.keys[0] == f"Bearer {KEY}"
    assert KEY not in everything_in(error)
    assert "sk-sec" not in everything_in(error)
    assert KEY not in everything_in(pickle.loads(pickle.dumps(error)))
    assert KEY.encode() not in pickle.dumps(error)
    assert KEY.encode() not in pickle.dumps(policy)
    assert KEY not in f"{policy!r} {vars(policy)} {policy.config!r} {policy.config.model_dump_json()}"
    assert len(caplog.records) > 3  # httpx has logged
    assert not any(KEY in f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    policy.close()


def test_key_that_cannot_be_a_header_is_refused_unseen(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", "sk-secret\nsecond-line")
    with pytest.raises(ConfigError, match="TEST_KEY holds a line break") as raised:
        make(endpoint)
    assert "secret" not in everything_in(raised.value)


def test_unset_key_is_an_error_naming_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    config = OpenAIConfig(base_url="https://example.org/v1", model="m", api_key_env="TEST_KEY")
    with pytest.raises(ConfigError, match="TEST_KEY is not set"):
        OpenAIPolicy(config, name="remote")


def test_endpoint_of_this_machine_needs_no_key(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)
    policy = make(endpoint)
    one(policy)
    assert endpoint.keys == [None]
    policy.close()


# Configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"base_url": "api.example.org/v1"}, "base_url: not a URL"),
        ({"base_url": "http://a.example:port/v1"}, "base_url: not a URL"),
        ({"base_url": "https://user:sk-1@a.example/v1"}, "a key belongs in the environment"),
        ({"base_url": "https://a.example/v1?key=sk-1"}, "a key belongs in the environment"),
        ({"max_money": 5}, "max_money: the price of m is unknown; add it to prices"),
    ],
)
def test_what_cannot_be_asked_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenAIConfig(**{"base_url": "http://127.0.0.1/v1", "model": "m", **fields})


def test_fields_outside_the_identity_exist() -> None:
    assert OpenAIConfig.RUNNING - OpenAIConfig.model_fields.keys() == set()


def test_factory_makes_the_endpoint_policy_by_its_kind(endpoint: Endpoint) -> None:
    config = OpenAIConfig(base_url=endpoint.url, model="m", api_key_env="TEST_KEY")
    made = make_policy(
        config, name="round", model_dir="", student=StudentConfig(), runtime=GenerationRuntime()
    )
    assert made.name == "round"
    ((reply,),) = answer_all(made, [ask()])
    assert reply.action == "go to ball look 0"
    made.close()


def test_a_policy_that_has_worked_pickles_and_works_again(endpoint: Endpoint, policy: OpenAIPolicy) -> None:
    one(policy)
    copy = pickle.loads(pickle.dumps(policy))
    assert copy.usage.requests == 0
    assert one(copy).replies[0].action == "go to ball look 0"
    copy.close()


@pytest.mark.parametrize("count", [float("nan"), float("inf"), 10**400, -1, True, "7", None])
def test_a_count_that_is_none_is_estimated_and_money_stays_a_number(endpoint: Endpoint, count: Any) -> None:
    policy = make(endpoint, prices={"m": PRICE})
    endpoint.usage = lambda n: {"prompt_tokens": count, "completion_tokens": count}
    (reply,) = one(policy, ask(n=1)).replies
    assert (policy.usage.estimated, reply.num_tokens) == (1, policy.usage.tokens)
    assert 0 < reply.num_tokens < 100 and 0 < reply.money == policy.usage.money < 10_000
    policy.close()
