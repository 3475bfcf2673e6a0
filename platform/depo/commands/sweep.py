"""`depo sweep`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from depo.commands.base import announce, load, talking
from depo.config.base import ConfigError, load_yaml


def sweep(options: argparse.Namespace) -> int:
    """Run the sweep; 1 where not one of its trials succeeded."""
    from depo.sweeps import run_sweep

    if options.grid:
        options.overrides += [f"sweep.space={json.dumps(_grid(options.grid))}"]
    config = load(options)
    with talking(options):
        found = run_sweep(config, announce=announce)
    if options.json:
        print(json.dumps(found))
    return 0 if any(trial["state"] == "done" for trial in found["trials"]) else 1


def _grid(items: list[str]) -> dict[str, list[Any]]:
    """`FIELD=A,B,C` to the field's values, each read as YAML. Raises `ConfigError`."""
    grid: dict[str, list[Any]] = {}
    for item in items:
        field, equals, values = item.partition("=")
        if field in grid:
            raise ConfigError(f"--grid {field}: stands there twice; name all its values in one")
        grid[field] = [load_yaml(value, f"--grid {field}") for value in values.split(",")]
        if not equals or not field or not all(isinstance(v, bool | int | float | str) for v in grid[field]):
            raise ConfigError(f"--grid {item}: write it as FIELD=A,B,C with numbers, words, true or false")
    return grid
