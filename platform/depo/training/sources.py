"""Where a training takes its samples, tokenizer and weights from: files, or what was read of them before."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from depo.identity import files_hash, located, model_hash
from depo.policies.checkpoint import load_tokenizer
from depo.training.checks import padded
from depo.training.dataset import SampleTable
from depo.training.loading import for_method, load_rows, load_table, trained
from depo.training.spec import TrainSpec


class Sources:
    """Reads the files each time."""

    def table(self, spec: TrainSpec) -> SampleTable:
        """As `load_table`, whose errors it raises."""
        return load_table(spec)

    def tokenizer(self, model_dir: str, chat_template: str | None = None) -> Any:
        """The tokenizer of a saved model, as `load_tokenizer` gives it, with a padding token."""
        return padded(load_tokenizer(model_dir, chat_template))

    def model(self, model_dir: str, dtype: str, frozen: bool) -> Any:
        """A saved model; one that is `frozen` is to have its weights unchanged, adapters aside."""
        return AutoModelForCausalLM.from_pretrained(located(model_dir), dtype=getattr(torch, dtype))


class KeptSources(Sources):
    """Keeps one table, one tokenizer and one model for the next training of this process.

    Each is known by all that it was made of. Frozen models share their weights and nothing else, so that a
    training cannot tell whether another came before it. Not for weights that ZeRO shards.
    """

    def __init__(self) -> None:
        self._table: tuple[object, SampleTable] | None = None
        self._tokenizer: tuple[object, Any] | None = None
        self._model: tuple[object, Any] | None = None

    def table(self, spec: TrainSpec) -> SampleTable:
        key = _table_key(spec)
        if self._table is None or self._table[0] != key:
            self._table = (key, load_rows(spec))
        return for_method(self._table[1], spec)

    def tokenizer(self, model_dir: str, chat_template: str | None = None) -> Any:
        key = (model_dir, model_hash(model_dir), files_hash(chat_template or ""))
        if self._tokenizer is None or self._tokenizer[0] != key:
            self._tokenizer = (key, super().tokenizer(model_dir, chat_template))
        return self._tokenizer[1]

    def model(self, model_dir: str, dtype: str, frozen: bool) -> Any:
        key = (model_dir, model_hash(model_dir), dtype)
        if self._model is None or self._model[0] != key:
            if not frozen:
                return super().model(model_dir, dtype, frozen)
            self._model = None  # two at a time may be too much
            self._model = (key, super().model(model_dir, dtype, frozen))
        model = self._model[1]
        if frozen:
            return copy.deepcopy(model, {id(weight): weight for weight in model.parameters()})
        return copy.deepcopy(model).requires_grad_(True)


def _table_key(spec: TrainSpec) -> object:
    """All that `load_rows` reads."""
    method = spec.method
    drawn = method.seed if method.balance or method.data_fraction < 1 else None
    return (
        model_hash(spec.model_dir), spec.samples, files_hash(spec.samples), files_hash(spec.reference or ""),
        spec.max_length, spec.too_long, method.objective, method.view, trained(method), method.balance,
        method.data_fraction, drawn,
    )  # fmt: skip
