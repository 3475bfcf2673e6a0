"""Pairs of a desirable and an undesirable sample of the same task, for paired objectives."""

from __future__ import annotations

import numpy as np

from depo.config.base import ConfigError
from depo.data.pairing import pair_up
from depo.training.dataset import IntArray, SampleTable


def make_pairs(table: SampleTable, per_task: int, seed: int) -> IntArray:
    """Pairs of rows to train on `[pairs, 2]`, the chosen one first, as `pair_up` chooses them.

    Raises `ConfigError` where no task has both labels.
    """
    rows = table.rows.tolist()
    tasks, ids = [table.task[row] for row in rows], [table.ids[row] for row in rows]
    pairs = pair_up(tasks, table.desirable[rows].tolist(), ids, per_task, seed)
    if not pairs:
        raise ConfigError(
            "pairs: no task has both a desirable and an undesirable sample; raise the round's "
            "search.simulations, or change the annotation's thresholds"
        )
    return table.rows[np.array(pairs, dtype=np.int64)]
