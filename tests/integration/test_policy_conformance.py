"""All policies keep one contract; what only engines promise is in test_engines.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch
from policy_contract import CONTRACT, Rule
from tiny_llama import save_model

from depo.config.runtime import GenerationRuntime, VllmConfig
from depo.config.schema import TeacherConfig
from depo.envs.babyai.env import BabyAIEnv
from depo.policies.base import Exchange, Policy, Reply, Request, Sampling, answer_all, format_reply
from depo.policies.engine import make_engine
from depo.policies.teacher import TeacherPolicy
from depo.records import Task

Tried = tuple[Policy, Sequence[Request]]


def teacher() -> Tried:
    """Asked about six states of one live environment, which is itself in a seventh."""
    env = BabyAIEnv(("GoToLocalS8N7",))
    seen, past, asked = env.reset(Task("babyai", "GoToLocalS8N7", 3, "train")), [], []
    for seed in range(6):
        asked.append(Request(env.system, tuple(past), seen, 2, Sampling(), seed, env, env.snapshot()))
        action = ("turn left", "move forward")[seed % 2]
        past.append(Exchange(seen, Reply(format_reply("On.", action), "On.", action, False, 7)))
        seen = env.step(action).observation
    return TeacherPolicy(TeacherConfig()), asked


def engine(kind: str, folder: str) -> Tried:
    sampling = Sampling(temperature=1.0, top_p=0.95, max_tokens=12)
    runtime = GenerationRuntime.model_validate(
        {"engine": kind} | ({"vllm": VllmConfig(kv_cache_gib=0.1)} if kind == "vllm" else {})
    )
    asked = [Request("act", (), f"the {'red ' * i}ball is {i} ahead", 2, sampling, 100 * i) for i in range(6)]
    return make_engine(runtime, folder, "tried", 256), asked


@pytest.fixture(
    scope="module",
    params=[
        "teacher",
        pytest.param("vllm", marks=pytest.mark.slow),
        pytest.param("transformers", marks=pytest.mark.slow),
    ],
)
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    if request.param == "vllm" and find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    threads = torch.set_num_threads
    if request.param == "teacher":
        made = teacher()
    else:
        made = engine(request.param, str(save_model(tmp_path_factory.mktemp("model"), seed=0)))
    yield made
    made[0].close()
    torch.set_num_threads = threads  # vLLM takes it away from the whole process


@pytest.mark.parametrize("rule", CONTRACT, ids=lambda rule: rule.__name__)
def test_policy(tried: Tried, rule: Rule) -> None:
    rule(*tried)


def test_teacher_answers_from_the_state_asked_about_and_leaves_the_environment_where_it_was() -> None:
    policy, asked = teacher()
    env = asked[0].env
    now = env.snapshot()
    answers = answer_all(policy, asked)
    assert env.snapshot() == now
    for request, replies in zip(asked, answers, strict=True):
        env.restore(request.state)
        there = replace(request, state=None)
        assert answer_all(TeacherPolicy(TeacherConfig()), [there]) == [replies]
    assert len({replies[0].action for replies in answers}) > 1
