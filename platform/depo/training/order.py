"""In which order a training takes its rows, and what that order costs in padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from depo.training.dataset import BoolArray, IntArray, SampleTable

# Steps that share out their rows by length. Few where labels matter: lengths go with labels and with
# the bonus, and a step should see most of their range.
_GROUP_STEPS, _GROUP_STEPS_LABELLED = 50, 8


def training_order(
    rows: IntArray,
    batch_size: int,
    steps: int,
    seed: int,
    desirable: Sequence[bool] | BoolArray | None = None,
    lengths: IntArray | None = None,
) -> IntArray:
    """Rows in the order of training, `[steps * batch_size]`: step s takes the s-th run of `batch_size`.

    Passes over all rows, each in a new order, follow each other without a gap, so that no batch is short.
    `desirable` (per row) spreads both labels evenly, so that every stretch has their overall shares;
    `lengths` (per row) puts rows of like length into one step, and inside a step in order of length, so
    that micro-batches hold little padding.
    """
    rng = np.random.default_rng(seed)
    passes = -(-steps * batch_size // len(rows))
    order = np.concatenate([_one_pass(rows, rng, desirable) for _ in range(passes)])[: steps * batch_size]
    if lengths is None:
        return order
    label = None if desirable is None else np.asarray(desirable)
    return _grouped(order, np.asarray(lengths), label, batch_size, rng)


def length_groups(lengths: IntArray, count: int) -> list[IntArray]:
    """Cut sequences into `count` batches with the least padding: positions in `lengths`, shortest first.

    At least `count` sequences. The number is given, since every rank has to make as many. No batch takes
    more padded tokens than the largest of `count` batches of equal numbers of rows would.
    """
    largest = -(-len(lengths) // count) * int(np.max(lengths))
    by_length = np.argsort(lengths, kind="stable")
    sizes = np.asarray(lengths)[by_length]
    # cost[end]: padded tokens of the first `end` sequences, cut into as many batches as rounds were done.
    cost = np.concatenate([[0.0], np.full(len(sizes), np.inf)])
    starts = []
    for _ in range(count):
        begin, end = np.arange(len(sizes)), np.arange(1, len(sizes) + 1)
        padded = (end[:, None] - begin[None]) * sizes[:, None]
        fits = (begin[None] < end[:, None]) & (padded <= largest)
        costs = cost[begin][None] + np.where(fits, padded, np.inf)
        starts.append(costs.argmin(axis=1))
        cost = np.concatenate([[np.inf], costs.min(axis=1)])
    groups: list[IntArray] = []
    stop = len(sizes)
    for start in reversed(starts):
        groups.append(by_length[start[stop - 1] : stop])
        stop = int(start[stop - 1])
    return groups[::-1]


def padding_share(
    table: SampleTable, order: IntArray, device_batch: int, step: int | None = None, kl_batch: int = 0
) -> float:
    """Share of padding among the tokens that a training processes, from 0 to 1.

    `order` is cut into micro-batches of `device_batch` rows. With `kl_batch`, the mean size of a pass over
    KL pairs, those of every `step` rows (default: of a micro-batch) are cut by `length_groups`.
    """
    own, pairs = table.lengths, table.kl_lengths
    batches = [own[order[at : at + device_batch]] for at in range(0, len(order), device_batch)]
    step = step or device_batch
    for at in range(0, len(order) if kl_batch else 0, step):
        lengths = pairs[order[at : at + step]]
        batches += [lengths[group] for group in length_groups(lengths, -(-len(lengths) // kl_batch))]
    padded = sum(len(batch) * int(batch.max()) for batch in batches)
    return 1 - sum(int(batch.sum()) for batch in batches) / max(padded, 1)


def _one_pass(
    rows: IntArray, rng: np.random.Generator, desirable: Sequence[bool] | BoolArray | None
) -> IntArray:
    if desirable is None:
        return rng.permutation(rows)
    label = np.asarray(desirable)[rows]
    classes = [rng.permutation(rows[label == wanted]) for wanted in (True, False)]
    return _spread(classes)


def _spread(classes: list[IntArray]) -> IntArray:
    """The classes in one row, each spread evenly over it."""
    place = np.concatenate([(np.arange(len(c)) + 0.5) / max(len(c), 1) for c in classes])
    return np.concatenate(classes)[np.argsort(place, kind="stable")]


def _grouped(
    order: IntArray, lengths: IntArray, label: BoolArray | None, batch_size: int, rng: np.random.Generator
) -> IntArray:
    """Like lengths into one step, inside windows of some steps whose steps are then shuffled.

    Each label is sorted by itself and spread again, so that steps keep their shares of both.
    """
    window = batch_size * (_GROUP_STEPS if label is None else _GROUP_STEPS_LABELLED)
    grouped = []
    for at in range(0, len(order), window):
        some = order[at : at + window]
        classes = [some] if label is None else [some[label[some]], some[~label[some]]]
        steps = _spread([c[np.argsort(lengths[c], kind="stable")] for c in classes]).reshape(-1, batch_size)
        inside = np.take_along_axis(steps, np.argsort(lengths[steps], axis=1, kind="stable"), axis=1)
        grouped.append(rng.permutation(inside).reshape(-1))
    return np.concatenate(grouped)
