"""Decoding a batch that rows join and leave as they come, on a transformers model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from depo.policies.base import Sampling


@dataclass(eq=False)
class Row:
    """One reply under way."""

    context: tuple[int, ...]
    sampling: Sampling
    generator: torch.Generator
    ids: list[int] = field(default_factory=list)
    """Generated so far."""
    logprob: float = 0.0
    """Sum over `ids`, at temperature 1."""


class Batch:
    """Rows decoded together, one token a step; contexts are padded on the left.

    A row that has ended leaves at once, and its place is free for the next.
    """

    def __init__(self, model: nn.Module, stops: frozenset[int], pad: int, device: torch.device) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._stops = stops
        self._pad = pad
        self._device = device
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device)
        """[row, position]: 1 where the cache holds a token of the row."""

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> list[Row]:
        """Read the contexts of `rows`, each distinct one once, and draw a first token for all; those
        that ended with it."""
        contexts = list(dict.fromkeys(row.context for row in rows))
        width = max(map(len, contexts))
        ids = torch.tensor([[self._pad] * (width - len(c)) + list(c) for c in contexts], device=self._device)
        mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=self._device)
        cache = DynamicCache()
        scores = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), cache)
        own = torch.tensor([contexts.index(row.context) for row in rows], device=self._device)
        cache.batch_select_indices(own)
        ended = self._draw(rows, scores[own.cpu()])
        self._merge(cache, mask[own])
        self.rows += rows
        return self._drop(ended)

    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Draw one more token for every row; those that ended with it."""
        positions = self._mask.sum(1, keepdim=True)
        last = torch.tensor([[row.ids[-1]] for row in self.rows], device=self._device)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
        scores = self._forward(last, self._mask, positions, self._cache)
        return self._drop(self._draw(self.rows, scores))

    def remove(self, rows: Sequence[Row]) -> None:
        """Give up rows under way."""
        self._drop([row for row in rows if row in self.rows])

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Logits [row, vocab] of the next token, on the CPU."""
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1].float().cpu()

    def _draw(self, rows: Sequence[Row], scores: torch.Tensor) -> list[Row]:
        """Append a token to each row; those that ended with it."""
        for row, mine in zip(rows, scores, strict=True):
            token = draw(mine, row.sampling, row.generator)
            row.ids.append(token)
            row.logprob += float(mine[token] - mine.logsumexp(0))
        return [row for row in rows if row.ids[-1] in self._stops or len(row.ids) == row.sampling.max_tokens]

    def _merge(self, cache: DynamicCache, mask: torch.Tensor) -> None:
        """Put rows beside those here, the narrower of the two padded on the left."""
        if not self.rows:
            self._cache, self._mask = cache, mask
            return
        width = max(mask.shape[1], self._mask.shape[1])
        self._mask = torch.cat([_widened(self._mask, width, 1), _widened(mask, width, 1)])
        for here, new in zip(_layers(self._cache), _layers(cache), strict=True):
            here.keys = torch.cat([_widened(here.keys, width, 2), _widened(new.keys, width, 2)])
            here.values = torch.cat([_widened(here.values, width, 2), _widened(new.values, width, 2)])

    def _drop(self, ended: list[Row]) -> list[Row]:
        """Take rows out, and the columns that none of the others needs."""
        if not ended:
            return ended
        kept = [i for i, row in enumerate(self.rows) if row not in ended]
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self._cache, self._mask = DynamicCache(), self._mask[:0, :0]
            return ended
        index = torch.tensor(kept, device=self._device)
        self._mask = self._mask[index]
        self._cache.batch_select_indices(index)
        unused = self._mask.shape[1] - int(self._mask.sum(1).max())
        if unused:
            self._mask = self._mask[:, unused:]
            for layer in _layers(self._cache):
                layer.keys, layer.values = layer.keys[:, :, unused:], layer.values[:, :, unused:]
        return ended


def draw(scores: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token id from logits `scores` [vocab]."""
    if sampling.temperature == 0:
        return int(scores.argmax())
    probabilities = (scores / sampling.temperature).softmax(0)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(0) - ordered >= sampling.top_p
        probabilities = probabilities.index_fill(0, order[beyond], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _layers(cache: DynamicCache) -> list[Any]:
    """With `keys` and `values` [row, head, position, size] each."""
    return list(cache.layers)


def _widened(tensor: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """`tensor` with zeros on the left of `dim`, up to `width`."""
    shape = list(tensor.shape)
    shape[dim] = width - shape[dim]
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim) if shape[dim] else tensor
