"""Batches of row numbers to padded tensors.

Padding stands on the right, where causal attention never looks from a real token, so batches carry
no attention mask and the fast causal kernels apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depo.training.dataset import SampleTable


def pad(sequences: Sequence[np.ndarray], value: int) -> Tensor:
    """`[batch, longest]` int64 with `value` to the right of each sequence."""
    padded = np.full((len(sequences), max(len(s) for s in sequences)), value, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return torch.from_numpy(padded)


@dataclass(frozen=True)
class TokenCollator:
    """For supervised training: `input_ids` and the `weights` of the tokens' losses, both `[batch, seq]`."""

    table: SampleTable
    pad_id: int
    observation_weight: float = 0.0
    """Weight of tokens that are not the agent's own, which weigh 1."""

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        pairs = [self.table.sequence(item["row"]) for item in items]
        ids, mask = pad([p[0] for p in pairs], self.pad_id), pad([p[1] for p in pairs], -1)
        weights = mask.clamp(min=0).float() + self.observation_weight * (mask == 0).float()
        return {"input_ids": ids, "weights": weights}


@dataclass(frozen=True)
class PreferenceCollator:
    """For KTO and DEPO: the samples' own sequences, and those of their KL pairs.

    `input_ids`, `agent_mask` `[batch, seq]`; `kl_input_ids`, `kl_agent_mask` `[batch, kl_seq]`;
    `desirable` (bool), `ref_logp`, `ref_kl_logp`, `tokens_per_step`, `num_steps` (float32) `[batch]`.
    """

    table: SampleTable
    pad_id: int

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        table, rows = self.table, np.array([item["row"] for item in items])
        if table.ref_logp is None or table.ref_kl_logp is None:
            raise ValueError("the table has no reference log-probs; join them with `with_reference`")
        own = [table.sequence(row) for row in rows]
        pairs = [table.kl_sequence(row) for row in rows]
        steps = table.num_steps[rows]
        floats = {
            "ref_logp": table.ref_logp[rows],
            "ref_kl_logp": table.ref_kl_logp[rows],
            "tokens_per_step": table.num_tokens[rows] / np.maximum(steps, 1),
            "num_steps": steps,
        }
        return {
            "input_ids": pad([p[0] for p in own], self.pad_id),
            "agent_mask": pad([p[1] for p in own], 0),
            "kl_input_ids": pad([p[0] for p in pairs], self.pad_id),
            "kl_agent_mask": pad([p[1] for p in pairs], 0),
            "desirable": torch.from_numpy(table.desirable[rows]),
            **{name: torch.from_numpy(np.asarray(v, dtype=np.float32)) for name, v in floats.items()},
        }
