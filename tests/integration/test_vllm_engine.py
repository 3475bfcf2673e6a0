"""vLLM's own ways: adapters by name, forced replies, engines that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch
from policy_contract import drain, said
from tiny_llama import make_tokenizer, save_model
from transformers import AutoModelForCausalLM

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime, VllmConfig
from depo.policies.base import EngineDead, Request, Sampling, answer_all, parse_reply
from depo.policies.chat import ChatRenderer
from depo.policies.engine import make_engine
from depo.policies.vllm import VllmPolicy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
]

GREEDY = Sampling(temperature=0.0, max_tokens=12)
SAMPLED = Sampling(temperature=1.0, max_tokens=12)


def start(model_dir: Path, **options: object) -> VllmPolicy:
    config = VllmConfig.model_validate({"kv_cache_gib": 0.1, **options})
    made = make_engine(GenerationRuntime(engine="vllm", vllm=config), str(model_dir), "first", 256)
    assert isinstance(made, VllmPolicy)
    return made


def requests(sampling: Sampling, n: int = 1, count: int = 4) -> list[Request]:
    return [Request("act", (), f"the ball is {i} ahead", n, sampling, seed=100 * i) for i in range(count)]


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.set_num_threads
    yield
    torch.set_num_threads = before  # vLLM takes it away from the whole process


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("base"), seed=0)


def train(base: Path, folder: Path, seed: int, r: int = 8) -> Path:
    """A trained policy's folder: an adapter far from nothing, and the same merged."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=r, lora_alpha=2 * r, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [train(base, tmp_path_factory.mktemp(f"method{seed}"), seed) for seed in range(4)]


@pytest.fixture(scope="module")
def served(base: Path, trained: list[Path]) -> Iterator[VllmPolicy]:
    """Started with a trained policy: on the weights that it is an adapter of."""
    made = start(trained[0] / "model", lora="on", adapters=2, max_lora_rank=8)
    assert greedy(made) == by_hand(trained[0] / "model", made.renderer)
    made.load(str(base), "base")
    assert greedy(made) == by_hand(base, made.renderer)
    yield made
    made.close()


def by_hand(model_dir: Path, renderer: ChatRenderer) -> list[tuple[int, ...]]:
    """The most likely next token again and again, by the weights in `model_dir`."""
    model = AutoModelForCausalLM.from_pretrained(model_dir)
    replies = []
    for request in requests(GREEDY):
        context, reply = list(renderer.context(request.system, (), request.observation)), []
        while len(reply) < GREEDY.max_tokens and renderer.end_of_turn not in reply:
            with torch.inference_mode():
                logits = model(torch.tensor([context + reply])).logits[0, -1]
            best, second = logits.topk(2).values
            assert best - second > 1e-3, "a near tie, which rounding decides: take another model"
            reply.append(int(logits.argmax()))
        replies.append(tuple(reply))
    return replies


def greedy(policy: VllmPolicy) -> list[tuple[int, ...]]:
    return [replies[0].token_ids for replies in answer_all(policy, requests(GREEDY))]


def test_adapters_take_turns_and_the_base_stays_itself(
    served: VllmPolicy, base: Path, trained: list[Path]
) -> None:
    """More adapters than there is room for, one twice: no id or cached prefix serves old weights."""
    expected = {folder: by_hand(folder / "model", served.renderer) for folder in trained}
    plain = by_hand(base, served.renderer)
    assert len({*map(tuple, expected.values()), tuple(plain)}) == 1 + len(trained)
    for folder in [*trained, trained[0]]:
        served.load(str(folder / "adapter"), folder.name)
        assert (served.name, greedy(served)) == (folder.name, expected[folder])
        served.load(str(base), "base")
        assert (served.name, greedy(served)) == ("base", plain)


def test_another_adapter_under_the_same_path_is_not_taken_for_the_old_one(
    served: VllmPolicy, base: Path, tmp_path: Path
) -> None:
    for seed in (11, 12):
        folder = train(base, tmp_path, seed)
        served.load(str(folder / "adapter"), "again")
        assert greedy(served) == by_hand(folder / "model", served.renderer)


def test_base_and_adapters_share_one_batch(served: VllmPolicy, base: Path, trained: list[Path]) -> None:
    served.load(str(trained[3] / "adapter"), "fourth")
    expected = {}
    for name, folder in {"base": base, "a": trained[0] / "adapter", "b": trained[1] / "model"}.items():
        served.load(str(folder), name)  # merged weights are served by the adapter beside them
        for key, request in enumerate(requests(GREEDY)):
            served.submit((name, key), request)
        weights = base if name == "base" else folder.parent / "model"
        expected |= {(name, key): ids for key, ids in enumerate(by_hand(weights, served.renderer))}
    with pytest.raises(ConfigError, match="all 2 adapters have requests in flight"):
        served.load(str(trained[2] / "adapter"), "c")
    answers = drain(served)
    assert {key: answer.replies[0].token_ids for key, answer in answers.items()} == expected


def test_seeds_of_siblings_hold_under_an_adapter(served: VllmPolicy, trained: list[Path]) -> None:
    served.load(str(trained[0] / "adapter"), "a")
    (asked,) = requests(SAMPLED, n=4, count=1)
    alone = [Request("act", (), asked.observation, 1, SAMPLED, asked.seed + i) for i in range(4)]
    ((siblings,), singles) = said(answer_all(served, [asked])), said(answer_all(served, alone))
    assert siblings == [single for (single,) in singles]
    assert len(set(siblings)) > 1


