"""Log-probs of given tokens under a causal language model."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy
from trl.trainer.utils import add_fused_lm_head

# Up to this many logits (64 MiB in float32) building them all is a fifth faster than scoring in
# tiles; beyond it memory decides.
_WHOLE_LOGITS = 2**24


def prepare_scoring(model: Any) -> int:
    """Let `model`, an unwrapped Hugging Face causal LM, score tokens in tiles; its vocabulary size."""
    add_fused_lm_head(model, outputs=("log_probs",))
    return int(model.config.get_text_config().vocab_size)


def token_logps(model: Any, input_ids: Tensor, mask: Tensor, vocab_size: int) -> Tensor:
    """Log-prob of each token after the first, `[batch, seq - 1]` float32, and 0 where `mask` is 0.

    `model` is one that `prepare_scoring` saw, bare or wrapped since; `input_ids` and `mask` are
    `[batch, seq]`, padded on the right, where causal attention never looks, so that no attention
    mask is needed.
    """
    if input_ids.numel() * vocab_size > _WHOLE_LOGITS:
        labels = input_ids.masked_fill(mask == 0, -100)
        return model(
            input_ids=input_ids, labels=labels, fused_lm_head=True, use_cache=False
        ).log_probs.float()
    logits = model(input_ids=input_ids, use_cache=False).logits[:, :-1]
    scored = mask[:, 1:] != 0
    nll = cross_entropy(logits[scored].float(), input_ids[:, 1:][scored], reduction="none")
    return nll.new_zeros(scored.shape).masked_scatter(scored, -nll)


def sequence_logps(model: Any, input_ids: Tensor, mask: Tensor, vocab_size: int) -> Tensor:
    """Sum of the log-probs of the tokens where `mask` is 1, `[batch]` float32 (nats)."""
    return token_logps(model, input_ids, mask, vocab_size).sum(-1)
