"""Which tokens thought utility scores, behind what, and how scored turns become a table's numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import renderer, said, step, trajectory

from depo.policies.base import Exchange, Reply
from depo.records import ContextTurn
from depo.stages.thoughts import choose, summary
from depo.training.thoughts import ThoughtTurn, TurnUtility, thought_turns

END = "<|end|>"


def read_and_scored(turn: ThoughtTurn, which: str) -> tuple[str, str]:
    """The text that is read and the text that is scored, of one of a turn's two sequences."""
    ids, scored = getattr(turn, which)
    decode = renderer().tokenizer.decode
    assert scored.tolist() == sorted(scored.tolist())
    return decode(ids[scored == 0]), decode(ids[scored == 1])


def test_both_sequences_score_the_action_behind_the_same_context_and_differ_in_the_thought():
    first, second = said("It is near."), said("Now left.", "turn left", observation="A wall.")
    one, two = thought_turns(trajectory((first, second)), renderer())
    context = "<|system|>Act.<|end|><|user|>You see: red ball 1.<|end|><|assistant|>"
    assert read_and_scored(one, "with_thought") == (
        context + "Thought: It is near.\nAction: ",
        "go to red ball 1" + END,
    )
    assert read_and_scored(one, "without") == (context + "Thought:\nAction: ", "go to red ball 1" + END)
    # Later turns read the whole past, thoughts included: only the turn's own thought is taken away.
    past = f"{context}{first.text}{END}<|user|>A wall.{END}<|assistant|>"
    assert read_and_scored(two, "with_thought")[0] == past + second.text.removesuffix("turn left")
    assert read_and_scored(two, "without") == (past + "Thought:\nAction: ", "turn left" + END)
    assert (one.step, two.step, two.action_tokens) == (0, 1, len("turn left") + 1)


def test_turns_that_are_context_stand_before_the_thought_and_are_not_scored():
    second = said("Left.", "turn left", context=(ContextTurn("Rules.", "OK."),))
    one, two = thought_turns(trajectory((said("Near."), second)), renderer())
    past = read_and_scored(one, "with_thought")[0] + f"go to red ball 1{END}"
    past += f"<|user|>Rules.{END}<|assistant|>OK.{END}<|user|>{second.observation}{END}<|assistant|>"
    assert read_and_scored(two, "with_thought")[0] == past + "Thought: Left.\nAction: "


def test_ids_of_this_tokenizer_are_used_as_they_were_generated():
    r = renderer()
    # Cut by the token limit: no end-of-turn was generated, so none is scored.
    ids = r.reply("Thought: Near.\nAction: go")[:-1]
    generated = said("Near.", "go", token_ids=ids)
    (turn,) = thought_turns(trajectory((generated,), tokenizer=r.fingerprint), r)
    history = r.context("Act.", (), generated.observation)
    assert turn.with_thought[0].tolist() == [*history, *ids]
    assert turn.action_tokens == len("go")
    foreign = thought_turns(trajectory((generated,), tokenizer="another"), r)
    assert foreign[0].action_tokens == len("go") + 1


def test_a_token_that_holds_header_and_action_is_scored_both_times():
    r = renderer((("Ġ", "g"), ("Ġg", "o")))
    (turn,) = thought_turns(trajectory((said("Near.", "go"),)), r)
    decode = r.tokenizer.decode
    for which, read in (("with_thought", "Thought: Near.\nAction:"), ("without", "Thought:\nAction:")):
        ids, scored = getattr(turn, which)
        assert decode(ids[scored == 0]).endswith(f"<|assistant|>{read}")
        assert decode(ids[scored == 1]) == " go" + END


