"""Conversations as token ids, under chat templates as models have them."""

from __future__ import annotations

import pickle

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from depo.policies.base import Exchange, Reply
from depo.policies.chat import ChatRenderer, no_room

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SYSTEMLESS = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
FORGETS_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('Action:')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
]
SYSTEM = "You act in a room.\nReply in two lines."
TURNS = [
    ("You see a ball.", "Thought: near.\nAction: go to ball"),
    ("You are there.", "Thought: é.\nAction: done"),
]


def tokenizer(template: str | None, end: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """One token a byte, and the markers of the templates."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|begin_of_text|>", eos_token=end, chat_template=template
    )


def generated(renderer: ChatRenderer, text: str) -> Reply:
    return renderer.read(renderer.reply(text), input_tokens=0)


def history(renderer: ChatRenderer) -> tuple[Exchange, ...]:
    return tuple(Exchange(seen, generated(renderer, text)) for seen, text in TURNS)


def messages(*opening: dict[str, str]) -> list[dict[str, str]]:
    (_, first), (seen, second) = TURNS
    return [
        *opening,
        {"role": "assistant", "content": first},
        {"role": "user", "content": seen},
        {"role": "assistant", "content": second},
        {"role": "user", "content": "The end?"},
    ]


WITH_SYSTEM = messages({"role": "system", "content": SYSTEM}, {"role": "user", "content": TURNS[0][0]})
SYSTEM_IN_USER = messages({"role": "user", "content": f"{SYSTEM}\n\n{TURNS[0][0]}"})


@pytest.mark.parametrize(
    ("template", "end", "whole"),
    [
        (LLAMA3, "<|eot_id|>", WITH_SYSTEM),
        (CHATML, "<|im_end|>", WITH_SYSTEM),
        (SYSTEMLESS, "<|im_end|>", SYSTEM_IN_USER),
    ],
    ids=["llama3", "chatml", "systemless"],
)
def test_context_built_turn_by_turn_is_the_template_of_the_whole(
    template: str, end: str, whole: list[dict[str, str]]
) -> None:
    tok = tokenizer(template, end)
    renderer = ChatRenderer(tok)
    ids = renderer.context(SYSTEM, history(renderer), "The end?")
    text = tok.apply_chat_template(whole, tokenize=False, add_generation_prompt=True)
    assert tok.decode(list(ids)) == text
    assert list(ids) == tok(text, add_special_tokens=False)["input_ids"]
    assert renderer.end_of_turn == tok.convert_tokens_to_ids(end)


def test_context_of_a_first_turn_has_no_history() -> None:
    tok = tokenizer(CHATML)
    text = tok.decode(list(ChatRenderer(tok).context("", (), "hello")))
    assert text == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_generated_ids_stand_in_the_context_as_they_were_generated() -> None:
    """Ids that no tokenizer would make of their text are neither merged nor split."""
    renderer = ChatRenderer(tokenizer(CHATML))
    odd = (*renderer.tokenizer("Thought: x\nAction: \xe9", add_special_tokens=False)["input_ids"][:-1],)
    context = renderer.context("", (Exchange("seen", renderer.read(odd, 0)),), "next")
    start = len(renderer.context("", (), "seen"))
    assert context[start : start + len(odd) + 1] == (*odd, renderer.end_of_turn)


def test_reply_reads_back_as_it_was_written() -> None:
    renderer = ChatRenderer(tokenizer(CHATML))
    text = TURNS[1][1]
    whole = generated(renderer, text)
    assert (whole.text, whole.thought, whole.action, whole.malformed) == (text, "é.", "done", False)
    assert whole.num_tokens == len(whole.token_ids) - 1 == len(text.encode())
    cut = renderer.read(whole.token_ids[:9], input_tokens=3, logprob=-2.0)
    assert (cut.malformed, cut.num_tokens, cut.input_tokens, cut.logprob) == (True, 9, 3, -2.0)


def test_reply_without_ids_is_tokenised_from_its_text() -> None:
    renderer = ChatRenderer(tokenizer(CHATML))
    said = Reply("Action: go", "", "go", False, 0)
    assert renderer.reply_ids(said) == renderer.reply("Action: go")
    assert renderer.reply_ids(no_room(5)) == (renderer.end_of_turn,)


def test_system_prompt_dropped_by_a_template_moves_into_the_first_turn() -> None:
    drops = CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    tok = tokenizer(drops)
    assert "be good\n\nhello" in tok.decode(list(ChatRenderer(tok).context("be good", (), "hello")))


def test_template_that_rewrites_the_past_is_refused() -> None:
    with pytest.raises(ValueError, match="renders a past turn differently"):
        ChatRenderer(tokenizer(FORGETS_THOUGHTS))


def test_tokenizer_without_template_is_refused() -> None:
    with pytest.raises(ValueError, match="no chat template"):
        ChatRenderer(tokenizer(None))


def test_fingerprint_tells_templates_apart_and_survives_pickling() -> None:
    renderer = ChatRenderer(tokenizer(CHATML))
    again = pickle.loads(pickle.dumps(renderer))
    assert again.fingerprint == renderer.fingerprint != ChatRenderer(tokenizer(LLAMA3)).fingerprint
    assert again.context(SYSTEM, history(again), "x") == renderer.context(SYSTEM, history(renderer), "x")
