"""The tiny student's tokenizer, template and model."""

import torch

from depo.config.schema import TinyConfig
from depo.policies.base import Exchange, Reply
from depo.policies.chat import ChatRenderer
from depo.training.tiny import make_model, make_tiny, make_tokenizer

SYSTEM = "You act in a grid. Reply with a thought and an action."
SEEN = "You see: a red ball 1, a grey key 2. It is 3 steps ahead."
REPLY = "Thought: The red ball is near.\nAction: go to red ball 1"
TEXTS = [SYSTEM, SEEN, REPLY] * 5


def test_domain_words_and_reply_labels_are_single_tokens():
    tokenizer = make_tokenizer(640, TEXTS)
    pieces = [tokenizer.decode([i]) for i in tokenizer(REPLY)["input_ids"]]
    assert pieces == [
        "Thought:", " The", " red", " ball", " is", " near", ".",
        "\nAction:", " go", " to", " red", " ball", " 1",
    ]  # fmt: skip


def test_any_text_round_trips_through_bytes():
    tokenizer = make_tokenizer(640, TEXTS)
    for text in ("wörds it never saw: 東京 🙂", "two  blanks\n\n\tand a tab ", REPLY, "<|end|>?"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_vocabulary_is_bounded_and_prefers_what_saves_most():
    tokenizer = make_tokenizer(
        300, [*TEXTS, "seldom seldomly"] + [f"filler{c}" for c in "abcdefghijklmnopqrst"]
    )
    assert len(tokenizer) == 300
    assert len(tokenizer(" red ball", add_special_tokens=False)["input_ids"]) == 2


def test_template_is_prefix_stable_and_ends_turns_with_one_token():
    tokenizer = make_tokenizer(640, TEXTS)
    renderer = ChatRenderer(tokenizer)
    assert renderer.end_of_turn == tokenizer.eos_token_id
    ids = renderer.reply(REPLY)
    reply = Reply(REPLY, "The red ball is near.", "go to red ball 1", False, len(ids) - 1, ids)
    whole = renderer.context(SYSTEM, (Exchange(SEEN, reply),), "It is gone.")
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": SEEN},
        {"role": "assistant", "content": REPLY},
        {"role": "user", "content": "It is gone."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(list(whole)) == text
    assert whole == tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_student_is_reproducible_and_loads_as_it_was_written(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config = TinyConfig(hidden_size=32, layers=1, heads=2, intermediate_size=48, vocab_size=400)
    tokenizer = make_tiny(config, TEXTS, 64, 3, tmp_path)
    again = make_model(config, make_tokenizer(400, TEXTS), 64, 3)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (
        ChatRenderer(AutoTokenizer.from_pretrained(tmp_path)).fingerprint
        == ChatRenderer(tokenizer).fingerprint
    )
    for name, value in again.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert loaded.config.vocab_size == len(tokenizer) and loaded.config.eos_token_id == tokenizer.eos_token_id
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
