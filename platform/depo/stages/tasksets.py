"""Which held-out tasks are tried, and where each draw's rollouts lie. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.config.schema import EnvConfig, EvaluationConfig, SuiteConfig
from depo.envs.base import Counted, TextEnv
from depo.envs.registry import make_env
from depo.identity import files_hash
from depo.records import Task


def evaluation_tasks(
    env: EnvConfig, config: EvaluationConfig | SuiteConfig, key: str = "evaluation"
) -> tuple[Task, ...]:
    """The held-out tasks that `config`, which stands at `key`, asks for.

    Raises `ConfigError` naming a key of it where there are not so many, or no such environment.
    """
    return _listed(env.model_dump_json(), config.split, config.skip, config.tasks, key)


def suite_tasks(config: EvaluationConfig, suite: str) -> tuple[Task, ...]:
    """The tasks of one of `evaluation.suites`; raises as `evaluation_tasks` does."""
    own = config.suites[suite]
    return evaluation_tasks(own.env, own, f"evaluation.suites.{suite}")


@lru_cache(maxsize=16)
def _listed(env: str, split: str, skip: int, count: int | None, key: str) -> tuple[Task, ...]:
    config = EnvConfig.model_validate_json(env)
    try:
        world = make_env(config.id, config.options)
    except ConfigError as error:
        # Those of the experiment's own environment stand at the top.
        raise ConfigError(str(error) if key == "evaluation" else f"{key}.{error}") from None
    wanted = skip + count if count is not None else _all(world, split, key)
    try:
        tasks = world.tasks(split, wanted)
    except ConfigError as error:
        raise ConfigError(f"{key}.tasks: {error}") from None
    if len(tasks) < wanted:
        raise ConfigError(
            f"{key}.tasks: {config.id} has {len(tasks)} {split} tasks, not {wanted}; ask for fewer"
        )
    if not tasks[skip:]:
        raise ConfigError(f"{key}.skip: passes over all {wanted} {split} tasks; lower it")
    return tuple(tasks[skip:])


def _all(world: TextEnv, split: str, key: str) -> int:
    count = world.task_count(split) if isinstance(world, Counted) else None
    if count is None:
        raise ConfigError(f"{key}.tasks: {world.id} cannot say how many {split} tasks it has; give a number")
    return count


def draws(config: EvaluationConfig) -> list[tuple[str, int, str]]:
    """(decoding, seed, folder) of each time that the tasks are tried, the table's first.

    The folder lies in that of the method. Further seeds are named in theirs; "greedy" draws nothing
    and takes the first alone.
    """
    return [
        (decoding, seed, decoding if seed == config.seeds[0] else f"{decoding}-seed{seed}")
        for decoding in config.decoding
        for seed in (config.seeds if decoding == "sampled" else config.seeds[:1])
    ]


def files_of(env: EnvConfig) -> dict[str, dict[str, str]]:
    """Hashes of the files that an environment's options name, by option: with other files at the same
    path its tasks are others. What an option `..._dir` names is for the environment to fill."""
    return {
        ".".join(names): files_hash(path)
        for names, path in _paths(env.options)
        if not names[-1].endswith("dir")
    }


def placed(env: EnvConfig) -> EnvConfig:
    """The environment with the paths in its options as workers elsewhere understand them."""
    return env.model_copy(update={"options": _resolved(env.options)})


def _resolved(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _resolved(each) for name, each in value.items()}
    path = _path(value)
    return value if path is None else str(path.resolve())


def _paths(options: Mapping[str, Any], *above: str) -> Iterator[tuple[tuple[str, ...], Path]]:
    """Options, and options within options, that name something on disk."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _paths(value, *above, str(name))
        elif (path := _path(value)) is not None:
            yield (*above, str(name)), path


def _path(value: Any) -> Path | None:
    """What a text names on disk, if anything; a plain word (`math`) is a name, whatever lies beside."""
    # `Path.exists` would raise on a text that is too long for a path.
    named = isinstance(value, str) and ("/" in value or "." in value) and os.path.exists(value)
    return Path(value) if named else None