@pytest.mark.parametrize(
    ("text", "empty", "scored"),
    [
        ("Near, so go.\nAction: go", "Action: ", "go"),  # no label to leave standing
        ("THOUGHT:  near \n\n action:  go", "THOUGHT: \n\n action:  ", "go"),
        ("Thought: near\nAction:\ngo", "Thought:\nAction:\n", "go"),  # as AgentGym's replies are
        ("Thought: Thought\nAction: Action", "Thought:\nAction: ", "Action"),
        ("Thought: a: b\nAction: say: b", "Thought:\nAction: ", "say: b"),
    ],
)
def test_only_the_thought_is_taken_out_of_the_reply(text, empty, scored):
    (turn,) = thought_turns(trajectory((step(text=text, token_ids=()),)), renderer())
    read, kept = read_and_scored(turn, "without")
    assert read.split("<|assistant|>")[-1] == empty
    assert kept == scored + END
    assert read_and_scored(turn, "with_thought")[0].endswith(text.removesuffix(scored))


def test_turns_without_a_thought_or_a_readable_action_are_left_out_but_read_by_later_ones():
    malformed = replace(said("x"), text="Thought: no action here", action="", malformed=True)
    turns = thought_turns(trajectory((malformed, said(""), said("Near."))), renderer())
    assert [turn.step for turn in turns] == [2]
    assert "no action here" in read_and_scored(turns[0], "without")[0]


def test_the_context_is_that_of_generation():
    r = renderer()
    steps = (said("A."), said("B.", observation="Then."), said("C.", observation="Last."))
    turns = thought_turns(trajectory(steps), r)
    past = tuple(
        Exchange(s.observation, Reply(s.text, s.thought, s.action, s.malformed, s.num_tokens)) for s in steps
    )
    for number, turn in enumerate(turns):
        context = r.context("Act.", past[:number], steps[number].observation)
        assert turn.with_thought[0].tolist()[: len(context)] == list(context)
        assert turn.without[0].tolist()[: len(context)] == list(context)


def test_episodes_are_chosen_by_task_so_that_methods_share_them():
    ours = [trajectory(seed=seed) for seed in range(30)]
    theirs = [replace(t, policy="kto", reward=0.0) for t in reversed(ours)]
    chosen = [t.task.seed for t in choose(ours, 8)]
    assert [t.task.seed for t in choose(theirs, 8)] == chosen
    assert chosen[:5] == [t.task.seed for t in choose(ours, 5)]
    assert max(chosen) > 8


def scored(task, step, with_thought, without, success=True) -> TurnUtility:
    return TurnUtility(task, step, with_thought, without, 4, 9, True, success)


def test_the_summary_is_over_turns_and_its_intervals_over_episodes():
    turns = [
        scored("a", 0, -1.0, -4.0),
        scored("a", 1, -2.0, -1.0),
        scored("b", 0, -1.0, -2.0, success=False),
    ]
    found = summary(turns)
    assert found["utility_mean"] == pytest.approx((3 - 1 + 1) / 3)
    assert found["utility_per_token"] == pytest.approx(3 / 12)
    assert found["share_positive"] == pytest.approx(2 / 3)
    assert found["by_position"] == {
        "1": {"utility_mean": pytest.approx(2.0), "turns": 2},
        "2": {"utility_mean": pytest.approx(-1.0), "turns": 1},
    }
    assert found["by_outcome"]["failure"] == {"utility_mean": pytest.approx(1.0), "turns": 1}
    few = found["intervals"]["utility_mean"]
    assert few == {
        "mean": pytest.approx(1), "ci_low": None, "ci_high": None, "reason": "fewer than 5 tasks", "n": 2
    }  # fmt: skip
    more = summary([replace(turn, task_id=f"{turn.task_id}{n}") for turn in turns for n in range(3)])
    # Every episode has a mean of 1 a turn; not so the share of positive turns.
    assert more["intervals"]["utility_mean"]["reason"] == "nothing varies"
    share = more["intervals"]["share_positive"]
    assert (share["mean"], share["n"]) == (pytest.approx(2 / 3), 6)
    assert 0 < share["ci_low"] < 2 / 3 < share["ci_high"]
    assert summary([]) == {"turns": 0}
