"""What the steps of a training are made of: rows of a table or pairs of them, weighted and in order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from depo.config.base import ConfigError
from depo.config.method import MethodConfig
from depo.objectives.registry import Objective, Scores, objective
from depo.training.dataset import FloatArray, IntArray, SampleTable
from depo.training.loading import load_pairs
from depo.training.order import training_order


@dataclass(frozen=True)
class TrainingRows:
    """What the steps of a training are made of."""

    table: SampleTable
    pairs: IntArray | None
    """For paired objectives, `[pairs, 2]` rows of the table."""
    sample_weights: FloatArray | None
    """For supervised objectives, the weight of each row of the table."""

    @property
    def count(self) -> int:
        """Samples, or pairs, of one pass over the data."""
        return len(self.table.rows) if self.pairs is None else len(self.pairs)

    def order(self, method: MethodConfig, steps: int) -> IntArray:
        """The rows (of a paired objective: the numbers of the pairs) in the order of training."""
        lengths = self.table.lengths
        if self.pairs is not None:
            longest = lengths[self.pairs].max(axis=1)
            numbers = np.arange(self.count)
            return training_order(numbers, method.batch_size, steps, method.seed, lengths=longest)
        desirable = self.table.desirable if self.sample_weights is None else None
        return training_order(
            self.table.rows, method.batch_size, steps, method.seed, desirable=desirable, lengths=lengths
        )


def training_rows(table: SampleTable, method: MethodConfig) -> TrainingRows:
    """The rows, pairs and weights by which `method` trains on a table of `load_table`.

    Raises `ConfigError` where no task has a pair, or no sample a weight.
    """
    wanted = objective(method.objective)
    if wanted.kind == "paired":
        return TrainingRows(table, load_pairs(table, method), None)
    if wanted.kind == "unpaired":
        return TrainingRows(table, None, None)
    weights = _sample_weights(table, method, wanted)
    kept = table.rows[weights[table.rows] > 0]
    if not len(kept):
        raise ConfigError(
            f"{method.objective}: every sample has weight 0; change weighting, token_budget or token_penalty"
        )
    return TrainingRows(replace(table, rows=kept), None, weights)


def _sample_weights(table: SampleTable, method: MethodConfig, wanted: Objective) -> FloatArray:
    nothing = torch.zeros(len(table.ids), dtype=torch.float64)
    scores = Scores(
        logp=nothing,
        ref_logp=nothing,
        desirable=torch.from_numpy(table.desirable),
        bonus=nothing if table.bonus is None else torch.from_numpy(table.bonus),
        num_tokens=torch.from_numpy(_trained_tokens(table)).double(),
        num_steps=torch.from_numpy(table.num_steps).double(),
        reward=torch.from_numpy(table.reward),
        length=torch.from_numpy(table.num_tokens).double(),
    )
    return wanted.loss(scores, method).float().numpy()


def _trained_tokens(table: SampleTable) -> IntArray:
    return np.diff(np.concatenate([[0], np.cumsum(table.weights != 0)])[table.offsets])
