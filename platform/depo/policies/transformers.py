"""Replies from a transformers model inside this process, where vLLM is not installed."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from depo.config.base import ConfigError
from depo.policies.base import Answer, EngineDead, Reply, Request, Usage
from depo.policies.chat import ChatRenderer, no_room, require_room
from depo.policies.checkpoint import (
    check_interchangeable,
    context_limit,
    kind_of,
    load_renderer,
)
from depo.policies.transformers_batch import Batch, Row

_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(frozen=True)
class _Open:
    """A request under way, and the rows that answer it, one a reply."""

    n: int
    rows: tuple[Row, ...]


class TransformersPolicy:
    """A saved chat model, its adapter merged, with token ids in and out.

    Up to `batch_size` replies are decoded together; where one ends, the next that waits takes its
    place. Every reply is drawn with a generator of its own, so it does not depend on what else is
    in the batch, rounding aside. Sibling i of a request is drawn with the request's seed + i.
    """

    def __init__(
        self,
        model_dir: str,
        name: str,
        max_model_len: int,
        dtype: str = "float32",
        num_gpus: float = 0,
        batch_size: int = 32,
        chat_template: str | None = None,
    ) -> None:
        """Load the model. `max_model_len` is in tokens, prompt and reply together; a model
        with fewer positions serves those. `chat_template` is the file of another template than its own.

        Raises `ConfigError` where the tokenizer has no usable chat template, or the model keeps a
        state that is not keys and values.
        """
        if not num_gpus:
            torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
        self.name = name
        self.usage = Usage()
        self.renderer: ChatRenderer = load_renderer(model_dir, chat_template)
        self.tokenizer_fingerprint = self.renderer.fingerprint
        self.max_model_len = context_limit(model_dir, max_model_len)
        self._device = torch.device("cuda" if num_gpus else "cpu")
        self._dtype = getattr(torch, dtype)
        self._batch_size = batch_size
        self._open: dict[Hashable, _Open] = {}
        self._left: dict[Row, Hashable] = {}
        """Rows that have not ended, and the requests they belong to."""
        self._waiting: deque[Row] = deque()
        """Rows that are not in the batch as yet."""
        self._dead = ""
        self._ready: dict[Hashable, Answer] = {}
        self._kind = kind_of(model_dir, self.renderer, chat_template)
        self._put(model_dir)

    def load(self, model_dir: str, name: str) -> None:
        """Put other weights of the same architecture and tokenizer in place.

        Raises `ConfigError` where architecture or tokenizer differ; the old weights then stay.
        """
        check_interchangeable(self._kind, model_dir)
        if self._open:
            raise RuntimeError("requests are in flight: collect or withdraw them, then load other weights")
        self._put(model_dir)
        self.name = name

    def submit(self, key: Hashable, request: Request) -> None:
        if request.sampling.structured:
            raise ConfigError(
                "structured: transformers cannot force the form of a reply; take vLLM, or set it to false"
            )
        context = self.renderer.context(request.system, request.history, request.observation)
        try:
            room = require_room(request, len(context), self.max_model_len)
        except ValueError as error:
            self._ready[key] = Answer(key, error=error)
            return
        if not room:
            self._answer(key, [no_room(len(context))] * request.n)
            return
        rows = tuple(
            Row(context, request.sampling, torch.Generator().manual_seed(request.seed + i))
            for i in range(1 if request.sampling.temperature == 0 else request.n)
        )
        self._open[key] = _Open(request.n, rows)
        self._waiting.extend(rows)
        self._left.update((row, key) for row in rows)

    def collect(self) -> list[Answer]:
        while self._open and not self._ready:
            for row in self._advance():
                self._end(row)
        answers = list(self._ready.values())
        self._ready.clear()
        return answers

    def withdraw(self, key: Hashable) -> None:
        self._ready.pop(key, None)
        if key in self._open:
            rows = self._open.pop(key).rows
            for row in rows:
                self._left.pop(row, None)
            self._waiting = deque(row for row in self._waiting if row not in rows)
            self._batch.remove(rows)

    def close(self) -> None:
        """Forget what is in flight, and the model."""
        self._dead = self._dead or "it was closed"
        for key in list(self._open):
            self.withdraw(key)
        self._ready.clear()
        del self._batch

    def _put(self, model_dir: str) -> None:
        layers = set(
            getattr(AutoConfig.from_pretrained(model_dir).get_text_config(), "layer_types", None) or ()
        )
        if not layers <= _ATTENTION:
            raise ConfigError(
                f"{model_dir}: layers of type {', '.join(sorted(layers - _ATTENTION))}; transformers serves "
                "attention only here: set runtime.generation.engine to vllm"
            )
        model: nn.Module = AutoModelForCausalLM.from_pretrained(model_dir, dtype=self._dtype)
        ends, pad = self.renderer.ends, self.renderer.end_of_turn
        self._batch = Batch(model.to(self._device).eval(), ends, pad, self._device)

    def _advance(self) -> list[Row]:
        """Let those that wait join, or all others go on by a token; the rows that ended with it.

        Raises `EngineDead` where the model fails, such as when memory runs out.
        """
        if self._dead:
            raise EngineDead(f"the model of {self.name} is gone: {self._dead}")
        started = time.perf_counter()
        try:
            free = self._batch_size - len(self._batch.rows)
            if free and self._waiting:
                return self._batch.join(
                    [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
                )
            return self._batch.step()
        except Exception as error:
            self._dead = f"{type(error).__name__}: {error}"  # the batch is in no known state
            raise EngineDead(f"the model of {self.name} is gone: {self._dead}") from error
        finally:
            self.usage.seconds += time.perf_counter() - started

    def _end(self, row: Row) -> None:
        """Answer the request of a row that has ended, once all its rows have."""
        key = self._left.pop(row)
        opened = self._open[key]
        if any(other in self._left for other in opened.rows):
            return
        del self._open[key]
        replies = [self.renderer.read(tuple(r.ids), len(r.context), r.logprob) for r in opened.rows]
        self._answer(key, replies if len(replies) == opened.n else replies * opened.n)

    def _answer(self, key: Hashable, replies: list[Reply]) -> None:
        self._ready[key] = Answer(key, replies)
        self.usage.count(replies)
