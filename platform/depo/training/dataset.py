"""Samples in memory for training: read from Parquet, filtered, cut, joined with reference log-probs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from depo.config.base import ConfigError
from depo.records import content_hash, version_problem
from depo.training.weights import Trained, cut_lengths, has_weight, trained_weights

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.integer]]
FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.floating]]
BoolArray = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
Array = TypeVar("Array", IntArray, FloatArray)
TooLong = Literal["drop", "cut"]

_COLUMNS = [
    "id", "task_id", "level", "label", "view", "reward", "num_steps", "num_tokens",
    "token_ids", "agent_mask", "prompt_length", "kl_partner",
]  # fmt: skip


@dataclass(frozen=True)
class SampleTable:
    """Samples of one view as flat arrays; row numbers index every field but `tokens`, `own`, `weights`."""

    ids: tuple[str, ...]
    tokens: IntArray
    """All token ids one after the other; row i is `tokens[offsets[i]:offsets[i + 1]]`."""
    own: IntArray
    """`Sample.agent_mask` of each token: 0 not the agent's, 1 its thought, 2 its action."""
    weights: FloatArray
    """Weight of each token's log-prob, float32, as long as `tokens`: 0 where nothing is trained."""
    offsets: IntArray
    prompt_length: IntArray
    desirable: BoolArray
    num_steps: IntArray
    """Steps of the whole trajectory, whatever is trained on."""
    num_tokens: IntArray
    """Own tokens of the whole trajectory, whatever is trained on, end-of-turns excluded."""
    partner: IntArray
    """Row of each row's KL partner; -1 where it is not in the table."""
    max_length: int
    rows: IntArray
    """The rows to train on. The others are there as KL partners only."""
    reward: FloatArray
    """Return of each trajectory."""
    task: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    dropped: int = 0
    """Rows left out of `rows` because they are longer than `max_length`."""
    cut: int = 0
    """Rows cut at the last end of a turn within `max_length`."""
    bonus: FloatArray | None = None
    """Efficiency bonus of each row, 0 outside `rows`; see `depo.objectives.bonus.sample_bonus`."""
    ref_logp: FloatArray | None = None
    """Sum of `weights` times the reference's log-probs (nats); NaN outside `rows`."""
    ref_kl_logp: FloatArray | None = None
    """The same of each row's KL pair."""

    @property
    def lengths(self) -> IntArray:
        return np.diff(self.offsets)

    @property
    def kl_lengths(self) -> IntArray:
        """Length of each row's KL pair, that of its prompt where the partner is missing."""
        completion = (self.lengths - self.prompt_length)[np.maximum(self.partner, 0)]
        whole = self.prompt_length + np.where(self.partner < 0, 0, completion)
        return np.minimum(whole, self.max_length)

    def span(self, row: int) -> slice:
        """Where a row lies in `tokens`, `own` and `weights`."""
        return slice(self.offsets[row], self.offsets[row + 1])

    def sequence(self, row: int) -> tuple[IntArray, FloatArray]:
        """Ids and weights of a row, each `[length]`."""
        return self.tokens[self.span(row)], self.weights[self.span(row)]

    def kl_sequence(self, row: int) -> tuple[IntArray, FloatArray]:
        """Ids and weights of a row's KL pair: its own prompt, then its partner's completion.

        The pair is cut at `max_length` where it is longer.
        """
        return self.kl_part(self.tokens, row), self.kl_part(self.weights, row)

    def kl_part(self, flat: Array, row: int) -> Array:
        """What stands in `flat` (`tokens`, `own` or `weights`) along a row's KL pair."""
        other = int(self.partner[row])
        start, end = self.offsets[row], self.offsets[row] + self.prompt_length[row]
        completion = flat[self.offsets[other] + self.prompt_length[other] : self.offsets[other + 1]]
        return np.concatenate([flat[start:end], completion])[: self.max_length]


def load_samples(
    path: str,
    view: str | None,
    max_length: int,
    too_long: TooLong = "drop",
    trained: Trained = Trained(),  # noqa: B008
) -> SampleTable:
    """Read a samples file; `view` None takes every view.

    Raises `ConfigError` naming the file (and sample) where it cannot be read, is of another schema
    version, holds no sample of the view, or holds one that has nothing to train on.
    """
    table = _read(path, _COLUMNS, "Sample")
    if view is not None:
        table = table.filter(pc.equal(table["view"], view))
    if table.num_rows == 0:
        raise ConfigError(f"{path}: holds no sample of view {view!r}; annotate first or choose another view")
    return from_arrow(table, max_length, path, too_long, trained)


