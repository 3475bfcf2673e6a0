"""Thought utility on a real model: hand-computed log-probs, independence of the batch, the stage on Ray."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from tiny_llama import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from depo.config.runtime import RuntimeConfig
from depo.config.schema import StudentConfig
from depo.data.store import write_table
from depo.policies.base import format_reply
from depo.policies.checkpoint import load_renderer
from depo.records import Step, Task, Trajectory
from depo.stages.thoughts import UTILITIES, choose, score, summary
from depo.training.reference import ReferenceScorer
from depo.training.thoughts import TurnUtility, thought_turns, utilities

pytestmark = pytest.mark.slow

THOUGHTS = (
    "",
    "Near.",
    "the red ball is ahead, so I go there.",
    "A door, and behind it another door, I think.",
)
SEEN = ("You see a red ball.", "A wall.", "A closed door 2 steps ahead.")


def episode(number: int) -> Trajectory:
    turns = []
    for turn in range(1 + number % 3):
        thought, action = THOUGHTS[(number + turn) % 4], ("go to red ball 1", "turn left")[turn % 2]
        text = format_reply(thought, action)
        turns.append(Step(SEEN[turn], text, thought, action, 0.0, turn != 1, False, 9))
    task = Task("babyai", "GoToRedBall", number, "test")
    return Trajectory(task, "bc", "", "Act.", tuple(turns), 0.9, number % 2 == 0, "terminated")


EPISODES = [episode(number) for number in range(60)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_model(tmp_path_factory.mktemp("thoughts") / "model", seed=5))


def test_a_turn_gets_the_log_probs_that_the_model_itself_gives(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    llama = AutoModelForCausalLM.from_pretrained(model).eval()

    def log_prob(read: str, scored: str) -> float:
        before = tokenizer(read, add_special_tokens=False)["input_ids"]
        after = tokenizer(scored, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = llama(torch.tensor([before + after])).logits[0]
        logps = torch.log_softmax(logits.double(), -1)
        places = range(len(before) - 1, len(before) + len(after) - 1)
        return sum(float(logps[place, token]) for place, token in zip(places, after, strict=True))

    played = EPISODES[2]  # three turns: the second is in no way special, the third has no thought
    assert [bool(step.thought) for step in played.steps] == [True, True, False]
    found = utilities(thought_turns(played, load_renderer(model)), ReferenceScorer(model))
    opening = "<|system|>Act.<|end|><|user|>You see a red ball.<|end|><|assistant|>"
    first, second = (step.text for step in played.steps[:2])
    later = f"{opening}{first}<|end|><|user|>A wall.<|end|><|assistant|>"
    expected = [
        (opening, first, " go to red ball 1<|end|>"),
        (later, second, " turn left<|end|>"),
    ]
    for turn, (context, reply, action) in zip(found, expected, strict=True):
        head = reply[: reply.index("Action:") + len("Action:")]
        assert turn.logp_with == pytest.approx(log_prob(context + head, action), abs=1e-4)
        assert turn.logp_without == pytest.approx(log_prob(context + "Thought:\nAction:", action), abs=1e-4)
        assert abs(turn.utility) > 0.1  # or the test would not tell one from the other
    assert [(turn.step, turn.valid, turn.success) for turn in found] == [(0, True, True), (1, False, True)]


def test_the_stage_scores_every_turn_as_it_is_scored_alone_whatever_the_workers(model, tmp_path):
    write_table(tmp_path / "played" / "a.parquet", EPISODES, Trajectory)
    renderer, scorer = load_renderer(model), ReferenceScorer(model)
    outcomes = {}
    try:
        for actors in (1, 2):
            runtime = RuntimeConfig.model_validate({"num_cpus": 2, "generation": {"actors": actors}})
            out = tmp_path / f"by-{actors}"
            outcomes[actors] = score(tmp_path / "played", model, StudentConfig(), runtime, 55, out)
    finally:
        ray.shutdown()
    written = (tmp_path / "by-1" / UTILITIES).read_bytes()
    assert (tmp_path / "by-2" / UTILITIES).read_bytes() == written
    assert outcomes[1].metrics == outcomes[2].metrics
    rows = [TurnUtility(**row) for row in pq.read_table(tmp_path / "by-1" / UTILITIES).to_pylist()]
    assert len(rows) > 64  # more than one block
    turns = {
        (turn.task_id, turn.step): turn for t in choose(EPISODES, 55) for turn in thought_turns(t, renderer)
    }
    assert {(row.task_id, row.step) for row in rows} == turns.keys()
    for row in rows[::5]:
        (alone,) = utilities([turns[row.task_id, row.step]], scorer)
        assert np.allclose(
            [row.logp_with, row.logp_without], [alone.logp_with, alone.logp_without], atol=1e-4
        )
    assert outcomes[1].metrics == {"episodes": 55, **summary(rows)}
