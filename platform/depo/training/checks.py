"""What is known of a student before anything is paid for; each fault is one line, with the key and the mend.

Reads configuration and tokenizer files and no weights: modules are looked up in a model on the meta device,
which has shapes and no numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig
from transformers.pytorch_utils import Conv1D

from depo.config.base import ConfigError
from depo.config.schema import ExperimentConfig
from depo.identity import located, pinned
from depo.policies.checkpoint import ADAPTER_CONFIG, load_renderer, positions

_KEY = "student.model"
_GIVE = "give a folder that `save_pretrained` wrote, a hub id, or 'tiny'"
_WEIGHTS = ("*.safetensors", "*.bin")
_ADAPTED = (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention, Conv1D)
"""What PEFT makes low-rank adapters of, quantised layers of other libraries aside."""


def check_student(config: ExperimentConfig, download: bool) -> None:
    """Refuse a student that some stage could not use.

    Raises `ConfigError`: no model there, no usable tokenizer or chat template, tokens without embeddings,
    fewer positions than are asked for, LoRA targets that no module has. Without `download` a hub id whose
    files are not on this machine is taken as it is.
    """
    targets = {
        f"methods.{name}.lora.target_modules": method.lora.target_modules
        for name, method in config.methods.items()
        if not method.full_parameters
    }
    model = config.student.model
    if model == "tiny":
        # The names of its modules depend on nothing else.
        shape: Any = LlamaConfig(num_hidden_layers=1, tie_word_embeddings=True)
    else:
        if not Path(model).is_absolute():
            model = pinned(model, config.student.revision)
            try:
                if not download and "@" not in model:
                    return  # no hub to ask; where it runs there may be one
                model = located(model, download)
            except ConfigError:
                if download:
                    raise
                return
        shape = _read_config(model)
    with torch.device("meta"):
        try:
            bare = AutoModelForCausalLM.from_config(shape)
        except Exception as error:  # whatever a model's code raises for numbers that do not fit together
            raise ConfigError(f"{_KEY}: {model} is no causal language model ({_first(error)})") from None
    if model != "tiny":
        require_vocabulary(
            load_renderer(model, config.student.chat_template).tokenizer, shape, f"{_KEY}: {model}"
        )
        _require_positions(config, shape)
    for key, names in targets.items():
        require_targets(bare, names, key)


def require_targets(model: Any, targets: Iterable[str] | str, key: str) -> None:
    """Raise `ConfigError` unless each of `targets` (names, or one pattern) is a layer that LoRA adapts and
    training reaches."""
    if targets == "all-linear":
        return
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    head = model.get_output_embeddings()
    tied = model.get_input_embeddings() if getattr(model.config, "tie_word_embeddings", False) else None
    for target in [targets] if isinstance(targets, str) else targets:
        found = {name: module for name, module in modules.items() if _matches(target, name, targets)}
        if not found:
            layers = sorted(
                {
                    n.removesuffix(".base_layer").rpartition(".")[2]
                    for n, m in modules.items()
                    if isinstance(m, nn.Linear) and m is not head and ".lora_" not in n
                }
            )
            raise ConfigError(
                f"{key}: {target!r} names no module of the model; linear ones: {', '.join(layers)}"
            )
        for name, module in found.items():
            if module is head or module is tied:
                which = "output layer" if module is head else "embedding, tied to its output layer"
                raise ConfigError(
                    f"{key}: {target!r} is the model's {which}, which is not adapted here; leave it out"
                )
            own = type(module).__module__.startswith(("transformers.", "torch."))
            if own and not isinstance(module, _ADAPTED):
                raise ConfigError(
                    f"{key}: {target!r} is a {type(module).__name__} ({name}), and LoRA adapts linear "
                    "layers: name some of those"
                )


def padded(tokenizer: Any) -> Any:
    """The tokenizer, with a padding token where it has none: any serves, since padding is never looked at."""
    if tokenizer.pad_token_id is None:
        vocabulary = tokenizer.get_vocab()
        # A token that is not special already would become so, and vanish from decoded text.
        special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        candidates = [tokenizer.eos_token, *tokenizer.all_special_tokens, *special]
        tokenizer.pad_token = next(filter(None, candidates), max(vocabulary, key=vocabulary.__getitem__))
    return tokenizer


def _matches(target: str, name: str, targets: Any) -> bool:
    """As PEFT reads it: a list holds names or their ends, a text is a regular expression."""
    if isinstance(targets, str):
        return re.fullmatch(target, name) is not None
    return name == target or name.endswith(f".{target}")


def _read_config(model: str) -> Any:
    folder = Path(model)
    if folder.is_absolute() and not folder.is_dir():
        raise ConfigError(f"{_KEY}: no model at {model} (no such folder); {_GIVE}")
    if (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file():
        raise ConfigError(f"{_KEY}: {model} is an adapter; merge it into its model and give that")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ConfigError(f"{_KEY}: no model at {model} (no config.json there); {_GIVE}")
    if folder.is_dir() and not any(file for kind in _WEIGHTS for file in folder.glob(kind)):
        raise ConfigError(f"{_KEY}: {model} holds no weights (*.safetensors); copy them there too")
    if folder.is_dir():
        _require_whole_weights(folder)
    try:
        return AutoConfig.from_pretrained(model)
    except Exception as error:  # of fields too, each library with its own
        raise ConfigError(f"{_KEY}: {model} cannot be read as a model ({_first(error)})") from None


def _require_whole_weights(folder: Path) -> None:
    for index in folder.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(f"{_KEY}: {index} cannot be read ({_first(error)}); copy it again") from None
        if missing := sorted(shard for shard in shards if not (folder / shard).is_file()):
            raise ConfigError(
                f"{_KEY}: {folder / missing[0]} is missing ({index.name} lists it); copy it there"
            )
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):  # reads the list of its tensors and compares the file's size
                pass
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{_KEY}: {file} is no whole file of weights ({_first(error)}); copy it again"
            ) from None


def require_vocabulary(tokenizer: Any, config: Any, where: str) -> None:
    """Raise `ConfigError`, beginning with `where`, for tokens that the model has no embeddings for."""
    rows = config.get_text_config().vocab_size
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    named = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    template = str(tokenizer.chat_template)
    # Special tokens never come from text, so one that neither the template nor training names is never met.
    met = [token for token in beyond if token not in special or token in named or token in template]
    if met:
        raise ConfigError(
            f"{where}: the tokenizer has {max(beyond.values()) + 1} tokens ({met[0]!r} is one) "
            f"and the model {rows} embeddings; resize these (resize_token_embeddings) and save it again"
        )


def _require_positions(config: ExperimentConfig, shape: Any) -> None:
    most = positions(shape)
    lengths = {
        "student.max_length": config.student.max_length,
        "runtime.generation.vllm.max_model_len": config.runtime.generation.vllm.max_model_len or 0,
    }
    for key, length in lengths.items():
        if most is not None and length > most:
            raise ConfigError(
                f"{key}: {length} tokens are more than the {most} positions that {config.student.model} has; "
                "lower it"
            )


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
