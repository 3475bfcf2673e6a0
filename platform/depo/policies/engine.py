"""Which policy a configuration asks for."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast, runtime_checkable

from depo.config.base import ConfigError
from depo.config.runtime import GenerationRuntime
from depo.config.schema import CustomConfig, OpenAIConfig, PolicyConfig, StudentConfig, TeacherConfig
from depo.policies.base import Policy


@runtime_checkable
class Engine(Policy, Protocol):
    """A policy with weights, which can be exchanged for others of the same architecture."""

    def load(self, model_dir: str, name: str) -> None: ...


def make_engine(
    runtime: GenerationRuntime,
    model_dir: str,
    name: str,
    max_model_len: int,
    dtype: str = "float32",
    seed: int = 0,
    chat_template: str | None = None,
) -> Engine:
    """An engine in this process that serves the saved model in `model_dir`; `chat_template` is the file of
    another template than its own.

    Raises `ConfigError` where vLLM is asked for and not installed.
    """
    installed = find_spec("vllm") is not None
    if runtime.engine == "vllm" and not installed:
        raise ConfigError(
            "runtime.generation.engine: vllm is not installed; install it or take 'transformers'"
        )
    if runtime.engine == "transformers" or not installed:
        from depo.policies.transformers import TransformersPolicy

        return TransformersPolicy(
            model_dir, name, max_model_len, dtype, num_gpus=runtime.num_gpus, chat_template=chat_template
        )
    from depo.policies.vllm import VllmPolicy

    return VllmPolicy(
        model_dir, name, runtime.vllm, max_model_len, dtype, seed=seed, num_gpus=runtime.num_gpus,
        chat_template=chat_template,
    )  # fmt: skip


def make_policy(
    config: PolicyConfig,
    *,
    name: str,
    model_dir: str,
    student: StudentConfig,
    runtime: GenerationRuntime,
    previous: Policy | None = None,
) -> Policy:
    """The policy that `config` asks for; an engine serves the weights in `model_dir`.

    `previous` is what this process served before: an engine is kept, and takes the other weights.
    """
    if isinstance(config, TeacherConfig):
        from depo.policies.teacher import TeacherPolicy

        return TeacherPolicy(config)
    if isinstance(config, OpenAIConfig):
        from depo.policies.openai import OpenAIPolicy

        return OpenAIPolicy(config, name, share=1 / runtime.actors)
    if isinstance(config, CustomConfig):
        return _make_custom(config)
    if isinstance(previous, Engine):
        previous.load(model_dir, name)
        return previous
    return make_engine(
        runtime, model_dir, name, student.max_length, student.dtype, chat_template=student.chat_template
    )


def custom_class(config: CustomConfig) -> Any:
    """The class of a policy of one's own. Raises `ConfigError` where it cannot be imported."""
    module, _, name = config.cls.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"policy.cls: {config.cls!r} cannot be imported ({error}); mend the path or install it on "
            "every node"
        ) from None


def _make_custom(config: CustomConfig) -> Policy:
    """Raises `ConfigError` where the class cannot be imported, or not be made with its options."""
    cls = custom_class(config)
    try:
        return cast(Policy, cls(**config.options))
    except TypeError as error:
        raise ConfigError(f"policy.options: {config.cls} does not take them ({error})") from None