def from_arrow(
    table: pa.Table,
    max_length: int,
    name: str = "samples",
    too_long: TooLong = "drop",
    trained: Trained = Trained(),  # noqa: B008
) -> SampleTable:
    """A table of samples, which share one view, as arrays. Raises `ConfigError` on unusable rows."""
    ids = table["id"].to_pylist()
    number = {sample: row for row, sample in enumerate(ids)}
    if len(number) < len(ids):
        raise ConfigError(f"{name}: two samples share an id; annotate again")
    tokens, lengths = flat(table["token_ids"])
    own, mask_lengths = flat(table["agent_mask"])
    if not np.array_equal(lengths, mask_lengths):
        row = int(np.flatnonzero(lengths != mask_lengths)[0])
        raise ConfigError(
            f"{name}: sample {ids[row]} has {lengths[row]} token_ids but {mask_lengths[row]} in agent_mask; "
            "annotate again"
        )
    own = _without_first(own.astype(np.int64), lengths)
    kept = lengths if too_long == "drop" else cut_lengths(own, lengths, max_length)
    inside = _inside(lengths, kept)
    tokens, own, offsets = (
        tokens[inside].astype(np.int64),
        own[inside],
        np.concatenate([[0], np.cumsum(kept)]),
    )
    weights = trained_weights(own, offsets, trained)
    rows = np.flatnonzero(kept <= max_length)
    _require_trainable(ids, rows, weights, offsets, f"{name}: ", trained)
    return SampleTable(
        ids=tuple(ids),
        tokens=tokens,
        own=own,
        weights=weights,
        offsets=offsets,
        prompt_length=_column(table, "prompt_length"),
        desirable=np.asarray(pc.equal(table["label"], "D").to_numpy(), dtype=bool),
        num_steps=_column(table, "num_steps"),
        num_tokens=_column(table, "num_tokens"),
        partner=np.array([number.get(p, -1) for p in table["kl_partner"].to_pylist()], dtype=np.int64),
        max_length=max_length,
        rows=rows,
        reward=table["reward"].to_numpy().astype(np.float64),
        task=tuple(table["task_id"].to_pylist()),
        level=tuple(table["level"].to_pylist()),
        dropped=len(ids) - len(rows),
        cut=int((kept[rows] < lengths[rows]).sum()),
    )


def joined(first: SampleTable, second: SampleTable) -> SampleTable:
    """Both tables' rows, the second's behind; KL partners stay within each, the first's are trained on."""
    shift, tokens = len(first.ids), first.offsets[-1]
    flat_fields = (
        "tokens", "own", "weights", "prompt_length", "desirable", "num_steps", "num_tokens", "reward",
        "bonus", "ref_logp", "ref_kl_logp",
    )  # fmt: skip
    both: Any = {name: (getattr(first, name), getattr(second, name)) for name in flat_fields}
    both = {name: None if b is None else np.concatenate([a, b]) for name, (a, b) in both.items()}
    return replace(
        first,
        ids=first.ids + second.ids,
        offsets=np.concatenate([first.offsets, second.offsets[1:] + tokens]),
        partner=np.concatenate([first.partner, np.where(second.partner < 0, -1, second.partner + shift)]),
        task=first.task + second.task,
        level=first.level + second.level,
        **both,
    )


