"""Log-probs of samples, and of their KL pairs, under the reference policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from depo.training.collator import pad
from depo.training.dataset import kl_pair
from depo.training.logprobs import prepare_scoring, sequence_logps

# Padded tokens scored at a time.
_TOKENS = 8192


class ReferenceScorer:
    """Scores batches of samples with the policy in `model_dir`; a worker of the reference stage.

    A batch maps columns to rows: `id`, `token_ids`, `agent_mask`, `prompt_length` of the sample, and
    `partner_token_ids`, `partner_agent_mask`, `partner_prompt_length` of its KL partner, both cut at
    the student's longest length. What comes back holds `sample_id`, `ref_logp`, `ref_kl_logp` in
    the same order; a row's values don't depend on the others beyond float32's rounding.
    """

    def __init__(self, model_dir: str, dtype: str) -> None:
        disable_progress_bar()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype))
        self._model = model.to(self._device).eval()
        self._vocab_size = prepare_scoring(self._model)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        names = ("token_ids", "agent_mask", "prompt_length")
        own = [tuple(np.asarray(x) for x in row) for row in zip(*(batch[n] for n in names), strict=True)]
        partners = zip(*(batch[f"partner_{n}"] for n in names), strict=True)
        pairs = [
            kl_pair(ids, mask, int(prompt), np.asarray(other[0]), np.asarray(other[1]), int(other[2]))
            for (ids, mask, prompt), other in zip(own, partners, strict=True)
        ]
        return {
            "sample_id": np.asarray(batch["id"]),
            "ref_logp": self.score([(ids, mask) for ids, mask, _ in own]),
            "ref_kl_logp": self.score(pairs),
        }

    def score(self, sequences: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Sum of the log-probs of each sequence's agent tokens, `[len(sequences)]` float64 (nats)."""
        scores = np.zeros(len(sequences))
        by_length = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]))
        start = 0
        while start < len(by_length):
            rows = _fitting(by_length[start:], sequences)
            ids = pad([sequences[i][0] for i in rows], 0).to(self._device)
            mask = pad([sequences[i][1] for i in rows], 0).to(self._device)
            with torch.inference_mode():
                scores[rows] = sequence_logps(self._model, ids, mask, self._vocab_size).double().cpu().numpy()
            start += len(rows)
        return scores


def _fitting(rows: list[int], sequences: list[tuple[np.ndarray, np.ndarray]]) -> list[int]:
    """The first of `rows`, ordered by length, that make a batch of up to `_TOKENS` when padded."""
    count = 1
    while count < len(rows) and (count + 1) * len(sequences[rows[count]][0]) <= _TOKENS:
        count += 1
    return rows[:count]
