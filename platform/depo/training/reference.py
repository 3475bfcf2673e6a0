"""Log-probs of samples, and of their KL pairs, under the reference policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from depo.identity import located
from depo.records import ReferenceLogProbs
from depo.training.collator import pad
from depo.training.dataset import FloatArray, IntArray, SampleTable
from depo.training.logprobs import prepare_scoring, token_logps

# Padded tokens scored at a time.
_TOKENS = 8192

Conversation = tuple[IntArray, IntArray]
"""Ids of a conversation and its agent mask, both `[length]`."""


class ReferenceScorer:
    """Scores sequences with the policy in `model_dir`, or with a model that is already loaded."""

    def __init__(self, model: Any, dtype: str = "float32") -> None:
        disable_progress_bar()
        if isinstance(model, str):
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            loaded: Any = AutoModelForCausalLM.from_pretrained(located(model), dtype=getattr(torch, dtype))
            model = loaded.to(device)
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._head = prepare_scoring(model.get_base_model() if isinstance(model, PeftModel) else model)

    def score(self, sequences: Sequence[Conversation]) -> list[FloatArray]:
        """Log-probs (nats, float32) of each sequence's own tokens, in order; its first token has none.

        What a sequence gets does not depend on the others beyond float32's rounding.
        """
        scores: list[FloatArray] = [np.empty(0, dtype=np.float32)] * len(sequences)
        for rows in _batches([len(ids) for ids, _ in sequences]):
            ids = pad([sequences[i][0] for i in rows], 0).long().to(self._device)
            own = pad([sequences[i][1] for i in rows], 0).to(self._device)
            with torch.inference_mode():
                logps = token_logps(self._model, ids, own, self._head).float().cpu().numpy()
            for i, values in zip(rows, logps, strict=True):
                scores[i] = values[: len(sequences[i][0]) - 1][sequences[i][1][1:] != 0]
        return scores


def sequences_of(table: SampleTable, row: int) -> tuple[Conversation, Conversation]:
    """The two sequences that the reference scores of a row: its own, and that of its KL pair."""
    span = table.span(row)
    own = (table.tokens[span], table.own[span])
    return own, (table.kl_part(table.tokens, row), table.kl_part(table.own, row))


def score_table(table: SampleTable, scorer: ReferenceScorer) -> list[ReferenceLogProbs]:
    """Reference log-probs of the rows that a table trains on, in this process."""
    pairs = [sequences_of(table, row) for row in table.rows]
    own, kl = scorer.score([a for a, _ in pairs]), scorer.score([b for _, b in pairs])
    return [
        ReferenceLogProbs(table.ids[row], tuple(a.tolist()), tuple(b.tolist()))
        for row, a, b in zip(table.rows, own, kl, strict=True)
    ]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places in `lengths`, like lengths together, in batches of up to `_TOKENS` when padded."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[place] > _TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