def share_of_tasks(table: SampleTable, share: float, seed: int) -> SampleTable:
    """The rows of a share of the tasks to train on, rounded up to whole tasks.

    Tasks are taken in the order of a hash, so that a smaller share is part of a larger one. The other rows
    stay in the table, where KL partners are looked up.
    """
    if share >= 1:
        return table
    tasks = sorted({table.task[row] for row in table.rows}, key=lambda task: content_hash([seed, task]))
    kept = set(tasks[: math.ceil(share * len(tasks))])
    return replace(table, rows=np.array([row for row in table.rows if table.task[row] in kept], np.int64))


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
    """Join reference log-probs onto the rows to train on, weighted as the table weighs its tokens.

    Raises `ConfigError` where one is missing, does not fit its sample or is no finite number, or a KL
    partner is missing.
    """
    require_partners(table, path)
    read = _read(path, ["sample_id", "logps", "kl_logps"], "ReferenceLogProbs")
    found = {sample: row for row, sample in enumerate(read["sample_id"].to_pylist())}
    missing = [table.ids[row] for row in table.rows if table.ids[row] not in found]
    if missing:
        raise ConfigError(
            f"{path}: no reference log-probs of {len(missing)} samples, {missing[0]} the first; "
            "run the reference stage on these samples"
        )
    sums = {}
    for name in ("logps", "kl_logps"):
        values, lengths = flat(read[name])
        ends = np.concatenate([[0], np.cumsum(lengths)])
        sums[name] = np.full(len(table.ids), np.nan)
        for row in table.rows:
            at = found[table.ids[row]]
            sums[name][row] = _weighted(table, row, name, values[ends[at] : ends[at + 1]], path)
    return replace(table, ref_logp=sums["logps"], ref_kl_logp=sums["kl_logps"])


def require_partners(table: SampleTable, name: str) -> None:
    """Raise `ConfigError` where the KL partner of a row to train on is not in the table."""
    lost = table.rows[table.partner[table.rows] < 0]
    if len(lost):
        raise ConfigError(f"{name}: the KL partner of sample {table.ids[lost[0]]} is missing; annotate again")


def flat(column: pa.ChunkedArray) -> tuple[np.ndarray, IntArray]:
    """All elements of a column of lists, and how many each list has."""
    array = column.combine_chunks()
    return array.flatten().to_numpy(zero_copy_only=False), array.value_lengths().to_numpy(
        zero_copy_only=False
    ).astype(np.int64)


def _weighted(table: SampleTable, row: int, name: str, logps: FloatArray, path: str) -> float:
    """Weighted sum of a row's reference log-probs, which stand for its own tokens in order."""
    if name == "logps":
        own, weights = table.own[table.span(row)], table.weights[table.span(row)]
    else:
        own, weights = table.kl_part(table.own, row), table.kl_part(table.weights, row)
    chosen = weights[own != 0].astype(np.float64)
    if len(chosen) != len(logps):
        raise ConfigError(
            f"{path}: {name} of sample {table.ids[row]} has {len(logps)} values for {len(chosen)} own "
            "tokens; run the reference stage on these samples"
        )
    if not np.isfinite(logps).all():
        raise ConfigError(f"{path}: {name} of sample {table.ids[row]} is not finite; score it again")
    return float(chosen @ logps.astype(np.float64))


def _without_first(own: IntArray, lengths: IntArray) -> IntArray:
    """The mask with 0 on each sequence's first token, which has no prediction."""
    own[(np.cumsum(lengths) - lengths)[lengths > 0]] = 0
    return own


def _inside(lengths: IntArray, kept: IntArray) -> BoolArray:
    """Which tokens stay when each sequence keeps its first `kept`."""
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return place < np.repeat(kept, lengths)


def _require_trainable(
    ids: list[str], rows: IntArray, weights: FloatArray, offsets: IntArray, name: str, trained: Trained
) -> None:
    empty = rows[~has_weight(weights, offsets)[rows]]
    if not len(empty):
        return
    what, mend = "token of the agent's own", "leave such trajectories out when annotating"
    if trained.tokens != "all":
        what = f"{what} that trained_tokens={trained.tokens!r} trains on"
        mend = f"{mend}, or set trained_tokens to 'all'"
    raise ConfigError(f"{name}sample {ids[empty[0]]} has no {what}; {mend}")


def _read(path: str, columns: list[str], record: str) -> pa.Table:
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file; run the stage that writes it")
    try:
        problem = version_problem(pq.read_schema(path).metadata, record)
        if problem:
            raise ConfigError(f"{path}: {problem}")
        return pq.read_table(path, columns=columns)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ConfigError(f"{path}: not the Parquet file expected ({str(error).splitlines()[0]})") from None


def _column(table: pa.Table, name: str) -> IntArray:
    return table[name].to_numpy().astype(np.int64)
