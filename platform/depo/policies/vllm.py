"""Replies from a vLLM engine inside this process, on the CPU or on GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from depo.config.base import ConfigError
from depo.config.runtime import VllmConfig
from depo.policies.base import Reply, Request
from depo.policies.chat import ChatRenderer, no_room
from depo.policies.checkpoint import check_interchangeable, context_limit, load_renderer

_CPU_BATCHED_TOKENS = 8192
_CPU_SEQUENCES = 256


class VllmPolicy:
    """A saved chat model, its adapter merged, served by vLLM with token ids in and out.

    Equal requests get equal replies on the CPU, alone or batched. `Reply.logprob` stays empty:
    asking for it makes vLLM compile a kernel for a quarter of a minute in every process, and
    costs a tenth of the speed after that; nothing downstream reads it.
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
    ) -> None:
        """Start the engine. `max_model_len` is in tokens, prompt and reply together; a model
        with fewer positions serves those.

        Raises `ConfigError` where the tokenizer has no usable chat template, or where vLLM on the
        CPU cannot serve heads of this model's size.
        """
        _set_environment(num_gpus)
        import torch
        from vllm import LLM, SamplingParams

        if not num_gpus:
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.name = name
        self.renderer: ChatRenderer = load_renderer(model_dir)
        self.tokenizer_fingerprint = self.renderer.fingerprint
        self.max_model_len = context_limit(model_dir, vllm.max_model_len or max_model_len)
        self._model_dir = model_dir
        self._params = SamplingParams
        options: dict[str, Any] = {
            "dtype": dtype,
            "seed": seed,
            "max_model_len": self.max_model_len,
            "block_size": vllm.block_size,
            "enforce_eager": vllm.enforce_eager,
            "enable_prefix_caching": True,
            "skip_tokenizer_init": True,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            **_placement(vllm, self.max_model_len, num_gpus),
        }
        self._llm = LLM(model_dir, **options)
        if not num_gpus:
            _check_head_size(model_dir, self._llm.llm_engine.model_config.get_head_size())

    def load(self, model_dir: str, name: str) -> None:
        """Put other weights of the same architecture and tokenizer in place.

        Raises `ConfigError` where architecture or tokenizer differ; the old weights then stay.
        """
        check_interchangeable(self._model_dir, model_dir)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_path": model_dir})
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept prefixes of the old weights in its cache")
        self._model_dir, self.name = model_dir, name

    def sample(self, requests: Sequence[Request]) -> list[list[Reply]]:
        """Replies to a batch; malformed, empty ones where the context has no room for a reply."""
        contexts = [self.renderer.context(r.system, r.history, r.observation) for r in requests]
        fitting = [
            i
            for i, request in enumerate(requests)
            if len(contexts[i]) + request.sampling.max_tokens <= self.max_model_len
        ]
        replies = [[no_room(len(c))] * r.n for c, r in zip(contexts, requests, strict=True)]
        prompts: list[Any] = [{"prompt_token_ids": list(contexts[i])} for i in fitting]
        outputs = self._llm.generate(prompts, [self._sampling(requests[i]) for i in fitting], use_tqdm=False)
        for i, output in zip(fitting, outputs, strict=True):
            size = len(contexts[i])
            read = [self.renderer.read(tuple(o.token_ids), size) for o in output.outputs]
            replies[i] = read if len(read) == requests[i].n else read * requests[i].n
        return replies

    def _sampling(self, request: Request) -> Any:
        sampling = request.sampling
        greedy = sampling.temperature == 0
        return self._params(
            n=1 if greedy else request.n,
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=request.seed,
            stop_token_ids=[self.renderer.end_of_turn],
            detokenize=False,
        )


def _set_environment(num_gpus: float) -> None:
    """What vLLM reads from the environment when it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if not num_gpus:
        # More threads than cores slow a small model down severalfold.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def _check_head_size(model_dir: str, size: int) -> None:
    """Refuse at once what would fail at the first request."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    supported = CPUAttentionBackend.get_supported_head_sizes()
    if size not in supported:
        raise ConfigError(
            f"{model_dir}: attention heads of size {size}; vLLM on the CPU serves {supported}: change the "
            "number of heads, or set runtime.generation.engine to transformers"
        )


def _placement(vllm: VllmConfig, max_model_len: int, num_gpus: float) -> dict[str, Any]:
    if num_gpus:
        return {
            "gpu_memory_utilization": vllm.gpu_memory_utilization,
            "tensor_parallel_size": vllm.tensor_parallel,
        }
    return {
        "kv_cache_memory_bytes": int(vllm.kv_cache_gib * 2**30),
        # On the CPU a seeded prompt that is split into chunks crashes the sampler.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, max_model_len),
        "max_num_seqs": _CPU_SEQUENCES,
    }
