"""Samples: the mask covers the agent's own tokens and nothing else; KL partners are fixed by the data."""

import random
from dataclasses import replace

import pytest
from builders import renderer, said, step, trajectory
from hypothesis import given
from hypothesis import strategies as st

from depo.data.samples import make_sample, make_samples, name_kl_partners, reply_mask, tokens_of
from depo.policies.base import action_start, parse_reply
from depo.records import ContextTurn


def own_text(sample, marks=(1, 2)) -> str:
    ids = [t for t, mark in zip(sample.token_ids, sample.agent_mask, strict=True) if mark in marks]
    return renderer().tokenizer.decode(ids)


def test_the_mask_covers_replies_and_their_ends_only():
    episode = trajectory([said("One.", "turn left"), said("Two.", "drop", observation="A door.")])
    sample = make_sample(episode, "D", "raw", renderer())
    assert own_text(sample) == "Thought: One.\nAction: turn left<|end|>Thought: Two.\nAction: drop<|end|>"
    text = renderer().tokenizer.decode(list(sample.token_ids))
    assert text == (
        "<|system|>Act.<|end|><|user|>You see: red ball 1.<|end|>"
        "<|assistant|>Thought: One.\nAction: turn left<|end|><|user|>A door.<|end|>"
        "<|assistant|>Thought: Two.\nAction: drop<|end|>"
    )
    assert sum(sample.agent_mask[: sample.prompt_length]) == 0
    assert sample.agent_mask[sample.prompt_length] == 1
    assert sample.num_tokens == sum(mark != 0 for mark in sample.agent_mask) - 2


def test_turns_that_are_context_are_read_and_neither_trained_nor_counted():
    opening, aside = ContextTurn("Rules.", "OK."), ContextTurn("A note.", "Noted.")
    turns = [said("One.", "go"), said("Two.", "drop", observation="A door.")]
    with_context = [replace(turns[0], context=(opening,)), replace(turns[1], context=(aside, aside))]
    bare, sample = (make_sample(trajectory(some), "D", "raw", renderer()) for some in (turns, with_context))
    assert renderer().tokenizer.decode(list(sample.token_ids)) == (
        "<|system|>Act.<|end|><|user|>Rules.<|end|><|assistant|>OK.<|end|>"
        "<|user|>You see: red ball 1.<|end|><|assistant|>Thought: One.\nAction: go<|end|>"
        + "<|user|>A note.<|end|><|assistant|>Noted.<|end|>" * 2
        + "<|user|>A door.<|end|><|assistant|>Thought: Two.\nAction: drop<|end|>"
    )
    assert own_text(sample) == own_text(bare)
    assert (sample.num_steps, sample.num_tokens) == (bare.num_steps, bare.num_tokens) == (2, bare.num_tokens)
    assert sample.agent_mask.index(1) == sample.prompt_length > bare.prompt_length


def test_the_mask_tells_thoughts_from_actions():
    turns = [said("É is 1.", "turn left"), said("Two. Action words aside.", "drop")]
    sample = make_sample(trajectory(turns), "D", "raw", renderer())
    assert own_text(sample, (1,)) == "Thought: É is 1.\nThought: Two. Action words aside.\n"
    assert own_text(sample, (2,)) == "Action: turn left<|end|>Action: drop<|end|>"


def test_a_token_across_the_border_is_the_actions():
    merged = renderer(merges=(("Ċ", "A"),))
    ids = merged.reply("Thought: x\nAction: y")
    thought = [i for i, mark in zip(ids, reply_mask(ids, merged), strict=True) if mark == 1]
    assert merged.text(tuple(thought)) == "Thought: x"


@given(st.lists(st.sampled_from(["Thought: ", "Action:", "\n", " ", "go", "é😀", "action : x"]), max_size=8))
def test_the_actions_tokens_spell_what_follows_its_word(parts):
    text = "".join(parts)
    ids = renderer().reply(text)
    mask = reply_mask(ids, renderer())
    assert list(mask) == sorted(mask) and len(mask) == len(ids)
    acted = renderer().text(tuple(i for i, mark in zip(ids, mask, strict=True) if mark == 2))
    start = action_start(text)
    assert acted == ("" if start is None else text[start:])
    assert (start is None) == parse_reply(text)[2]
    assert start is None or acted[:6].lower() == "action"


