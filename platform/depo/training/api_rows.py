"""TRL's data sets as tables of samples, and as the rows that its trainer shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from trl.data_utils import maybe_extract_prompt, maybe_unpair_preference_dataset

from depo.config.base import ConfigError
from depo.config.method import MethodConfig
from depo.records import SAMPLE_SCHEMA, ReferenceLogProbs, Sample, to_table
from depo.training.api_config import DEPOConfig
from depo.training.collator import PreferenceCollator
from depo.training.conversations import samples_of
from depo.training.dataset import SampleTable, from_arrow
from depo.training.loading import trained, with_bonus

_log = logging.getLogger(__name__)

# No length that a row could have.
_ENDLESS = 2**31 - 1


def make_table(
    data: Any,
    name: str,
    tokenizer: Any,
    args: DEPOConfig,
    method: MethodConfig,
    collator: Any = None,
    most: int | None = None,
) -> SampleTable:
    """The rows of a data set as a table with their bonus; of a stream the first `most`.

    A `collator` sees each row by itself, as `prompt_ids` and `completion_ids`: what it keeps and masks is
    what is trained. Raises `ConfigError` naming the row that cannot be read or has nothing to train on.
    """
    if isinstance(data, IterableDataset):
        data = Dataset.from_list(list(islice(data, most)))
    if not isinstance(data, Dataset):
        raise ConfigError(f"{name}: is a {type(data).__name__}; give a datasets.Dataset or IterableDataset")
    if not len(data):
        raise ConfigError(f"{name}: holds no row")
    if {"chosen", "rejected"} <= {*data.column_names}:
        data = maybe_unpair_preference_dataset(data.map(maybe_extract_prompt))
    samples = samples_of(data.to_list(), tokenizer, name, args.seed)
    if collator is not None:
        samples = [_collated(sample, collator) for sample in samples]
    longest = args.max_length or _ENDLESS
    rows = to_table(samples, SAMPLE_SCHEMA)
    table = from_arrow(rows, longest, "data", args.too_long, trained(method))  # type: ignore[arg-type]
    if not len(table.rows):
        raise ConfigError(f"{name}: all {table.dropped} rows are longer than max_length={longest}; raise it")
    if table.dropped:
        _log.warning("%s: %d rows are longer than max_length=%d and left out", name, table.dropped, longest)
    return with_bonus(table, method)


def shown_rows(table: SampleTable, first: int) -> Dataset:
    """The rows to train on as TRL shows them; `row` counts from `first`."""
    spans = [table.span(row) for row in table.rows]
    starts = [span.start + int(table.prompt_length[row]) for span, row in zip(spans, table.rows, strict=True)]
    return Dataset.from_dict(
        {
            "prompt_ids": [table.tokens[s.start : a] for s, a in zip(spans, starts, strict=True)],
            "completion_ids": [table.tokens[a : s.stop] for s, a in zip(spans, starts, strict=True)],
            "completion_mask": [table.own[a : s.stop] for s, a in zip(spans, starts, strict=True)],
            "num_steps": table.num_steps[table.rows],
            "label": table.desirable[table.rows],
            "row": table.rows + first,
        }
    )


def shows(data: Any, table: SampleTable) -> bool:
    """Whether a data set is made of rows of `shown_rows`, of this very table."""
    if not isinstance(data, Dataset) or not {"row", "prompt_ids", "completion_ids"} <= {*data.column_names}:
        return False
    return all(
        row["row"] < len(table.ids)
        and row["prompt_ids"] + row["completion_ids"] == table.tokens[table.span(row["row"])].tolist()
        for row in data
    )


def join_reference(table: SampleTable, scored: Iterable[ReferenceLogProbs]) -> SampleTable:
    """The table with the weighted sums of its rows' reference log-probs; rows not scored get NaN."""
    row_of = {sample: row for row, sample in enumerate(table.ids)}
    sums = np.full((2, len(table.ids)), np.nan)
    for one in scored:
        row = row_of[one.sample_id]
        own, pair = table.span(row), table.kl_part(table.own, row) != 0
        mine = table.own[own] != 0
        sums[0, row] = table.weights[own][mine].astype(np.float64) @ np.array(one.logps)
        sums[1, row] = table.kl_part(table.weights, row)[pair].astype(np.float64) @ np.array(one.kl_logps)
    return replace(table, ref_logp=sums[0], ref_kl_logp=sums[1])


class ShowingCollator(PreferenceCollator):
    """Batches that hold what TRL's hold beside what a step reads."""

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super().__call__(items)
        place = torch.arange(batch["input_ids"].shape[1])
        return batch | {
            "attention_mask": (place < batch["lengths"][:, None]).long(),
            "completion_mask": (batch["weights"] != 0).long(),
            "label": batch["desirable"],
        }


def _collated(sample: Sample, collator: Callable[[Sequence[Any]], Any]) -> Sample:
    ids, start = list(sample.token_ids), sample.prompt_length
    shown = {"prompt_ids": ids[:start], "completion_ids": ids[start:], "label": sample.label == "D"}
    try:
        batch = collator([shown])
        kept, mask = batch["input_ids"][0].tolist(), batch["completion_mask"][0].tolist()
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            "data_collator: has to make input_ids and completion_mask of prompt_ids and completion_ids "
            f"({type(error).__name__}: {error}); leave it out"
        ) from None
    if "attention_mask" in batch:
        size = int(batch["attention_mask"][0].sum())
        kept, mask = kept[:size], mask[:size]
    if kept != ids[: len(kept)]:
        raise ConfigError(
            f"data_collator: makes other tokens of {sample.id} than the row has; it may cut and mask only"
        )
    own = tuple(mark * bool(chosen) for mark, chosen in zip(sample.agent_mask, mask, strict=False))
    return replace(sample, token_ids=tuple(kept), agent_mask=own, prompt_length=min(start, len(kept)))
