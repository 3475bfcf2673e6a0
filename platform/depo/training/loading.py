"""The data of a training, as its method asks for it; whatever does not serve is refused in one line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from depo.config.base import ConfigError
from depo.config.schema import MethodConfig
from depo.data.store import TOKENIZER_KEY
from depo.objectives.bonus import sample_bonus
from depo.objectives.registry import objective
from depo.policies.checkpoint import load_renderer
from depo.training import dataset
from depo.training.dataset import IntArray, SampleTable
from depo.training.pairs import make_pairs
from depo.training.spec import TrainSpec
from depo.training.weights import Trained


def load_table(spec: TrainSpec) -> SampleTable:
    """The samples a training reads, with bonus, and with the reference where its objective needs one.

    Raises `ConfigError` where they do not serve: of another tokenizer, chat template or schema version,
    without a token to train on, of one class, fewer than a batch, or without their reference.
    """
    return for_method(load_rows(spec), spec)


def for_method(table: SampleTable, spec: TrainSpec) -> SampleTable:
    """A table of `load_rows`, checked and with the bonus: what settings change beside the rows."""
    _require_batch(table, spec, paired=objective(spec.method.objective).kind == "paired")
    return with_bonus(table, spec.method)


def load_rows(spec: TrainSpec) -> SampleTable:
    """The rows a training takes its steps from, with the reference where its objective needs one."""
    method, wanted = spec.method, objective(spec.method.objective)
    require_tokenizer(spec.samples, spec.model_dir, spec.chat_template)
    table = dataset.load_samples(spec.samples, method.view, spec.max_length, spec.too_long, trained(method))
    table = dataset.share_of_tasks(table, method.data_fraction, method.seed)
    if wanted.desirable_only:
        table = dataset.only_desirable(table)
    _require_classes(table, spec, both=wanted.kind != "supervised" and not wanted.desirable_only)
    if method.balance:
        table = dataset.balanced(table, method.seed)
    if not wanted.needs_reference:
        return table
    if spec.reference is None:
        raise ConfigError(f"{method.objective}: needs reference log-probs; run the reference stage first")
    return dataset.with_reference(table, spec.reference)


def load_pairs(table: SampleTable, method: MethodConfig) -> IntArray:
    """The pairs (chosen row, rejected row) that a paired method trains on, `[pairs, 2]`."""
    return make_pairs(table, method.pairs_per_task, method.seed)


def trained(method: MethodConfig) -> Trained:
    """What a method trains on."""
    return Trained(
        method.trained_tokens, method.turn_discount if objective(method.objective).discounts_turns else None
    )


def with_bonus(table: SampleTable, method: MethodConfig) -> SampleTable:
    """The table with the efficiency bonus of the rows to train on, from their whole trajectories' counts."""
    rows = table.rows
    names = {"task": table.task, "level": table.level}.get(method.difficulty)
    group = None
    if names is not None:
        group = torch.from_numpy(np.unique(np.array(names)[rows], return_inverse=True)[1])
    steps = torch.from_numpy(table.num_steps[rows])
    tokens_per_step = torch.from_numpy(table.num_tokens[rows]) / steps.clamp(min=1)
    desirable = torch.from_numpy(table.desirable[rows])
    bonus = np.zeros(len(table.ids))
    bonus[rows] = sample_bonus(tokens_per_step.double(), steps, desirable, group, method).numpy()
    return replace(table, bonus=bonus)


def require_tokenizer(samples: str, model_dir: str, chat_template: str | None = None) -> None:
    """Raise `ConfigError` where the samples were made with another tokenizer or chat template than the
    model's. A file that does not tell is taken as it is."""
    try:
        metadata = pq.read_schema(samples).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return  # `load_samples` says what is wrong with the file
    made_with = metadata.get(TOKENIZER_KEY, b"").decode()
    if made_with and made_with != load_renderer(model_dir, chat_template).fingerprint:
        raise ConfigError(
            f"{samples}: made with another tokenizer or chat template than that of {model_dir}; annotate "
            "again with this one, or train the model that the samples are for"
        )


def _require_classes(table: SampleTable, spec: TrainSpec, both: bool) -> None:
    labels = table.desirable[table.rows]
    for wanted, name in ((True, "desirable"), (False, "undesirable")):
        if (wanted or both) and not (labels == wanted).any():
            dropped = f"; {table.dropped} are longer than max_length={table.max_length}"
            raise ConfigError(
                f"{spec.samples}: no {name} sample of view {spec.method.view!r} to train on{_of_share(spec)}"
                f"{dropped if table.dropped else ''}; change the annotation's thresholds"
            )


def _require_batch(table: SampleTable, spec: TrainSpec, paired: bool) -> None:
    """Raise `ConfigError` where a step would have to take a sample, or pair, twice."""
    method = spec.method
    count = len(load_pairs(table, method)) if paired else len(table.rows)
    if count < method.batch_size:
        raise ConfigError(
            f"{spec.samples}: {count} {'pairs' if paired else 'samples'} of view {method.view!r} to train on"
            f"{_of_share(spec)} are fewer than batch_size={method.batch_size}; generate more tasks or lower "
            "batch_size"
        )


def _of_share(spec: TrainSpec) -> str:
    share = spec.method.data_fraction
    return f" in data_fraction={share:g} of the tasks" if share < 1 else ""
