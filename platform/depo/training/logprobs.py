"""Log-probs of given tokens under a causal language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from trl.trainer.utils import add_fused_lm_head

# Up to this many logits (64 MiB in float32) building them all is a fifth faster than scoring in
# tiles; beyond it memory decides.
_WHOLE_LOGITS = 2**24


@dataclass(frozen=True)
class Head:
    """What scoring must know of a model's output layer."""

    module: nn.Module
    vocab_size: int
    whole: int = _WHOLE_LOGITS
    """Most logits that are built at a time; a call that needs more goes in tiles."""


def prepare_scoring(model: Any) -> Head:
    """Let `model`, an unwrapped Hugging Face causal LM, score tokens in tiles; its output layer."""
    add_fused_lm_head(model, outputs=("log_probs",))
    return Head(model.get_output_embeddings(), int(model.config.get_text_config().vocab_size))


def token_logps(model: Any, input_ids: Tensor, weights: Tensor, head: Head) -> Tensor:
    """Log-prob of each token after the first, `[batch, seq - 1]` float32, and 0 where `weights` is 0.

    `model` is one that `prepare_scoring` saw, bare or wrapped since; `input_ids` and `weights` are
    `[batch, seq]`, padded on the right, where causal attention never looks, so that no attention
    mask is needed.
    """
    scored = weights[:, 1:] != 0
    # Counting waits for a GPU, where the vocabulary decides in any case.
    positions = input_ids.numel() if input_ids.is_cuda else int(scored.sum())
    if positions * head.vocab_size > head.whole:
        labels = input_ids.masked_fill(weights == 0, -100)
        found = model(input_ids=input_ids, labels=labels, fused_lm_head=True, use_cache=False)
        return found.log_probs[:, 1 - input_ids.shape[1] :].float()  # virtual tokens stand before
    logits = _logits_before(model, input_ids, scored, head)
    nll = cross_entropy(logits.float(), input_ids[:, 1:][scored], reduction="none")
    return nll.new_zeros(scored.shape).masked_scatter(scored, -nll)


def sequence_logps(model: Any, input_ids: Tensor, weights: Tensor, head: Head) -> Tensor:
    """Sum of `weights` times the tokens' log-probs, `[batch]` float32 (nats)."""
    return (weights[:, 1:] * token_logps(model, input_ids, weights, head)).sum(-1)


def _logits_before(model: Any, input_ids: Tensor, scored: Tensor, head: Head) -> Tensor:
    """Logits `[count, vocab]` at the positions whose next token is `scored` `[batch, seq - 1]` alone."""
    row, place = scored.nonzero(as_tuple=True)

    def choose(_: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor]:
        width = states[0].shape[1]
        # Prompt tuning puts virtual tokens before a sequence.
        chosen = row * width + place + (width - input_ids.shape[1])
        return (states[0].flatten(0, 1).index_select(0, chosen)[None],)

    # A prompt is most of a sequence, and its logits, of no use here, would be most of the work.
    hook = head.module.register_forward_pre_hook(choose)
    try:
        return model(input_ids=input_ids, use_cache=False).logits[0]
    finally:
        hook.remove()
