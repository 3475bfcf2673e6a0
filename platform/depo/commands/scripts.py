"""What the scripts of `experiments/` share: the arguments they hand to `depo`, and their last lines."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depo import interrupts
from depo.config.base import ConfigError
from depo.config.load import load_config
from depo.config.schema import ExperimentConfig
from depo.graph import runs_dir
from depo.report.paper import paper_rows, paper_text

UNSEEN_LEVELS = ("GoToObjS4", "GoToLocalS6N4", "GoToLocalS7N5", "GoToObjMazeS4")
"""BabyAI levels that neither AgentGym's forty nor the demo's five hold."""

_ANSWER = {"max_steps": 3, "max_tokens": 512}
"""Of one maths problem: an unreadable answer may be given again."""


@dataclass(frozen=True)
class Given:
    """A script's command line: the configuration, and what goes on to `depo`."""

    path: str
    rest: tuple[str, ...]

    @property
    def config(self) -> ExperimentConfig:
        """The configuration with its overrides. Raises `ConfigError`."""
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--set", dest="overrides", action="append", default=[])
        return load_config(self.path, parser.parse_known_args(list(self.rest))[0].overrides)


def given(default: Path, arguments: Sequence[str]) -> Given:
    """Take the configuration from the front of `arguments`; `default` where they begin with an option."""
    if arguments and not arguments[0].startswith("-"):
        return Given(arguments[0], tuple(arguments[1:]))
    return Given(str(default), tuple(arguments))


def sweep_arguments(
    default: Path, sweeps: Mapping[str, Iterable[str]], arguments: Sequence[str]
) -> list[list[str]]:
    """Arguments of `depo` for each sweep: its name to its axes (`FIELD=A,B,C` each).

    What `arguments` add comes after, so that a `--grid` or `--set` of the same name replaces the script's.
    """
    own = given(default, arguments)
    return [
        ["sweep", own.path, "--set", f"sweep.name={name}", *(f"--grid={axis}" for axis in axes), *own.rest]
        for name, axes in sweeps.items()
    ]


def seed_arguments(own: Given, seeds: Sequence[int]) -> list[list[str]]:
    """Arguments of `depo run` for the whole configuration once with each seed, as `<name>-s<seed>`.

    The seed is the experiment's, every method's and every annotation's, so that two runs share nothing that
    chance decides; the tasks, and the seeds that evaluation draws with, stay the same.
    """
    config = own.config
    runs = []
    for seed in seeds:
        values = {"name": f"{config.name}-s{seed}", "seed": seed}
        values |= {f"methods.{name}.seed": seed for name in config.methods}
        values |= {f"annotation.{name}.seed": seed for name in config.annotation}
        runs.append(["run", own.path, *own.rest, *_overrides(values)])
    return runs


def seed_directories(own: Given, seeds: Sequence[int]) -> list[str]:
    """The run directories of `seed_arguments`."""
    config = own.config
    return [str(runs_dir(config) / f"{config.name}-s{seed}") for seed in seeds]


def with_suites(own: Given, files: Mapping[str, str | None]) -> Given:
    """The same with a suite for each dataset (gsm8k, math, simuleq) whose file is given.

    With no file at all the suites are those that need none: equations that the environment makes, and
    levels of BabyAI that the policies have not seen. What was given comes after, and may change them.
    Raises `ConfigError` where a file is not there.
    """
    suites: dict[str, Any] = {}
    for dataset, path in files.items():
        if path is not None:
            if not Path(path).exists():
                raise ConfigError(f"--{dataset}: nothing at {path}; check the path")
            options = {"dataset": dataset, "path": path}
            suites[dataset] = {"env": {"id": "maths", "options": options}, **_ANSWER}
    return _with_suites(own, suites or _made(own))


def _made(own: Given) -> dict[str, Any]:
    """Suites that need no file."""
    equations: dict[str, Any] = {"env": {"id": "maths"}, "tasks": 100, **_ANSWER}
    # What was given may change a suite, so both must be there before it is read.
    config = _with_suites(own, {"simuleq": equations, "unseen": equations}).config
    if config.env.id != "babyai":
        return {"simuleq": equations}
    env = {"id": "babyai", "options": {**config.env.options, "levels": list(UNSEEN_LEVELS)}}
    bounds = {"max_steps": config.evaluation.max_steps, "max_tokens": config.evaluation.max_tokens}
    return {"simuleq": equations, "unseen": {"env": env, "tasks": 200, **bounds}}


def _with_suites(own: Given, suites: Mapping[str, Any]) -> Given:
    added = _overrides({f"evaluation.suites.{name}": suite for name, suite in suites.items()})
    return Given(own.path, (*added, *own.rest))


def in_turn(command: Callable[[list[str]], int], calls: Iterable[list[str]]) -> int:
    """Run `depo`'s `command` on each call until one fails or is interrupted; the exit code."""
    return next((code for code in map(command, calls) if code), 0)


def answered(script: Callable[[list[str]], int], arguments: list[str]) -> int:
    """The exit code of a script; an error in what it was given is one line, as `depo` itself writes it, and
    an interruption ends it as it ends `depo`."""
    with interrupts.interruptible():
        try:
            code = script(arguments)
        except (ConfigError, FileNotFoundError) as error:
            print(f"depo: {error}", file=sys.stderr)
            code = 1
        except KeyboardInterrupt:
            code = interrupts.EXIT_CODE
        return interrupts.EXIT_CODE if interrupts.interrupted() else code


def print_paper(own: Given, fields: Collection[str] = ()) -> None:
    """Print the paper's numbers that belong beside a run, unless the output is for machines."""
    if "--json" not in own.rest:
        print(f"\n{paper_text(paper_rows(own.config.env.id, fields))}")


def _overrides(values: Mapping[str, Any]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set", f"{key}={json.dumps(value)}")]
