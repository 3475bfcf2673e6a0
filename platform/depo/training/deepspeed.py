"""DeepSpeed's settings: which ZeRO stage, what is offloaded, how a process is made ready."""

from __future__ import annotations

from typing import Any

from depo.config.runtime import TrainingRuntime


def deepspeed_config(runtime: TrainingRuntime, dtype: str) -> dict[str, Any]:
    """DeepSpeed's configuration of a ZeRO stage; batch sizes follow from the trainer's arguments."""
    zero: dict[str, Any] = {"stage": runtime.deepspeed_stage}
    if runtime.deepspeed_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    pinned = {"device": "cpu", "pin_memory": runtime.use_gpu}
    if runtime.offload != "none":
        zero["offload_optimizer"] = pinned
    if runtime.offload == "parameters":
        zero["offload_param"] = pinned
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": dtype == "bfloat16"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        # PyTorch's AdamW serves offloaded states too; DeepSpeed's own has to be compiled for minutes.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }


def join_ranks(runtime: TrainingRuntime) -> None:
    """Let DeepSpeed use the process group that is there; ZeRO-3 asks for it before a model is loaded."""
    import deepspeed

    if not runtime.use_gpu:
        # Otherwise DeepSpeed compiles a shared-memory operator at each start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend="nccl" if runtime.use_gpu else "gloo", verbose=False)
