"""`depo sweep`."""

from __future__ import annotations

import argparse
import json

from depo.commands.base import announce, load, talking
from depo.config.base import ConfigError


def sweep(options: argparse.Namespace) -> int:
    from depo.config.base import apply_overrides
    from depo.sweeps import run_sweep

    grid = {}
    for item in options.grid:
        field, equals, values = item.partition("=")
        try:
            grid[field] = [float(value) for value in values.split(",")]
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--grid {item}: write it as FIELD=A,B,C with numbers")
    config = load(options)
    if grid:
        values = apply_overrides(config.model_dump(mode="json"), [f"sweep.space={json.dumps(grid)}"])
        from depo.config.load import parse_config

        config = parse_config(values)
    with talking(options):
        rows = run_sweep(config, announce=announce)
    if options.json:
        print(json.dumps(rows))
    return 0