@pytest.mark.parametrize("text", ["I give up", "Action: a\nAction: b", "Thought: x\nAction:"])
def test_a_malformed_reply_is_all_thought_but_for_its_end(text):
    ids = renderer().reply(text)
    assert reply_mask(ids, renderer()) == (1,) * (len(ids) - 1) + (2,)
    assert reply_mask(ids[:-1], renderer()) == (1,) * (len(ids) - 1)
    assert reply_mask((), renderer()) == ()


def test_generated_ids_are_kept_as_they_were():
    # An id in the middle that the text alone would not give back.
    ids = (*renderer().reply("Thought: x\nAction: y")[:-1], 0, renderer().end_of_turn)
    episode = trajectory([said("x", "y", token_ids=ids)], tokenizer=renderer().fingerprint)
    tokens, _, prompt, _ = tokens_of(episode, renderer())
    assert tuple(tokens[prompt:]) == ids
    foreign = trajectory([said("x", "y", token_ids=ids)], tokenizer="another")
    assert tuple(tokens_of(foreign, renderer())[0][prompt:]) == renderer().reply("Thought: x\nAction: y")


def test_a_reply_cut_by_the_token_limit_is_closed_but_not_trained_to_end():
    ids = renderer().reply("Thought: x\nAction: y")[:-1]
    episode = trajectory([said("x", "y", token_ids=ids), said("z")], tokenizer=renderer().fingerprint)
    tokens, mask, prompt, _ = tokens_of(episode, renderer())
    end = prompt + len(ids)
    assert (tokens[end], mask[end]) == (renderer().end_of_turn, 0)


def test_a_turn_without_room_for_a_reply_trains_nothing():
    silent = step(text="", thought="", action="", malformed=True, valid=False, num_tokens=0)
    episode = trajectory(
        [said("x", token_ids=renderer().reply("x")), silent], tokenizer=renderer().fingerprint
    )
    tokens, mask, _, count = tokens_of(episode, renderer())
    assert (tokens[-1], mask[-1]) == (renderer().end_of_turn, 0)
    own = sum(mark != 0 for mark in mask)
    assert own == count + 1 == len(renderer().reply("x"))


def test_kl_partners_do_not_depend_on_order_and_are_of_another_task():
    labelled = [(trajectory([said(f"Thought {n}.")], seed=n % 4), "DU"[n % 2]) for n in range(12)]
    samples = make_samples(labelled, {}, renderer(), seed=3)
    task_of = {s.id: s.task_id for s in samples}
    view_of = {s.id: s.view for s in samples}
    for sample in samples:
        assert task_of[sample.kl_partner] != sample.task_id
        assert view_of[sample.kl_partner] == sample.view
    shuffled = random.Random(1).sample(samples, len(samples))
    again = {s.id: s.kl_partner for s in name_kl_partners(shuffled, seed=3)}
    assert again == {s.id: s.kl_partner for s in samples}
    other = {s.id: s.kl_partner for s in name_kl_partners(samples, seed=4)}
    assert other != again


def test_partners_exist_even_for_one_task_or_one_sample():
    one_task = make_samples([(trajectory([said(t)]), "D") for t in "ab"], {}, renderer(), seed=0)
    assert all(s.kl_partner != s.id for s in one_task)
    alone = [s for s in make_samples([(trajectory(1), "D")], {}, renderer(), seed=0) if s.view == "raw"]
    assert alone[0].kl_partner == alone[0].id


def test_both_views_are_complete_and_differ_in_desirable_thoughts_only():
    long, short = trajectory([said("A long thought.")]), trajectory([said("Short.")])
    bad = trajectory([said("A bad thought.")], reward=0.8)
    samples = make_samples([(long, "D"), (bad, "U")], {long.id: short}, renderer(), seed=0)
    texts = {(s.label, s.view): own_text(s) for s in samples}
    assert "A long thought." in texts["D", "raw"]
    assert "Short." in texts["D", "rephrased"]
    assert texts["U", "raw"] == texts["U", "rephrased"]
    assert {s.trajectory_id for s in samples} == {long.id, bad.id}
