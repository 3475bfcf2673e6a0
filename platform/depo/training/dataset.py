"""Samples in memory for training: read from Parquet, filtered, joined with reference log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depo.config.base import ConfigError
from depo.records import content_hash

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.integer]]
FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.floating]]

_COLUMNS = [
    "id", "label", "view", "num_steps", "num_tokens",
    "token_ids", "agent_mask", "prompt_length", "kl_partner",
]  # fmt: skip


@dataclass(frozen=True)
class SampleTable:
    """Samples of one view as flat arrays; row numbers index every field but `tokens` and `mask`."""

    ids: tuple[str, ...]
    tokens: IntArray
    """All token ids one after the other; row i is `tokens[offsets[i]:offsets[i + 1]]`."""
    mask: IntArray
    """1 on the agent's own tokens, as long as `tokens`."""
    offsets: IntArray
    prompt_length: IntArray
    desirable: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    num_steps: IntArray
    num_tokens: IntArray
    partner: IntArray
    """Row of each row's KL partner; -1 where it is not in the table."""
    max_length: int
    rows: IntArray
    """The rows to train on. The others are there as KL partners only."""
    dropped: int = 0
    """Rows left out of `rows` because they are longer than `max_length`."""
    ref_logp: FloatArray | None = None
    ref_kl_logp: FloatArray | None = None

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    def sequence(self, row: int) -> tuple[IntArray, IntArray]:
        """Ids and agent mask of a row, each `[length]`."""
        span = slice(self.offsets[row], self.offsets[row + 1])
        return self.tokens[span], self.mask[span]

    def kl_sequence(self, row: int) -> tuple[IntArray, IntArray]:
        """Ids and agent mask of a row's KL pair: its own prompt, then its partner's completion.

        The partner is cut at `max_length`, as the reference cuts it.
        """
        other = int(self.partner[row])
        ids, mask = self.sequence(other)
        return kl_pair(
            *self.sequence(row),
            int(self.prompt_length[row]),
            ids[: self.max_length],
            mask[: self.max_length],
            int(self.prompt_length[other]),
        )


def kl_pair(
    ids: IntArray,
    mask: IntArray,
    prompt_length: int,
    partner_ids: IntArray,
    partner_mask: IntArray,
    partner_prompt_length: int,
) -> tuple[IntArray, IntArray]:
    """Ids and agent mask of a mismatched pair: the prompt of one sample, the completion of its partner."""
    return (
        np.concatenate([ids[:prompt_length], partner_ids[partner_prompt_length:]]),
        np.concatenate([mask[:prompt_length], partner_mask[partner_prompt_length:]]),
    )


def load_samples(path: str, view: str | None, max_length: int) -> SampleTable:
    """Read a samples file; `view` None takes every view.

    Raises `ConfigError` naming the file (and sample) where it cannot be read, holds no sample of
    the view, or holds one that has nothing to train on.
    """
    table = _read(path, _COLUMNS)
    if view is not None:
        table = table.filter(pc.equal(table["view"], view))
    if table.num_rows == 0:
        raise ConfigError(f"{path}: holds no sample of view {view!r}; annotate first or choose another view")
    return from_arrow(table, max_length, path)


