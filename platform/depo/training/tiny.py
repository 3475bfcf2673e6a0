"""A student for machines without weights: a small Llama, its tokenizer and chat template, made from texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.config.schema import TinyConfig

PAD, SYSTEM, USER, AGENT, END = "<|pad|>", "<|system|>", "<|user|>", "<|agent|>", "<|end|>"
_SPECIAL = (PAD, SYSTEM, USER, AGENT, END)

# A piece is a word with the blank or line break before it and the colon after it, a digit, a run of
# signs, or white space: so "Thought:" and " ball" are one token each and numbers stay readable.
_PIECE = r"[ \n]?[A-Za-z]+:?| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+"

_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|agent|>{% else %}<|{{ message.role }}|>{% endif %}"
    "{{ message.content }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|agent|>{% endif %}"
)


def make_tokenizer(vocab_size: int, texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer whose tokens are the pieces that save most in `texts`, and all bytes.

    Equal texts give an equal tokenizer. Its vocabulary has at most `vocab_size` entries, fewer where
    the texts have fewer distinct pieces; text it has no piece for falls back to bytes.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    counts = Counter(piece for text in texts for piece in re.findall(_PIECE, text))
    if not counts:
        raise ConfigError("student.tiny: no text to make a tokenizer from; generate scripted episodes first")
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    saved = {
        as_bytes.pre_tokenize_str(piece)[0][0]: count * (len(piece.encode()) - 1)
        for piece, count in counts.items()
        if len(piece.encode()) > 1
    }
    room = vocab_size - len(_SPECIAL) - 256
    pieces = sorted(saved, key=lambda piece: (-saved[piece], piece))[:room]
    entries = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *pieces]
    # `ignore_merges` takes a piece of the vocabulary whole; there being no merges, others become bytes.
    model = models.BPE(vocab={e: i for i, e in enumerate(entries)}, merges=[], ignore_merges=True)
    tokenizer = Tokenizer(model)
    split = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[SYSTEM, USER, AGENT],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def make_model(config: TinyConfig, tokenizer: Any, max_length: int, seed: int) -> Any:
    """A Llama of random weights, float32; equal arguments give equal weights. Embeddings are tied."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=max_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        attention_dropout=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(shape).float()


def make_tiny(config: TinyConfig, texts: Iterable[str], max_length: int, seed: int, out_dir: Path) -> Any:
    """Write tokenizer and random weights to `out_dir`, for `from_pretrained` and vLLM; the tokenizer.

    `texts` are what the student will read and write: system prompts, observations and replies,
    without the chat template. Raises `ConfigError` where there is none.
    """
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = make_tokenizer(config.vocab_size, texts)
    model = make_model(config, tokenizer, max_length, seed)
    out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out_dir)
    model.save_pretrained(out_dir)
    return tokenizer