@pytest.mark.parametrize("fault", ["missing", "empty", "too wide", "of other weights"])
def test_adapter_that_cannot_be_served_is_refused_and_the_engine_lives_on(
    served: VllmPolicy, base: Path, trained: list[Path], tmp_path: Path, fault: str
) -> None:
    served.load(str(trained[1] / "adapter"), "good")
    before = greedy(served)
    bad = tmp_path / "adapter"
    if fault == "empty":
        bad.mkdir()
        (bad / "adapter_config.json").write_text((trained[0] / "adapter/adapter_config.json").read_text())
    elif fault == "too wide":
        train(base, tmp_path, seed=9, r=16)
    elif fault == "of other weights":
        train(save_model(tmp_path / "other", seed=5), tmp_path, seed=9)
    with pytest.raises(ConfigError, match=str(bad)):
        served.load(str(bad), "bad")
    assert (served.name, greedy(served)) == ("good", before)


def test_other_weights_replace_base_and_adapters(
    served: VllmPolicy, base: Path, trained: list[Path], tmp_path: Path
) -> None:
    other = save_model(tmp_path / "other", seed=7)
    served.load(str(trained[0] / "adapter"), "a")
    served.load(str(other), "other")
    assert greedy(served) == by_hand(other, served.renderer)
    served.load(str(base), "base")
    served.load(str(trained[0] / "model"), "a")
    assert greedy(served) == by_hand(trained[0] / "model", served.renderer)


def test_forced_replies_are_well_formed_unless_cut(served: VllmPolicy, tmp_path: Path) -> None:
    served.load(str(save_model(tmp_path / "flat", seed=3, scale=0.02)), "flat")
    forced = Sampling(temperature=2.0, max_tokens=220, structured=True)
    replies = [reply for replies in answer_all(served, requests(forced, n=8, count=6)) for reply in replies]
    ended = [reply for reply in replies if reply.token_ids[-1] == served.renderer.end_of_turn]
    assert ended, "no reply reached its end: the test needs another model"
    for reply in ended:
        assert parse_reply(reply.text) == (reply.thought, reply.action, False)
        assert reply.text == served.renderer.text(reply.token_ids)
    cut = [reply for reply in replies if reply not in ended]
    assert all(reply.num_tokens == 220 for reply in cut)
    free = answer_all(served, requests(Sampling(temperature=2.0, max_tokens=40), n=8))
    assert all(reply.malformed for replies in free for reply in replies)


def test_bad_request_is_its_own_error_and_harms_no_other(served: VllmPolicy) -> None:
    good, _ = requests(GREEDY, count=2)
    expected = said(answer_all(served, [good]))
    served.submit("good", good)
    served.submit("bad", Request("act", (), "x", 1, Sampling(temperature=-1.0), 0))
    answers = drain(served)
    assert "temperature" in str(answers["bad"].error)
    assert said([answers["good"].replies]) == expected


# From here on the tests start engines of their own, and ending one ends all inside a process.


def test_engine_of_merged_weights_refuses_a_bare_adapter(base: Path, trained: list[Path]) -> None:
    policy = start(base)
    before = greedy(policy)
    with pytest.raises(ConfigError, match="takes merged weights"):
        policy.load(str(trained[0] / "adapter"), "a")
    policy.submit("open", requests(GREEDY)[0])
    with pytest.raises(RuntimeError, match="in flight"):
        policy.load(str(trained[0] / "model"), "a")
    policy.withdraw("open")
    policy.load(str(trained[0] / "model"), "a")
    assert greedy(policy) == by_hand(trained[0] / "model", policy.renderer) != before
    policy.close()


def test_engine_that_fails_inside_the_process_is_dead_and_another_can_be_made(base: Path) -> None:
    policy = start(base)
    asked = requests(SAMPLED, n=2)
    expected = said(answer_all(policy, asked))
    policy.submit("open", asked[0])
    policy._engine.engine_core.engine_core.model_executor = None  # what it runs on is gone
    for _ in range(2):
        with pytest.raises(EngineDead, match="first is gone"):
            policy.collect()
    with pytest.raises(EngineDead):
        policy.submit("next", asked[0])
    policy.withdraw("open")
    policy.close()
    policy = start(base)
    assert said(answer_all(policy, asked)) == expected
    policy.close()


def test_killed_engine_core_is_noticed_and_another_can_be_made(base: Path) -> None:
    asked = requests(SAMPLED, n=2)
    endless = [Request("act", (), f"go {i}", 4, Sampling(max_tokens=230), i) for i in range(16)]
    policy = start(base, in_process=False)
    expected = said(answer_all(policy, asked))
    children = psutil.Process().children(recursive=True)
    processes = [child for child in children if "VLLM" in " ".join(child.cmdline())]
    (core,) = (child for child in processes if "EngineCore" in " ".join(child.cmdline()))
    for key, request in enumerate(endless):
        policy.submit(key, request)
    os.kill(core.pid, signal.SIGKILL)
    with pytest.raises(EngineDead):
        while policy.collect():
            pass
    with pytest.raises(EngineDead):
        policy.submit("next", asked[0])
    policy.withdraw(0)
    policy.close()
    assert psutil.wait_procs(processes, timeout=60)[1] == [], "the engine left processes behind"
    policy = start(base)
    assert said(answer_all(policy, asked)) == expected
    policy.close()
