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

from depo.training.dataset import FloatArray, IntArray, SampleTable
from depo.training.order import length_groups


def pad(sequences: Sequence[np.ndarray], value: float) -> Tensor:
    """`[batch, longest]`, of the sequences' type, with `value` to the right of each sequence."""
    longest = max(len(s) for s in sequences)
    padded = np.full((len(sequences), longest), value, dtype=np.result_type(*sequences))
    for row, sequence in enumerate(sequences):
        padded[row, : len(sequence)] = sequence
    return torch.from_numpy(padded)


def scored_batch(sequences: Sequence[tuple[IntArray, FloatArray]], pad_id: int) -> dict[str, Tensor]:
    """`input_ids` and the `weights` of their log-probs, both `[batch, seq]`; their `lengths` `[batch]`."""
    return {
        "lengths": torch.tensor([len(ids) for ids, _ in sequences]),
        "input_ids": pad([ids for ids, _ in sequences], pad_id),
        "weights": pad([weights for _, weights in sequences], 0.0),
    }


@dataclass(frozen=True)
class Collator:
    """Makes batches of items: rows of a table, or what else a data set's column `row` counts."""

    table: SampleTable
    pad_id: int

    def batch(self, items: Sequence[int]) -> dict[str, Tensor]:
        """The items as tensors, `items` itself among them."""
        raise NotImplementedError

    def lengths(self, items: IntArray) -> IntArray:
        """Longest sequence of each item."""
        return self.table.lengths[items]

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        return self.batch([int(item["row"]) for item in items])

    def cut(self, items: Sequence[int], count: int) -> list[dict[str, Tensor]]:
        """The items in `count` batches with little padding, see `length_groups`."""
        chosen = np.array(items)
        return [self.batch(chosen[group].tolist()) for group in length_groups(self.lengths(chosen), count)]


@dataclass(frozen=True)
class TokenCollator(Collator):
    """For supervised training: `items`, `rows`, `lengths` `[batch]`, and `[batch, seq]` of three kinds.

    `input_ids`; `weights` of the tokens' losses; `trained` (bool), the tokens that the method trains
    on, observations aside.
    """

    observation_weight: float = 0.0
    """Weight of tokens that are not the agent's own, which weigh 1."""
    sample_weights: FloatArray | None = None
    """Factor of each row of the table, 1 where None."""

    def batch(self, items: Sequence[int]) -> dict[str, Tensor]:
        batch = scored_batch([self.table.sequence(row) for row in items], self.pad_id)
        own = pad([self.table.own[self.table.span(row)] for row in items], 1)
        weights = batch["weights"] + self.observation_weight * (own == 0)
        if self.sample_weights is not None:
            weights = weights * torch.from_numpy(self.sample_weights[list(items)])[:, None]
        return batch | {
            "items": torch.tensor(items),
            "rows": torch.tensor(items),
            "weights": weights.float(),
            "trained": batch["weights"] != 0,
        }


@dataclass(frozen=True)
class PreferenceCollator(Collator):
    """For unpaired objectives: samples, each `[batch]` or `[batch, seq]`, as `sample_batch` says."""

    def batch(self, items: Sequence[int]) -> dict[str, Tensor]:
        return sample_batch(self.table, items, self.pad_id) | {"items": torch.tensor(items)}

    def kl_batches(self, rows: Sequence[int], count: int) -> list[dict[str, Tensor]]:
        """The KL pairs of `rows` in `count` batches, at most as many as rows, like lengths together.

        Each has `rows`, `lengths`, `ref_logp` `[batch]` and `input_ids`, `weights` `[batch, seq]`.
        """
        table = self.table
        if table.ref_kl_logp is None:
            raise ValueError("the table has no reference log-probs; join them with `with_reference`")
        chosen = np.array(rows)
        parts = [chosen[group] for group in length_groups(table.kl_lengths[chosen], count)]
        return [
            scored_batch([table.kl_sequence(int(row)) for row in part], self.pad_id)
            | {"rows": torch.from_numpy(part), "ref_logp": _floats(table.ref_kl_logp[part])}
            for part in parts
        ]


@dataclass(frozen=True)
class PairCollator(Collator):
    """For paired objectives: a batch holds the chosen samples of its pairs, then the rejected ones."""

    pairs: IntArray
    """`[pairs, 2]` row of the chosen and of the rejected sample; items count pairs."""

    def batch(self, items: Sequence[int]) -> dict[str, Tensor]:
        rows = self.pairs[list(items)].T.reshape(-1)
        return sample_batch(self.table, rows.tolist(), self.pad_id) | {"items": torch.tensor(items)}

    def lengths(self, items: IntArray) -> IntArray:
        return self.table.lengths[self.pairs[items]].max(axis=1)


def sample_batch(table: SampleTable, rows: Sequence[int], pad_id: int) -> dict[str, Tensor]:
    """What a preference loss reads of `rows`: all of `Scores` but `logp`, and what is needed for that.

    `input_ids`, `weights` `[batch, seq]`; `rows`, `lengths` (int64), `desirable` (bool), others float32, all
    `[batch]`. Without a reference `ref_logp` is 0.
    """
    index = np.array(rows)
    batch = scored_batch([table.sequence(row) for row in rows], pad_id)
    nothing = np.zeros(len(table.ids))
    floats = {
        "ref_logp": nothing if table.ref_logp is None else table.ref_logp,
        "bonus": nothing if table.bonus is None else table.bonus,
        "num_steps": table.num_steps,
        "reward": table.reward,
        "length": table.num_tokens,
    }
    return batch | {
        "rows": torch.from_numpy(index),
        "desirable": torch.from_numpy(table.desirable[index]),
        "num_tokens": (batch["weights"] != 0).sum(-1).float(),
        **{name: _floats(values[index]) for name, values in floats.items()},
    }


def _floats(values: FloatArray | IntArray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32))
