"""Engines that serve a saved model: vLLM on the CPU and transformers keep one contract."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_llama import TEMPLATE, save_model
from transformers import AutoModelForCausalLM

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime, VllmConfig
from depo.config.schema import EngineConfig, StudentConfig
from depo.policies.base import Exchange, Reply, Request, Sampling, answer_all
from depo.policies.chat import ChatRenderer
from depo.policies.checkpoint import context_limit
from depo.policies.engine import Engine, make_engine, make_policy
from depo.policies.transformers import TransformersPolicy

pytestmark = pytest.mark.slow

LONGEST = 256
GREEDY = Sampling(temperature=0.0, max_tokens=12)
SAMPLED = Sampling(temperature=1.0, top_p=0.95, max_tokens=12)
FORGETFUL = TEMPLATE.replace("{{ m['content'] }}", "{{ m['content'] if loop.last else m['content'][:5] }}")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(save_model(folder / "a", seed=0)), str(save_model(folder / "b", seed=1))


def start(kind: str, model_dir: str) -> Engine:
    if kind == "vllm" and find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    runtime = GenerationRuntime.model_validate(
        {"engine": kind} | ({"vllm": VllmConfig(kv_cache_gib=0.1)} if kind == "vllm" else {})
    )
    return make_engine(runtime, model_dir, "first", LONGEST)


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def engine(request: pytest.FixtureRequest, models: tuple[str, str]) -> Iterator[Engine]:
    affinity, threads = os.sched_getaffinity(0), torch.set_num_threads
    made = start(request.param, models[0])
    yield made
    made.close()
    torch.set_num_threads = threads  # vLLM takes it away from the whole process
    assert os.sched_getaffinity(0) == affinity


@pytest.fixture(autouse=True)
def serves_first(request: pytest.FixtureRequest, models: tuple[str, str]) -> None:
    if "engine" in request.fixturenames:
        served = request.getfixturevalue("engine")
        if served.name != "first":
            served.load(models[0], "first")


def renderer_of(engine: Engine) -> ChatRenderer:
    return engine.renderer  # type: ignore[attr-defined]


def requests(sampling: Sampling, count: int = 6, n: int = 1, turns: int = 0) -> list[Request]:
    past = tuple(
        Exchange(f"you see door {turn}", Reply("Thought: t\nAction: open door", "t", "open door", False, 5))
        for turn in range(turns)
    )
    return [
        Request("act", past, f"the {'red ' * i}ball is {i} ahead", n, sampling, seed=100 * i)
        for i in range(count)
    ]


def ids(answers: list[list[Reply]]) -> list[list[tuple[int, ...]]]:
    return [[reply.token_ids for reply in replies] for replies in answers]


def greedy_by_hand(model_dir: str, renderer: ChatRenderer, request: Request) -> tuple[int, ...]:
    """The most likely next token again and again, the whole context read anew each time."""
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    context = list(renderer.context(request.system, request.history, request.observation))
    reply: list[int] = []
    while len(reply) < request.sampling.max_tokens and renderer.end_of_turn not in reply:
        with torch.inference_mode():
            logits = model(torch.tensor([context + reply])).logits[0, -1]
        best, second = logits.topk(2).values
        assert best - second > 1e-3, "a near tie, which rounding decides: take another model"
        reply.append(int(logits.argmax()))
    return tuple(reply)


def test_greedy_replies_are_the_models_most_likely_tokens(engine: Engine, models: tuple[str, str]) -> None:
    renderer = renderer_of(engine)
    asked = requests(GREEDY, turns=2)
    expected = [greedy_by_hand(models[0], renderer, request) for request in asked]
    assert len(set(expected)) > 1
    assert ids(answer_all(engine, asked)) == [[reply] for reply in expected]


def test_other_weights_in_place_answer_like_a_fresh_engine(engine: Engine, models: tuple[str, str]) -> None:
    renderer = renderer_of(engine)
    asked = requests(GREEDY)
    before = ids(answer_all(engine, asked))
    engine.load(models[1], "second")
    after = ids(answer_all(engine, asked))
    assert engine.name == "second"
    assert after == [[greedy_by_hand(models[1], renderer, request)] for request in asked]
    assert after != before
    engine.load(models[0], "first")
    assert ids(answer_all(engine, asked)) == before


def test_equal_seeds_give_equal_replies_alone_and_batched(engine: Engine) -> None:
    asked = requests(SAMPLED, n=3)
    together = ids(answer_all(engine, asked))
    assert [ids(answer_all(engine, [request]))[0] for request in asked] == together
    assert ids(answer_all(engine, asked[::-1]))[::-1] == together
    assert len({reply for replies in together for reply in replies}) > len(asked)


def test_sibling_i_is_drawn_with_the_requests_seed_plus_i(engine: Engine) -> None:
    (request,) = requests(SAMPLED, count=1, n=4)
    (siblings,) = ids(answer_all(engine, [request]))
    for i, sibling in enumerate(siblings):
        alone = Request(request.system, (), request.observation, 1, SAMPLED, request.seed + i)
        assert ids(answer_all(engine, [alone])) == [[sibling]]


def test_replies_hold_what_was_generated(engine: Engine) -> None:
    renderer = renderer_of(engine)
    asked = requests(Sampling(temperature=2.0, max_tokens=40), count=16, n=4)
    replies = [reply for answers in answer_all(engine, asked) for reply in answers]
    ended = [reply for reply in replies if reply.token_ids[-1] == renderer.end_of_turn]
    assert ended, "no reply reached its end: the test needs another model"
    assert all(reply.num_tokens == len(reply.token_ids) - 1 for reply in ended)
    cut = [reply for reply in replies if reply.token_ids[-1] != renderer.end_of_turn]
    assert all(reply.num_tokens == len(reply.token_ids) == 40 for reply in cut)
    assert all(reply.text == renderer.text(reply.token_ids) for reply in replies)
    sizes = [len(renderer.context(r.system, r.history, r.observation)) for r in asked]
    assert [answers[0].input_tokens for answers in answer_all(engine, asked)] == sizes


def test_context_without_room_gets_empty_malformed_replies_and_harms_no_other(engine: Engine) -> None:
    short, _ = requests(GREEDY, count=2)
    renderer = renderer_of(engine)
    turn = Exchange("a ball", Reply("Thought: a.\nAction: b", "a.", "b", False, 0))
    long = Request("act", (turn,), "ball " * LONGEST, 2, GREEDY, 0)
    answers = answer_all(engine, [long, short])
    assert [(r.text, r.malformed, r.num_tokens) for r in answers[0]] == [("", True, 0)] * 2
    assert answers[0][0].input_tokens == len(renderer.context("act", (turn,), long.observation))
    assert ids(answers[1:]) == ids(answer_all(engine, [short]))
    assert ids(answer_all(engine, [long])) == [[(), ()]]


def test_a_task_that_begins_without_room_is_no_failure_of_the_policy(engine: Engine) -> None:
    short, _ = requests(GREEDY, count=2)
    with pytest.raises(ValueError, match="the task begins with"):
        answer_all(engine, [Request("act", (), "ball " * LONGEST, 2, GREEDY, 0)])
    assert len(ids(answer_all(engine, [short]))) == 1


def test_greedy_siblings_are_equal(engine: Engine) -> None:
    (replies,) = ids(answer_all(engine, requests(GREEDY, count=1, n=3)))
    assert len(replies) == 3
    assert len(set(replies)) == 1


def test_weights_of_another_shape_are_refused_and_the_old_stay(
    engine: Engine, models: tuple[str, str], tmp_path: Path
) -> None:
    asked = requests(GREEDY)
    before = ids(answer_all(engine, asked))
    other = save_model(tmp_path / "wide", seed=0, hidden=96)
    with pytest.raises(ConfigError, match="another architecture"):
        engine.load(str(other), "wide")
    assert (engine.name, ids(answer_all(engine, asked))) == ("first", before)


def test_weights_with_another_template_are_refused(
    engine: Engine, models: tuple[str, str], tmp_path: Path
) -> None:
    other = save_model(tmp_path / "other", seed=0)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|end|>", "<|end|>\n"))
    with pytest.raises(ConfigError, match="another tokenizer or template"):
        engine.load(str(other), "other")


def test_policy_factory_keeps_the_engine_it_has(engine: Engine, models: tuple[str, str]) -> None:
    kept = make_policy(
        EngineConfig(model="bc"),
        name="second",
        model_dir=models[1],
        student=StudentConfig(max_length=LONGEST),
        runtime=GenerationRuntime(),
        previous=engine,
    )
    assert kept is engine
    assert kept.name == "second"


def test_short_reply_does_not_wait_for_a_long_one(engine: Engine) -> None:
    asked = requests(Sampling(max_tokens=60), count=2)
    engine.submit("long", asked[0])
    engine.submit("short", replace(asked[1], sampling=Sampling(max_tokens=2)))
    assert [answer.key for answer in engine.collect()] == ["short"]
    assert [answer.key for answer in engine.collect()] == ["long"]


@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_template_that_rewrites_the_past_is_refused_at_the_start(kind: str, tmp_path: Path) -> None:
    model = save_model(tmp_path / "forgetful", seed=0)
    (model / "chat_template.jinja").write_text(FORGETFUL)
    with pytest.raises(ConfigError, match="renders a past turn differently"):
        start(kind, str(model))


def test_transformers_rows_join_as_others_end(models: tuple[str, str]) -> None:
    """A batch with fewer places than there are rows, whose contexts and replies differ in length."""
    lengths = [3, 25, 8, 1, 14, 19, 2]
    asked = [
        replace(request, sampling=Sampling(max_tokens=length), n=1 + length % 3)
        for request, length in zip(requests(SAMPLED, count=7, turns=1), lengths, strict=True)
    ]
    narrow, wide = (TransformersPolicy(models[0], "first", LONGEST, batch_size=size) for size in (3, 64))
    for key, request in enumerate(asked):
        narrow.submit(key, request)
    narrow.withdraw(4)
    first = narrow.collect()
    narrow.withdraw(1)
    answers = {answer.key: answer.replies for answer in first}
    while batch := narrow.collect():
        answers |= {answer.key: answer.replies for answer in batch}
    assert answers.keys() == {0, 2, 3, 5, 6}
    expected = ids(answer_all(wide, asked))
    assert {key: [r.token_ids for r in replies] for key, replies in answers.items()} == {
        key: expected[key] for key in answers
    }


def test_transformers_cannot_force_the_form_of_a_reply(models: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="structured: transformers cannot"):
        start("transformers", models[0]).submit(0, requests(Sampling(structured=True))[0])


def test_longest_context_is_no_longer_than_the_model_has_positions(models: tuple[str, str]) -> None:
    assert context_limit(models[0], wanted=2048) == 512
    assert context_limit(models[0], wanted=LONGEST) == LONGEST


def test_transformers_log_probs_are_those_of_one_forward(models: tuple[str, str]) -> None:
    engine = start("transformers", models[0])
    renderer = renderer_of(engine)
    asked = requests(SAMPLED, count=4, n=2, turns=1)
    model = AutoModelForCausalLM.from_pretrained(models[0])
    for request, replies in zip(asked, answer_all(engine, asked), strict=True):
        context = renderer.context(request.system, request.history, request.observation)
        for reply in replies:
            whole = torch.tensor([[*context, *reply.token_ids]])
            with torch.inference_mode():
                logprobs = model(whole).logits.log_softmax(-1)[0, len(context) - 1 : -1]
            expected = logprobs.gather(1, whole[0, len(context) :, None]).sum()
            assert reply.logprob == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_heads_that_vllm_cannot_serve_on_the_cpu_are_refused_at_the_start(tmp_path: Path) -> None:
    odd = save_model(tmp_path / "odd", seed=0, hidden=48)
    with pytest.raises(ConfigError, match="attention heads of size 48"):
        start("vllm", str(odd))


def test_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match=str(tmp_path)):
        start("transformers", str(tmp_path))
