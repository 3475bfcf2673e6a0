"""Starting a vLLM engine: what this platform asks of it on the CPU and on GPUs."""

from __future__ import annotations

import gc
import os
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from depo.config.base import ConfigError
from depo.config.runtime import VllmConfig
from depo.threads import Background

_CPU_BATCHED_TOKENS = 8192
_CPU_SEQUENCES = 128


def start_engine(
    model_dir: str, config: VllmConfig, max_model_len: int, dtype: str, seed: int, num_gpus: float
) -> Any:
    """A `vllm.LLM` that serves `model_dir`; its core in this process, or in one of its own.

    Raises `ConfigError` where vLLM on the CPU cannot serve heads of this model's size.
    """
    in_process = not num_gpus if config.in_process is None else config.in_process
    _set_environment(num_gpus, in_process)
    import torch
    from vllm import LLM

    if not num_gpus:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        _check_head_size(model_dir)
    options: dict[str, Any] = {
        "dtype": dtype,
        "seed": seed,
        "max_model_len": max_model_len,
        "block_size": config.block_size,
        "enforce_eager": config.enforce_eager,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        **_placement(config, max_model_len, num_gpus),
        **_adapters(config, num_gpus),
    }
    llm = LLM(model_dir, **options)
    if in_process:
        _spare_collector()
    else:
        core: Any = llm.llm_engine.engine_core
        sentinels = [process.sentinel for process in core.resources.engine_manager.processes]
        Background(partial(_report_death, core, sentinels), "engine core")
    return llm


def serves_adapters(config: VllmConfig, num_gpus: float) -> bool:
    """Whether an engine takes adapters by name, or merged weights only."""
    return config.lora == "on" or (config.lora == "auto" and num_gpus > 0)


def refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises on a request that is itself at fault."""
    from vllm.exceptions import VLLMClientError

    return VLLMClientError, ValueError, TypeError


def _report_death(core: Any, sentinels: list[int]) -> None:
    """Wake whoever waits for an engine core in a process of its own once that process has ended.

    vLLM's synchronous client marks such an engine as dead, and leaves those waiting to wait.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        wait(sentinels)
    finally:  # an engine that cannot be watched is taken for dead
        _wake(core, EngineDeadError)


def _wake(core: Any, dead: type[Exception]) -> None:
    core.resources.engine_dead = True
    core.outputs_queue.put_nowait(dead())
    for result in list(core.utility_results.values()):
        if not result.done():
            result.set_exception(dead())


def _spare_collector() -> None:
    """Keep Python's garbage collector from walking vLLM's heap, and all trees, several times a second.

    What an engine of its own process does for itself; here it is a tenth of the speed.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def _set_environment(num_gpus: float, in_process: bool) -> None:
    """What vLLM reads from the environment when it is imported or an engine starts."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0" if in_process else "1"
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # a fork inherits locks of our threads
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    if not num_gpus:
        # More threads than cores slow a small model down severalfold.
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def _check_head_size(model_dir: str) -> None:
    """Refuse at once what would fail at the first request."""
    from vllm.config import ModelConfig
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    size = ModelConfig(model_dir).get_head_size()
    supported = CPUAttentionBackend.get_supported_head_sizes()
    if size not in supported:
        raise ConfigError(
            f"{model_dir}: attention heads of size {size}; vLLM on the CPU serves {supported}: change the "
            "number of heads, or set runtime.generation.engine to transformers"
        )


def _placement(config: VllmConfig, max_model_len: int, num_gpus: float) -> dict[str, Any]:
    if num_gpus:
        return {
            "gpu_memory_utilization": config.gpu_memory_utilization,
            "tensor_parallel_size": config.tensor_parallel,
            "max_num_seqs": config.max_num_seqs,
        }
    return {
        "kv_cache_memory_bytes": int(config.kv_cache_gib * 2**30),
        # On the CPU a seeded prompt that is split into chunks crashes the sampler.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(_CPU_BATCHED_TOKENS, max_model_len),
        "max_num_seqs": config.max_num_seqs or _CPU_SEQUENCES,
    }


def _adapters(config: VllmConfig, num_gpus: float) -> dict[str, Any]:
    if not serves_adapters(config, num_gpus):
        return {}
    return {
        "enable_lora": True,
        # One slot for the adapter that takes another's place. And on the CPU a row without adapter
        # computes with the last slot, which so has to stay empty.
        "max_loras": config.adapters + 2,
        "max_lora_rank": config.max_lora_rank,
    }
