"""From a YAML file and overrides to a checked `ExperimentConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from depo.config.base import ConfigError, apply_overrides, dump_yaml, explain, read_yaml
from depo.config.schema import ExperimentConfig


def load_config(path: str | Path, overrides: list[str] | None = None) -> ExperimentConfig:
    """Read, override and check. Raises `ConfigError`: one line naming file, key and mend."""
    path = Path(path)
    values = apply_overrides(read_yaml(path), overrides or [])
    try:
        return parse_config(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_config(values: dict[str, Any]) -> ExperimentConfig:
    """Check a mapping. Raises `ConfigError`."""
    try:
        return ExperimentConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, ExperimentConfig)) from None


def dump_config(config: ExperimentConfig) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal object."""
    return dump_yaml(config.model_dump(mode="json"))
