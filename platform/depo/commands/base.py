"""What commands share: loading a configuration, and where output goes."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from depo.config.load import load_config
from depo.config.schema import ExperimentConfig


def load(options: argparse.Namespace) -> ExperimentConfig:
    path = Path(options.config)
    if path.is_dir():
        return load_config(path / "config.yaml", options.overrides, resolved=True)
    return load_config(options.config, options.overrides)


def announce(text: str) -> None:
    print(text, flush=True)


def talking(options: argparse.Namespace) -> AbstractContextManager[Any]:
    """Sends what a run tells of itself to stderr where stdout is for machines."""
    return redirect_stdout(sys.stderr) if options.json else nullcontext()


def typed(command: str, given: str, overrides: Sequence[str]) -> str:
    """`depo COMMAND` on what was given, as it can be typed into a shell."""
    return shlex.join(["depo", command, given, *(part for text in overrides for part in ("--set", text))])
