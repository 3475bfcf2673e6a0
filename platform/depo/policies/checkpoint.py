"""What an engine reads from a saved model before it loads the weights."""

from __future__ import annotations

from typing import Any

from depo.config.base import ConfigError
from depo.policies.chat import ChatRenderer

_NOT_ARCHITECTURE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}


def load_renderer(model_dir: str) -> ChatRenderer:
    """The chat renderer of a saved model (a folder, or a Hugging Face id).

    Raises `ConfigError` where there is no tokenizer, or one whose chat template cannot serve.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
    except (OSError, ValueError):
        raise ConfigError(f"{model_dir}: no tokenizer found; check the path or model id") from None
    try:
        return ChatRenderer(tokenizer)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def context_limit(model_dir: str, wanted: int) -> int:
    """The longest context to serve, in tokens: `wanted`, or less where the model has fewer positions."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model_dir).get_text_config()
    return min(wanted, getattr(config, "max_position_embeddings", None) or wanted)


def check_interchangeable(served: str, wanted: str) -> None:
    """Raise `ConfigError` unless an engine that serves one model can take the other's weights."""
    if _architecture(served) != _architecture(wanted):
        raise ConfigError(f"{wanted}: another architecture than {served}; start an engine for it")
    if load_renderer(served).fingerprint != load_renderer(wanted).fingerprint:
        raise ConfigError(f"{wanted}: another tokenizer or template than {served}; start an engine for it")


def _architecture(model_dir: str) -> dict[str, Any]:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model_dir).to_dict()
    return {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
