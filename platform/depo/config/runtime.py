"""Where and how wide an experiment runs; never part of a result's identity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from depo.config.base import Count, Fraction, NonNegative, Positive, Strict


class VllmConfig(Strict):
    """The vLLM engine of one generation worker."""

    kv_cache_gib: Positive = 0.5
    """KV cache on CPU; without an explicit size it over-allocates."""
    gpu_memory_utilization: Fraction = 0.9
    block_size: Count | None = 32
    tensor_parallel: Count = 1
    enforce_eager: bool = True
    """Skip graph capture: starts sooner, runs slower on a GPU."""
    max_num_seqs: Count | None = None
    """Sequences an engine works on at a time; the others wait. More helps where more are in flight and the
    cache holds them. None: 128 on the CPU, what vLLM chooses on a GPU."""
    max_model_len: Count | None = None
    """By default the student's `max_length`."""
    in_process: bool | None = None
    """The engine's core inside the worker's process; None: so on the CPU, a process of its own on a
    GPU, where the worker's work then runs beside the engine's."""
    lora: Literal["auto", "on", "off"] = "auto"
    """Policies served as adapters of one set of weights, several at a time. "auto": on a GPU; on the
    CPU that is 7-14 times slower than exchanging merged weights."""
    adapters: Count = 4
    """Adapters held at a time; each takes memory in the engine."""
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = 64
    """Largest rank an adapter may have; more takes more memory."""


class GenerationRuntime(Strict):
    """Workers that generate and evaluate."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """"auto" takes vLLM where it is installed, transformers elsewhere."""
    actors: Count = 2
    """Most workers at a time; the pool starts with as many as the cluster has room for."""
    min_actors: Count = 1
    """Fewest workers that the pool keeps while work runs out."""
    num_cpus: NonNegative = 1
    num_gpus: NonNegative = 0
    batch_tasks: Count = 64
    """Tasks a worker searches at the same time; more keeps the engine fuller."""
    retry_quarantined: bool = False
    """Try tasks again that an earlier start of an unfinished stage gave up."""
    vllm: VllmConfig = VllmConfig()

    def unread(self) -> dict[str, str]:
        if self.vllm.lora == "off":
            return dict.fromkeys(("vllm.adapters", "vllm.max_lora_rank"), "while vllm.lora is 'off'")
        return {}

    @model_validator(mode="after")
    def _limits_agree(self) -> GenerationRuntime:
        if self.min_actors > self.actors:
            raise ValueError(f"min_actors: {self.min_actors} are more than actors={self.actors}; lower it")
        if 0 < self.num_gpus < self.vllm.tensor_parallel and self.engine != "transformers":
            raise ValueError(
                f"vllm.tensor_parallel: {self.vllm.tensor_parallel} GPUs are more than the num_gpus="
                f"{self.num_gpus:g} of a worker; raise num_gpus"
            )
        return self


class TrainingRuntime(Strict):
    """Ray Train workers."""

    num_workers: Count = 2
    use_gpu: bool = False
    cpus_per_worker: NonNegative = 1
    device_batch_size: Count = 4
    """Samples a worker holds at once; the rest of `batch_size` is accumulated. A step's samples are shared
    out by length: more at a time of short ones, fewer of long ones, never more tokens."""
    deepspeed_stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage: 1 shares the optimizer's states out over the workers, 2 the gradients too, 3 the
    weights too; each saves memory and costs traffic. 0 trains without DeepSpeed, every worker holding all."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What rests in the host's memory instead of the GPU's: the optimizer's states (ZeRO 1 to 3), or
    these and the weights (ZeRO 3). Saves GPU memory and costs time."""
    gradient_checkpointing: bool = False
    """Compute activations anew in the backward pass: a third more time, a fraction of the memory."""
    save_steps: Count = 50
    """Optimizer steps between checkpoints."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """Restarts from the last checkpoint after a lost worker."""

    @model_validator(mode="after")
    def _offload_fits_the_stage(self) -> TrainingRuntime:
        needed = {"none": 0, "optimizer": 1, "parameters": 3}[self.offload]
        if self.deepspeed_stage < needed:
            raise ValueError(
                f"offload: {self.offload!r} needs deepspeed_stage {needed} or above, it is "
                f"{self.deepspeed_stage}; raise the stage or leave offload at 'none'"
            )
        return self


class SweepRuntime(Strict):
    """Ray Tune trials."""

    max_concurrent: Count = 2
    """Most trials at a time; fewer where the cluster has no room."""
    cpus_per_trial: NonNegative = 1
    gpus_per_trial: NonNegative = 0
    """Whole GPUs, or a part of one: with 0.25 four trials share a GPU and its memory."""
    distributed: bool = False
    """Each trial starts Ray Train and Ray Data of its own, on as many nodes as `training` and
    `generation` say, and takes no GPU itself; else it trains and evaluates inside its own process."""
    max_failures: Annotated[int, Field(ge=0)] = 1
    """How often trials whose process was lost are started again. One that failed by an error of its own
    waits for the next start."""

    def unread(self) -> dict[str, str]:
        return {"cpus_per_trial": "by distributed trials, whose workers ask"} if self.distributed else {}

    @model_validator(mode="after")
    def _gpus_are_whole_or_part_of_one(self) -> SweepRuntime:
        if self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(
                f"gpus_per_trial: {self.gpus_per_trial:g} is neither whole nor part of one GPU; round it"
            )
        if self.distributed and self.gpus_per_trial:
            raise ValueError(
                "gpus_per_trial: a distributed trial holds no GPU itself, its workers do; leave it out and "
                "set runtime.training.num_workers and use_gpu"
            )
        return self


class RuntimeConfig(Strict):
    """Where and how wide it all runs; never part of a result's identity."""

    runs_dir: str = "runs"
    ray_address: str | None = None
    """A running cluster's address; by default `RAY_ADDRESS`, else a cluster of this machine."""
    num_cpus: Count | None = None
    """CPUs of a cluster started here; by default all."""
    generation: GenerationRuntime = GenerationRuntime()
    training: TrainingRuntime = TrainingRuntime()
    sweep: SweepRuntime = SweepRuntime()
