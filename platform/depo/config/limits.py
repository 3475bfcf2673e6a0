"""Limits of different sections that contradict each other, each refused by its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from depo.config.base import ConfigError

if TYPE_CHECKING:
    from depo.config.schema import ExperimentConfig


def check_limits(config: ExperimentConfig) -> None:
    """Raise `ValueError`, one line with the key and the mend, for limits that cannot both be kept."""
    _replies_fit_the_context(config)
    evaluation = config.evaluation
    longest = max([evaluation.max_tokens, *(suite.max_tokens for suite in evaluation.suites.values())])
    for name, controlled in evaluation.controlled.items():
        if controlled.tokens is not None and controlled.tokens > longest:
            raise ValueError(
                f"evaluation.controlled.{name}.tokens: {controlled.tokens} allows more than the {longest} "
                "tokens at which every reply is cut (evaluation.max_tokens); lower it"
            )
    if evaluation.thought_utility > evaluation.tasks:
        raise ValueError(
            f"evaluation.thought_utility: {evaluation.thought_utility} episodes are more than the "
            f"{evaluation.tasks} there are (evaluation.tasks); lower it"
        )
    vllm = config.runtime.generation.vllm
    adapters = vllm.lora == "on" or (vllm.lora == "auto" and config.runtime.generation.num_gpus > 0)
    if config.runtime.generation.engine == "transformers" or not adapters:
        return
    for name, method in config.methods.items():
        if not method.full_parameters and method.lora.r > vllm.max_lora_rank:
            raise ValueError(
                f"runtime.generation.vllm.max_lora_rank: {vllm.max_lora_rank} is below the rank "
                f"{method.lora.r} of methods.{name}.lora.r; raise it"
            )


def check_batch(batch_size: int, workers: int, key: str) -> None:
    """Raise `ConfigError` where the workers of a training cannot share its steps evenly."""
    if batch_size % workers:
        raise ConfigError(
            f"{key}: {batch_size} samples do not divide over {workers} workers; take a multiple of "
            f"{workers}, or another runtime.training.num_workers"
        )


def _replies_fit_the_context(config: ExperimentConfig) -> None:
    """A reply that fills the context of the engine leaves no room for what it answers."""
    generation, key, most = config.runtime.generation, "student.max_length", config.student.max_length
    if generation.engine != "transformers" and generation.vllm.max_model_len is not None:
        key, most = "runtime.generation.vllm.max_model_len", generation.vllm.max_model_len
    replies = {"evaluation.max_tokens": config.evaluation.max_tokens}
    replies |= {
        f"evaluation.suites.{n}.max_tokens": s.max_tokens for n, s in config.evaluation.suites.items()
    }
    for number, round_ in enumerate(config.rounds):
        if (
            round_.policy.kind == "engine"
            and round_.search.structured
            and generation.engine == "transformers"
        ):
            raise ValueError(
                f"rounds.{number}.search.structured: transformers cannot force the form of a reply; set it "
                "to false, or runtime.generation.engine to vllm"
            )
        if round_.policy.kind == "engine":
            replies[f"rounds.{number}.search.max_tokens"] = round_.search.max_tokens
    for name, tokens in replies.items():
        if tokens >= most:
            raise ValueError(
                f"{name}: replies of {tokens} tokens leave no room in a context of {most} ({key}); lower it, "
                "or raise that"
            )
