"""What an engine reads from a saved model before it loads the weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.identity import located
from depo.policies.chat import ChatRenderer

ADAPTER = "adapter"
MERGED = "model"
"""A trained policy's folders: its adapter, and the same merged into its weights."""

ADAPTER_CONFIG = "adapter_config.json"
_NOT_ARCHITECTURE = {
    "_name_or_path",
    "dtype",
    "initializer_range",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def load_tokenizer(model_dir: str, chat_template: str | None = None) -> Any:
    """The tokenizer of a saved model (a folder, or a Hugging Face id), with the template of a file where
    one is given. Raises `ConfigError` where either cannot be read."""
    from transformers import AutoTokenizer

    folder = located(model_dir)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError):
        raise ConfigError(f"{model_dir}: no tokenizer found; check the path or model id") from None
    if chat_template is not None:
        tokenizer.chat_template = read_template(chat_template)
    return tokenizer


def read_template(path: str) -> str:
    """The chat template in a file. Raises `ConfigError` where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            f"student.chat_template: {path} cannot be read ({reason}); check the path"
        ) from None


def load_renderer(model_dir: str, chat_template: str | None = None) -> ChatRenderer:
    """The chat renderer of a saved model, whose tokenizer `load_tokenizer` gives.

    Raises `ConfigError` where there is no tokenizer, or one whose chat template cannot serve.
    """
    try:
        return ChatRenderer(load_tokenizer(model_dir, chat_template), _ends(located(model_dir)))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def context_limit(model_dir: str, wanted: int) -> int:
    """The longest context to serve, in tokens: `wanted`, or less where the model has fewer positions."""
    from transformers import AutoConfig

    return min(wanted, positions(AutoConfig.from_pretrained(model_dir)) or wanted)


def positions(config: Any) -> int | None:
    """Tokens that a model of this configuration can attend to; None where it sets no bound."""
    text = config.get_text_config()
    most = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    original, factor = rope.get("original_max_position_embeddings"), rope.get("factor")
    if rope.get("rope_type") == "yarn" and original and factor:
        most = max(most or 0, int(original * factor))
    return most


def _ends(model_dir: str) -> list[int]:
    """The ids at which the model's own generation settings end a text."""
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(model_dir).eos_token_id
    except OSError:
        return []
    return found if isinstance(found, list) else [] if found is None else [found]


def adapter_of(model_dir: str) -> tuple[str, str] | None:
    """The adapter that a trained policy consists of and the weights it was trained on.

    `model_dir` is the adapter's folder, or that of the merged policy beside it; None where neither
    is so.
    """
    beside = Path(model_dir).parent / ADAPTER
    for folder in (Path(model_dir), beside) if Path(model_dir).name == MERGED else (Path(model_dir),):
        file = folder / ADAPTER_CONFIG
        if file.is_file():
            return str(folder), json.loads(file.read_text())["base_model_name_or_path"]
    return None


def adapter_on(served: str, wanted: str) -> str | None:
    """The adapter's folder where `wanted` is an adapter of the weights `served`, or merged from one.

    None where it is plain weights. Raises `ConfigError` for a bare adapter of other weights.
    """
    found = adapter_of(wanted)
    if found is None:
        return None
    folder, base = found
    if Path(base).resolve() == Path(served).resolve():
        return folder
    if Path(folder) == Path(wanted):
        raise ConfigError(
            f"{wanted}: an adapter of {base}, not of {served}; start an engine with its own weights"
        )
    return None


@dataclass(frozen=True)
class ModelKind:
    """What models have in common whose weights can take each other's place."""

    model_dir: str
    """Whose kind it is; the folder may be gone by now."""
    architecture: dict[str, Any]
    tokenizer: str
    chat_template: str | None
    """The file of another template than the models' own."""


def kind_of(model_dir: str, renderer: ChatRenderer, chat_template: str | None = None) -> ModelKind:
    """The kind of a saved model, whose tokenizer `renderer` has. Raises `ConfigError` where there is none."""
    return ModelKind(model_dir, _architecture(model_dir), renderer.fingerprint, chat_template)


def check_interchangeable(served: ModelKind, wanted: str) -> None:
    """Raise `ConfigError` unless an engine that serves one model can take the other's weights."""
    if (Path(wanted) / ADAPTER_CONFIG).is_file():
        raise ConfigError(
            f"{wanted}: an adapter, and this engine takes merged weights; give the merged model, or set "
            "runtime.generation.vllm.lora to on"
        )
    if served.architecture != _architecture(wanted):
        raise ConfigError(f"{wanted}: another architecture than {served.model_dir}; start an engine for it")
    if served.tokenizer != load_renderer(wanted, served.chat_template).fingerprint:
        raise ConfigError(
            f"{wanted}: another tokenizer or template than {served.model_dir}; start an engine for it"
        )


def _architecture(model_dir: str) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_dir).to_dict()
    except (OSError, ValueError):
        raise ConfigError(f"{model_dir}: no model found; check the path or model id") from None
    return {key: value for key, value in config.items() if key not in _NOT_ARCHITECTURE}
