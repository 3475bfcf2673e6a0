"""Replies from a vLLM engine, on the CPU or on GPUs, batched as they come."""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.config.runtime import VllmConfig
from depo.identity import model_hash
from depo.policies.base import Answer, EngineDead, Request, Sampling, Usage
from depo.policies.chat import ChatRenderer, no_room, require_room
from depo.policies.checkpoint import (
    adapter_of,
    adapter_on,
    check_interchangeable,
    context_limit,
    kind_of,
    load_renderer,
)
from depo.policies.vllm_engine import refusals, serves_adapters, start_engine
from depo.policies.vllm_lora import Adapters

REPLY_FORM = r"Thought: [^\n]*\S[^\n]*\nAction: [^\n]*\S[^\n]*"
"""What `parse_reply` reads as well-formed: one line each."""


_GAVE_UP = ("abort", "error")
"""Ends of a reply that are the engine's doing, not the policy's."""


@dataclass(frozen=True)
class _Open:
    """A request in the engine."""

    key: Hashable
    n: int
    input_tokens: int
    adapter: int
    """Id of the adapter that answers it; 0 for the engine's own weights."""


class VllmPolicy:
    """A saved chat model served by vLLM with token ids in and out.

    What is submitted between two steps of the engine joins its batch. On two cores this loop makes
    about twice the tokens of `AsyncLLM` at 1 and 32 requests in flight, with a model of a million
    weights; a core in a process of its own catches up with it at 128. Equal requests get equal
    replies on the CPU, whatever else is in flight. `Reply.logprob` stays empty: asking for it makes
    vLLM compile a kernel for a quarter of a minute in every process, and costs a tenth of the
    speed after that; nothing downstream reads it.

    An engine inside the process has it to itself: `close` ends whatever else vLLM runs there.
    """

    def __init__(
        self,
        model_dir: str,
        name: str,
        vllm: VllmConfig,
        max_model_len: int,
        dtype: str = "float32",
        seed: int = 0,
        num_gpus: float = 0,
        chat_template: str | None = None,
    ) -> None:
        """Start the engine. `max_model_len` is in tokens, prompt and reply together; a model
        with fewer positions serves those. An engine that takes adapters starts with the weights
        that `model_dir` is an adapter of, so that others of them can join it. `chat_template` is the
        file of another template than the model's own.

        Raises `ConfigError` where the tokenizer has no usable chat template, or where vLLM on the
        CPU cannot serve heads of this model's size.
        """
        by_adapter = serves_adapters(vllm, num_gpus)
        found = adapter_of(model_dir) if by_adapter else None
        base = found[1] if found is not None and Path(found[1]).is_dir() else model_dir
        self.name = name
        self.usage = Usage()
        self.renderer: ChatRenderer = load_renderer(base, chat_template)
        self.tokenizer_fingerprint = self.renderer.fingerprint
        self.max_model_len = context_limit(base, vllm.max_model_len or max_model_len)
        self._model_dir, self._kind = base, kind_of(base, self.renderer, chat_template)
        self._weights = model_hash(base)
        self._llm = start_engine(base, vllm, self.max_model_len, dtype, seed, num_gpus)
        self._engine = self._llm.llm_engine
        self._refusals = refusals()
        self._adapters = Adapters(self._engine, vllm.adapters) if by_adapter else None
        self._adapter: Any = None
        self._params = lru_cache(maxsize=64)(self._make_params)
        self._count = 0
        self._open: dict[str, _Open] = {}
        self._ids: dict[Hashable, str] = {}
        self._ready: dict[Hashable, Answer] = {}
        self._dead: Exception | None = None
        if base != model_dir:
            self.load(model_dir, name)

    def submit(self, key: Hashable, request: Request) -> None:
        context = self.renderer.context(request.system, request.history, request.observation)
        try:
            room = require_room(request, len(context), self.max_model_len)
        except ValueError as error:
            self._ready[key] = Answer(key, error=error)
            return
        if not room:
            self._ready[key] = Answer(key, [no_room(len(context))] * request.n)
            self.usage.count(self._ready[key].replies)
            return
        self._count += 1
        number = str(self._count)
        prompt = {"type": "token", "prompt_token_ids": list(context)}
        with self._timed():
            try:
                params = copy.copy(self._params(request.sampling, request.n))
                params.seed = request.seed
                self._engine.add_request(number, prompt, params, lora_request=self._adapter)
            except self._refusals as error:
                self._ready[key] = Answer(key, error=error)
                return
        adapter = self._adapter.lora_int_id if self._adapter else 0
        self._open[number] = _Open(key, request.n, len(context), adapter)
        self._ids[key] = number

    def collect(self) -> list[Answer]:
        answers = list(self._ready.values())
        self._ready.clear()
        while not answers and self._open:
            with self._timed():
                outputs = self._engine.step()
            answers = [self._answer(output) for output in outputs]
        return answers

    def withdraw(self, key: Hashable) -> None:
        self._ready.pop(key, None)
        number = self._ids.pop(key, None)
        if number is not None:
            del self._open[number]
            if self._dead is None:
                with self._timed():
                    self._engine.abort_request([number])

    def close(self) -> None:
        """Stop the engine and give its memory back; what is in flight is forgotten."""
        self._open.clear()
        self._ids.clear()
        self._ready.clear()
        if self._engine is not None:
            self._engine.engine_core.shutdown()
            self._llm = self._engine = None
        self._dead = self._dead or RuntimeError("it was closed")

    def load(self, model_dir: str, name: str) -> None:
        """Serve another policy from now on: other weights of the same architecture and tokenizer,
        or, where the engine takes adapters, an adapter of the weights it has.

        An adapter is named by its own folder, or by that of the merged policy beside it. What is
        in flight keeps its adapter; weights are exchanged only while nothing is in flight. Raises
        `ConfigError` where `model_dir` cannot be served; what was served before then stays.
        """
        if self._adapters is not None and model_hash(self._model_dir) != self._weights:
            self._exchange_weights(self._model_dir)  # other weights lie at the path of those served
        adapter = adapter_on(self._model_dir, model_dir) if self._adapters is not None else None
        if adapter is not None:
            assert self._adapters is not None
            in_use = {request.adapter for request in self._open.values()}
            with self._timed():
                self._adapter = self._adapters.add(adapter, in_use)
        else:
            if self._adapters is None or model_dir != self._model_dir:
                self._exchange_weights(model_dir)
            self._adapter = None
        self.name = name

    def _exchange_weights(self, model_dir: str) -> None:
        check_interchangeable(self._kind, model_dir)
        if self._open:
            raise RuntimeError("requests are in flight: collect or withdraw them, then load other weights")
        with self._timed():
            if self._adapters is not None:
                self._adapters.clear()
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": model_dir})
            if not self._llm.reset_prefix_cache():
                raise RuntimeError("it kept prefixes of the old weights in its cache")
        self._model_dir, self._weights = model_dir, model_hash(model_dir)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Around every use of the engine: what it raises is its end."""
        if self._dead is not None:
            raise EngineDead(f"vLLM that served {self.name} is gone: {self._dead}")
        started = time.perf_counter()
        try:
            yield
        except ConfigError:
            raise
        except Exception as error:
            self._dead = error
            reason = f"{type(error).__name__}: {error}"
            raise EngineDead(f"vLLM that served {self.name} is gone: {reason}") from error
        finally:
            self.usage.seconds += time.perf_counter() - started

    def _answer(self, output: Any) -> Answer:
        request = self._open.pop(output.request_id)
        del self._ids[request.key]
        gave_up = next((o.finish_reason for o in output.outputs if o.finish_reason in _GAVE_UP), None)
        if gave_up is not None or not output.outputs:
            error = RuntimeError(f"vLLM ended the request by itself ({gave_up or 'no output'})")
            return Answer(request.key, error=error)
        replies = [self.renderer.read(tuple(o.token_ids), request.input_tokens) for o in output.outputs]
        if len(replies) < request.n:
            replies *= request.n
        self.usage.count(replies)
        return Answer(request.key, replies)

    def _make_params(self, sampling: Sampling, n: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        greedy = sampling.temperature == 0
        controls = sorted(self.renderer.misplaced - self.renderer.ends)
        return SamplingParams(
            n=1 if greedy else n,
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=0,
            stop_token_ids=sorted(self.renderer.ends),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(regex=REPLY_FORM) if sampling.structured else None,
            # A form is one of text, and to it a control token is as good as any.
            logit_bias=dict.fromkeys(controls, -100.0) if sampling.structured else None,
            skip_clone=True,
        )
