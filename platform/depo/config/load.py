"""From a YAML file and overrides to a checked `ExperimentConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from depo.config.base import (
    RESOLVED,
    ConfigError,
    apply_overrides,
    dump_yaml,
    explain,
    read_settings,
    read_yaml,
)
from depo.config.schema import ExperimentConfig

# Keys of `evaluation` that run directories of earlier versions have, and what they are called now.
_RENAMED = {"compare": "comparisons"}


def load_config(
    path: str | Path, overrides: list[str] | None = None, resolved: bool = False
) -> ExperimentConfig:
    """Read, override and check. Raises `ConfigError`: one line naming file, key and mend.

    In a `resolved` configuration, of a run directory, what is not read may stand at its default, and keys
    may have the names that they had when it was written.
    """
    path = Path(path)
    values = read_yaml(path)
    if resolved and isinstance(section := values.get("evaluation"), dict):
        values["evaluation"] = {_RENAMED.get(key, key): value for key, value in section.items()}
    values = apply_overrides(values, overrides or [])
    try:
        return parse_config(values, resolved)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_config(values: dict[str, Any], resolved: bool = False) -> ExperimentConfig:
    """Check a mapping. Raises `ConfigError`."""
    try:
        return ExperimentConfig.model_validate(values, context=RESOLVED if resolved else None)
    except ValidationError as error:
        raise ConfigError(explain(error, ExperimentConfig)) from None


def dump_config(config: ExperimentConfig) -> str:
    """The resolved configuration, all settings that are read, as YAML that `load_config` reads back equal."""
    return dump_yaml(read_settings(config, config.model_dump(mode="json")))
