"""The gradient audit: which samples an objective trains on, and how hard.

Everything is computed from sums, which add over micro-batches and over ranks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from depo.config.method import Kind

SATURATED_MARGIN = 4.0
"""A sigmoid's slope at this argument is a fourteenth of its largest."""


def correlation_sums(x: Tensor, y: Tensor) -> Tensor:
    """Sums behind the correlation of two quantities `[batch]`: n, x, y, x*x, y*y, x*y, float64 `[6]`."""
    x, y = x.detach().double(), y.detach().double()
    return torch.stack(
        [torch.ones_like(x).sum(), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]
    )


def correlation(sums: Tensor) -> float:
    """Pearson correlation from `correlation_sums`, added up; NaN where a quantity does not vary.

    Sums must have stayed in float64: a correlation is what is left when large numbers cancel.
    """
    n, x, y, xx, yy, xy = sums.double().tolist()
    if n < 2:
        return math.nan
    variances = (n * xx - x * x, n * yy - y * y)
    # Below this the variance is rounding error of its two terms.
    if any(v <= 1e-12 * n * square for v, square in zip(variances, (xx, yy), strict=True)):
        return math.nan
    return (n * xy - x * y) / math.sqrt(variances[0] * variances[1])


def saturated(margin: Tensor, kind: Kind) -> Tensor:
    """Whether each sample or pair `[batch]` (bool) hardly pulls any more, whatever is done to it.

    An unpaired loss is flat on both sides of the sigmoid, a paired one, its logarithm, only
    where the pair is well apart already.
    """
    return (margin if kind == "paired" else margin.abs()) > SATURATED_MARGIN
