"""Replies from a transformers model inside this process, where vLLM is not installed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from depo.policies.base import Reply, Request, Sampling
from depo.policies.chat import ChatRenderer, no_room
from depo.policies.checkpoint import check_interchangeable, context_limit, load_renderer


@dataclass(frozen=True)
class _Row:
    """One reply wanted: of request `index`, with its own seed."""

    index: int
    context: tuple[int, ...]
    sampling: Sampling
    seed: int


class TransformersPolicy:
    """A saved chat model, its adapter merged, with token ids in and out.

    Every reply is drawn with a generator of its own, so it does not depend on what else is in the
    batch, rounding aside. Sibling i of a request is drawn with the request's seed + i.
    """

    def __init__(
        self,
        model_dir: str,
        name: str,
        max_model_len: int,
        dtype: str = "float32",
        num_gpus: float = 0,
        batch_size: int = 32,
    ) -> None:
        """Load the model. `max_model_len` is in tokens, prompt and reply together; a model
        with fewer positions serves those.

        Raises `ConfigError` where the tokenizer has no usable chat template.
        """
        if not num_gpus:
            torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
        self.name = name
        self.renderer: ChatRenderer = load_renderer(model_dir)
        self.tokenizer_fingerprint = self.renderer.fingerprint
        self.max_model_len = context_limit(model_dir, max_model_len)
        self._model_dir = model_dir
        self._device = torch.device("cuda" if num_gpus else "cpu")
        self._dtype = getattr(torch, dtype)
        self._batch_size = batch_size
        self._model = self._load(model_dir)

    def load(self, model_dir: str, name: str) -> None:
        """Put other weights of the same architecture and tokenizer in place.

        Raises `ConfigError` where architecture or tokenizer differ; the old weights then stay.
        """
        check_interchangeable(self._model_dir, model_dir)
        self._model = self._load(model_dir)
        self._model_dir, self.name = model_dir, name

    def sample(self, requests: Sequence[Request]) -> list[list[Reply]]:
        """Replies to a batch; malformed, empty ones where the context has no room for a reply."""
        replies: list[list[Reply]] = [[] for _ in requests]
        rows: list[_Row] = []
        for index, request in enumerate(requests):
            context = self.renderer.context(request.system, request.history, request.observation)
            if len(context) + request.sampling.max_tokens > self.max_model_len:
                replies[index] = [no_room(len(context))] * request.n
            else:
                seeds = range(request.seed, request.seed + request.n)
                rows += [_Row(index, context, request.sampling, seed) for seed in seeds]
        for batch in _batches(rows, self._batch_size):
            for row, (ids, logprob) in zip(batch, self._generate(batch), strict=True):
                replies[row.index].append(self.renderer.read(ids, len(row.context), logprob))
        return replies

    def _load(self, model_dir: str) -> nn.Module:
        model: nn.Module = AutoModelForCausalLM.from_pretrained(model_dir, dtype=self._dtype)
        return model.to(self._device).eval()

    @torch.inference_mode()
    def _generate(self, rows: list[_Row]) -> list[tuple[tuple[int, ...], float]]:
        """Ids and summed log-prob (temperature 1) of a reply to each row; contexts padded on the left."""
        width = max(len(row.context) for row in rows)
        end = self.renderer.end_of_turn
        ids = [[end] * (width - len(row.context)) + list(row.context) for row in rows]
        mask = [[0] * (width - len(row.context)) + [1] * len(row.context) for row in rows]
        inputs = torch.tensor(ids, device=self._device)
        attention = torch.tensor(mask, device=self._device)
        positions = (attention.cumsum(1) - 1).clamp(min=0)
        generators = [torch.Generator().manual_seed(row.seed) for row in rows]
        replies: list[list[int]] = [[] for _ in rows]
        logprobs = [0.0] * len(rows)
        going = set(range(len(rows)))
        cache = None
        while going:
            output = self._model(
                input_ids=inputs,
                attention_mask=attention,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            scores = output.logits[:, -1].float().cpu()
            chosen = [end] * len(rows)
            for i in sorted(going):
                chosen[i] = _draw(scores[i], rows[i].sampling, generators[i])
                replies[i].append(chosen[i])
                logprobs[i] += float(scores[i, chosen[i]] - scores[i].logsumexp(0))
                if chosen[i] == end or len(replies[i]) == rows[i].sampling.max_tokens:
                    going.discard(i)
            inputs = torch.tensor(chosen, device=self._device)[:, None]
            attention = torch.cat([attention, attention.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return [(tuple(reply), logprob) for reply, logprob in zip(replies, logprobs, strict=True)]


def _draw(scores: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token id from logits `scores` [vocab]."""
    if sampling.temperature == 0:
        return int(scores.argmax())
    probabilities = (scores / sampling.temperature).softmax(0)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        beyond = ordered.cumsum(0) - ordered >= sampling.top_p
        probabilities = probabilities.index_fill(0, order[beyond], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _batches(rows: list[_Row], size: int) -> Iterator[list[_Row]]:
    """`rows` in batches of similar context length; siblings keep their order."""
    ordered = sorted(rows, key=lambda row: len(row.context))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]
