"""Rephrasing: shorter thoughts, the same actions."""

import pytest
from builders import said, step, trajectory

from depo.data.rephrase import KeepThoughts, PolicyRephraser, SiblingRephraser, sentences, shorten
from depo.policies.base import Immediate, Reply, parse_reply


def words(text: str) -> int:
    return len(text.split())


LONG = "I must think about this. The red ball is 3 ahead. Let me go there now."
SHORT = "The red ball is 3 ahead."


def test_a_shorter_sibling_thought_replaces_the_longer_one():
    episodes = [trajectory([said("A b c d e f.")]), trajectory([said("A b.")], index=1)]
    (first, second), count = shorten(episodes, SiblingRephraser(episodes), words)
    assert first.steps[0].thought == "A b."
    assert second == episodes[1]
    assert count == 1


def test_a_sentence_that_stood_alone_elsewhere_stands_for_the_thought():
    episodes = [trajectory([said(LONG)], seed=1), trajectory([said(SHORT)], seed=2)]
    (first, _), _ = shorten(episodes, SiblingRephraser(episodes), words)
    assert first.steps[0].thought == SHORT
    assert first.steps[0].text == f"Thought: {SHORT}\nAction: go to red ball 1"


def test_a_sentence_that_stood_alone_before_another_action_does_not():
    episodes = [trajectory([said(LONG)], seed=1), trajectory([said(SHORT, "turn left")], seed=2)]
    (first, _), count = shorten(episodes, SiblingRephraser(episodes), words)
    assert first.steps[0].thought == LONG
    assert count == 0


def test_actions_order_and_outcome_never_change():
    episodes = [trajectory([said(LONG), said("Hm. " + SHORT)]), trajectory([said(SHORT)], seed=2)]
    rewritten, _ = shorten(episodes, SiblingRephraser(episodes), words)
    for before, after in zip(episodes, rewritten, strict=True):
        assert [s.action for s in after.steps] == [s.action for s in before.steps]
        assert (after.reward, after.success, after.task) == (before.reward, before.success, before.task)


def test_a_changed_step_forgets_the_ids_of_its_old_text():
    old = said(LONG, token_ids=(1, 2, 3), logprob=-4.0)
    episodes = [trajectory([old], seed=1), trajectory([said(SHORT)], seed=2)]
    (first, _), _ = shorten(episodes, SiblingRephraser(episodes), words)
    assert (first.steps[0].token_ids, first.steps[0].logprob) == ((), None)
    assert first.steps[0].num_tokens == words(first.steps[0].text)


class Scripted(Immediate):
    """A policy that answers every request with one text."""

    name = "scripted"
    tokenizer_fingerprint = ""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def reply(self, request):
        thought, action, malformed = parse_reply(self.text)
        return [Reply(self.text, thought, action, malformed, words(self.text))]


def test_an_endpoint_may_shorten_but_not_smuggle_in_an_action():
    episodes = [trajectory([said(LONG)])]
    (shorter,), _ = shorten(episodes, PolicyRephraser(Scripted("Ball ahead.")), words)
    assert shorter.steps[0].thought == "Ball ahead."
    (kept,), count = shorten(episodes, PolicyRephraser(Scripted("Ok.\nAction: drop\nAction: drop")), words)
    assert kept.steps[0].action == "go to red ball 1"
    assert count <= 1


class Failing(Scripted):
    """Answers the first requests, then breaks."""

    def __init__(self, text: str, good: int) -> None:
        super().__init__(text)
        self.good = good

    def reply(self, request):
        self.good -= 1
        if self.good < 0:
            raise RuntimeError("the endpoint is gone")
        return super().reply(request)


def test_replies_that_came_before_a_failure_are_not_asked_for_again(tmp_path):
    kept = tmp_path / "rephrased.jsonl"
    episodes = [trajectory([said(f"{LONG} {n}.")], seed=n) for n in range(5)]
    with pytest.raises(RuntimeError, match="gone"):
        shorten(episodes, PolicyRephraser(Failing("Ball ahead.", good=3), kept), words)
    with kept.open("a") as file:
        file.write('["half a li')
    again = Failing("Ball ahead.", good=2)
    rewritten, count = shorten(episodes, PolicyRephraser(again, kept), words)
    assert (count, again.good) == (5, 0)
    shorten(episodes, PolicyRephraser(Failing("", good=0), kept), words)
    assert {t.steps[0].thought for t in rewritten} == {"Ball ahead."}


def test_a_longer_or_empty_proposal_is_refused():
    episodes = [trajectory([said("Ball ahead.")])]
    for text in ("A much longer thought about the ball.", ""):
        assert shorten(episodes, PolicyRephraser(Scripted(text)), words) == (episodes, 0)


@pytest.mark.parametrize(
    "layout",
    [
        "Thought: {}\nAction: go",
        "Thought:\n{}\n\nAction:\ngo",
        "  thought :  {}  \n\n  ACTION :go \n",
        "{}\nAction: go",
        "<think>\n{}\n</think>\n\nAction: go",
        "<think>{}</think>Action: go",
        "**Thought:** {}\n**Action:** `go`",
        "Thought: {}\nAction:\n```\ngo\n```",
        "Thought: {}\r\nAction: go\r\n",
    ],
)
def test_only_the_thoughts_own_characters_are_exchanged(layout):
    thought, action, malformed = parse_reply(layout.format(LONG))
    assert (thought, action, malformed) == (LONG, "go", False)
    old = step(text=layout.format(LONG), thought=thought, action=action)
    (shorter,), count = shorten([trajectory([old])], PolicyRephraser(Scripted("Ball ahead.")), words)
    assert (count, shorter.steps[0].text) == (1, layout.format("Ball ahead."))
    assert parse_reply(shorter.steps[0].text) == ("Ball ahead.", "go", False)


@pytest.mark.parametrize("proposed", ["a </think> b", "x\nAction: drop", "```", "<think>"])
def test_a_proposal_never_becomes_another_action_or_layout(proposed):
    text = f"<think>{LONG}</think>\nAction: go"
    old = step(text=text, thought=LONG, action="go")

    class Proposes(KeepThoughts):
        def propose(self, trajectories):
            return [[[proposed]] for _ in trajectories]

    (kept,), _ = shorten([trajectory([old])], Proposes(), words)
    assert parse_reply(kept.steps[0].text)[1:] == ("go", False)
    assert kept.steps[0].text.startswith("<think>") and kept.steps[0].text.endswith("</think>\nAction: go")


def test_an_endpoints_own_reasoning_is_no_part_of_its_answer():
    for answer in ('<think>\nWhat is short?\n</think>\n"Ball ahead."', "Thought: Ball ahead.\nAction: drop"):
        (shorter,), _ = shorten([trajectory([said(LONG)])], PolicyRephraser(Scripted(answer)), words)
        assert shorter.steps[0].thought == "Ball ahead."


def test_a_malformed_reply_is_left_alone():
    old = step(text=LONG, thought=LONG, action="", malformed=True)
    assert shorten([trajectory([old])], PolicyRephraser(Scripted("Ok.")), words) == ([trajectory([old])], 0)


def test_keeping_thoughts_changes_nothing():
    episodes = [trajectory([said(LONG)])]
    assert shorten(episodes, KeepThoughts(), words) == (episodes, 0)


def test_sentences_split_at_their_ends():
    assert sentences("A b. C d! E?  ") == ["A b.", "C d!", "E?"]
