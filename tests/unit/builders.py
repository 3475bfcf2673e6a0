"""Small records and a small tokenizer for the tests."""

from __future__ import annotations

from functools import cache

from depo.policies.base import format_reply, parse_reply
from depo.policies.chat import ChatRenderer
from depo.records import Step, Task, Trajectory

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}"
    "{% if not (loop.last and m.role == 'assistant' and continue_final_message) %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def step(
    observation="You see: red ball 1.", thought="It is near.", action="go to red ball 1", **changes
) -> Step:
    """One turn; any field may be changed."""
    values = {
        "observation": observation,
        "text": format_reply(thought, action),
        "thought": thought,
        "action": action,
        "reward": 0.0,
        "valid": True,
        "malformed": False,
        "num_tokens": 9,
    }
    return Step(**{**values, **changes})


def trajectory(steps=2, reward=0.95, seed=0, **changes) -> Trajectory:
    """An episode; `steps` is a number of equal turns or the turns themselves."""
    turns = tuple(step() for _ in range(steps)) if isinstance(steps, int) else tuple(steps)
    values = {
        "task": Task("babyai", "GoToRedBall", seed, "train"),
        "policy": "teacher",
        "tokenizer": "",
        "system": "Act.",
        "steps": turns,
        "reward": reward,
        "success": reward > 0,
        "stop_reason": "terminated",
    }
    return Trajectory(**{**values, **changes})


def said(thought, action="go to red ball 1", **changes) -> Step:
    """A turn with this thought and action, read back from its text."""
    text = format_reply(thought, action)
    thought, action, malformed = parse_reply(text)
    return step(text=text, thought=thought, action=action, malformed=malformed, **changes)


@cache
def renderer(merges: tuple[tuple[str, str], ...] = ()) -> ChatRenderer:
    """A renderer over a byte-level tokenizer: one id a byte, but for pairs that are merged."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: i for i, text in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")
    fast.chat_template = TEMPLATE
    return ChatRenderer(fast)