def from_arrow(table: pa.Table, max_length: int, name: str = "samples") -> SampleTable:
    """A table of samples, which share one view, as arrays. Raises `ConfigError` on unusable rows."""
    ids = table["id"].to_pylist()
    number = {sample: row for row, sample in enumerate(ids)}
    if len(number) < len(ids):
        raise ConfigError(f"{name}: two samples share an id; annotate again")
    tokens, lengths = _flat(table["token_ids"])
    mask, mask_lengths = _flat(table["agent_mask"])
    if not np.array_equal(lengths, mask_lengths):
        row = int(np.flatnonzero(lengths != mask_lengths)[0])
        raise ConfigError(
            f"{name}: sample {ids[row]} has {lengths[row]} token_ids but {mask_lengths[row]} in agent_mask; "
            "annotate again"
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    _require_trainable(ids, mask, offsets, name)
    return SampleTable(
        ids=tuple(ids),
        tokens=tokens.astype(np.int64),
        mask=mask.astype(np.int64),
        offsets=offsets,
        prompt_length=_column(table, "prompt_length"),
        desirable=np.asarray(pc.equal(table["label"], "D").to_numpy(), dtype=bool),
        num_steps=_column(table, "num_steps"),
        num_tokens=_column(table, "num_tokens"),
        partner=np.array([number.get(p, -1) for p in table["kl_partner"].to_pylist()]),
        max_length=max_length,
        rows=np.flatnonzero(lengths <= max_length),
        dropped=int((lengths > max_length).sum()),
    )


def only_desirable(table: SampleTable) -> SampleTable:
    """The table with the desirable rows alone to train on."""
    return replace(table, rows=table.rows[table.desirable[table.rows]])


def balanced(table: SampleTable, seed: int) -> SampleTable:
    """As many undesirable as desirable rows to train on: the larger class loses by order of hash."""
    classes = [table.rows[table.desirable[table.rows] == wanted] for wanted in (True, False)]
    size = min(len(rows) for rows in classes)
    kept = [sorted(rows, key=lambda row: content_hash([seed, table.ids[row]]))[:size] for rows in classes]
    return replace(table, rows=np.sort(np.array([*kept[0], *kept[1]], dtype=np.int64)))


def with_reference(table: SampleTable, path: str) -> SampleTable:
    """Join reference log-probs onto the rows to train on.

    Raises `ConfigError` where one is missing or is no finite number, or a KL partner is missing.
    """
    require_partners(table, path)
    read = _read(path, ["sample_id", "ref_logp", "ref_kl_logp"])
    found = {sample: row for row, sample in enumerate(read["sample_id"].to_pylist())}
    missing = [table.ids[row] for row in table.rows if table.ids[row] not in found]
    if missing:
        raise ConfigError(
            f"{path}: no reference log-probs of {len(missing)} samples, {missing[0]} the first; "
            "run the reference stage on these samples"
        )
    joined = {}
    for name in ("ref_logp", "ref_kl_logp"):
        values = np.full(len(table.ids), np.nan)
        column = read[name].to_numpy()
        for row in table.rows:
            values[row] = column[found[table.ids[row]]]
        bad = table.rows[~np.isfinite(values[table.rows])]
        if len(bad):
            raise ConfigError(f"{path}: {name} of sample {table.ids[bad[0]]} is not finite; score it again")
        joined[name] = values
    return replace(table, ref_logp=joined["ref_logp"], ref_kl_logp=joined["ref_kl_logp"])


def training_order(
    rows: IntArray,
    batch_size: int,
    steps: int,
    seed: int,
    desirable: Sequence[bool] | np.ndarray | None = None,
    lengths: IntArray | None = None,
) -> IntArray:
    """Rows in the order of training, `[steps * batch_size]`: step s takes the s-th run of `batch_size`.

    Passes over all rows, each in a new order, follow each other without a gap, so that no batch is short.
    `desirable` (per row) spreads both labels evenly, so that every stretch has their overall shares;
    `lengths` (per row) puts rows of like length into one batch, which saves padding.
    """
    rng = np.random.default_rng(seed)
    passes = -(-steps * batch_size // len(rows))
    order = np.concatenate([_one_pass(rows, rng, desirable) for _ in range(passes)])[: steps * batch_size]
    return order if lengths is None else _grouped(order, np.asarray(lengths)[order], batch_size, rng)


def _one_pass(
    rows: IntArray, rng: np.random.Generator, desirable: Sequence[bool] | np.ndarray | None
) -> IntArray:
    if desirable is None:
        return rng.permutation(rows)
    label = np.asarray(desirable)[rows]
    classes = [rng.permutation(rows[label == wanted]) for wanted in (True, False)]
    place = np.concatenate([(np.arange(len(c)) + 0.5) / max(len(c), 1) for c in classes])
    return np.concatenate(classes)[np.argsort(place, kind="stable")]


_GROUP_BATCHES = 50


def _grouped(order: IntArray, lengths: IntArray, batch_size: int, rng: np.random.Generator) -> IntArray:
    """Sort by length inside windows of some batches, then shuffle the batches of each window."""
    window = _GROUP_BATCHES * batch_size
    grouped = []
    for start in range(0, len(order), window):
        by_length = np.argsort(lengths[start : start + window], kind="stable") + start
        batches = by_length.reshape(-1, batch_size)
        grouped.append(order[rng.permutation(batches)].reshape(-1))
    return np.concatenate(grouped)


def require_partners(table: SampleTable, name: str) -> None:
    """Raise `ConfigError` where the KL partner of a row to train on is not in the table."""
    lost = table.rows[table.partner[table.rows] < 0]
    if len(lost):
        raise ConfigError(f"{name}: the KL partner of sample {table.ids[lost[0]]} is missing; annotate again")


def _require_trainable(ids: Sequence[str], mask: IntArray, offsets: IntArray, name: str) -> None:
    # The first token of a sequence has no prediction, so it trains nothing.
    counted = mask.astype(np.int64)
    counted[offsets[:-1][np.diff(offsets) > 0]] = 0
    ends = np.concatenate([[0], np.cumsum(counted)])[offsets]
    empty = np.flatnonzero(np.diff(ends) == 0)
    if len(empty):
        raise ConfigError(
            f"{name}: sample {ids[empty[0]]} has no token of the agent's own to train on; "
            "leave such trajectories out when annotating"
        )


def _read(path: str, columns: list[str]) -> pa.Table:
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file; run the stage that writes it")
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ConfigError(f"{path}: not the Parquet file expected ({str(error).splitlines()[0]})") from None


def _flat(column: pa.ChunkedArray) -> tuple[IntArray, IntArray]:
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False), array.value_lengths().to_numpy(
        zero_copy_only=False
    )


def _column(table: pa.Table, name: str) -> IntArray:
    return table[name].to_numpy().astype(np.int64)
