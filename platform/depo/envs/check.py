"""Checks any environment against the `TextEnv` contract."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depo.envs.base import SnapshotUnsupported, StepResult, TextEnv
from depo.envs.registry import make_env
from depo.records import Task

_ROGUE = ("", " ", "no such action", "go to [[]]", "x" * 10_000, "\x00\x1b[2K", "去红球", "action: action:")
_TASKS, _TURNS = 6, 12


@dataclass(frozen=True)
class Check:
    """One clause of the contract; `detail` says what was seen, first of all where it failed."""

    name: str
    ok: bool
    detail: str = ""


def check_env(env_id: str, options: dict[str, Any]) -> list[Check]:
    """Run every check on a few training tasks. Raises `ConfigError` where the environment cannot be made."""
    env = make_env(env_id, options)
    checks: list[tuple[str, Callable[[TextEnv], str]]] = [
        ("splits share no task", _splits),
        ("the same actions lead to the same episode", _deterministic),
        ("a restored state has the same future", _snapshots),
        ("an invalid action is an observation", _invalid),
        ("available actions are valid", _available),
        ("it survives pickling", _pickles),
    ]
    return [_run(name, check, env) for name, check in checks]


def _run(name: str, check: Callable[[TextEnv], str], env: TextEnv) -> Check:
    try:
        return Check(name, True, check(env))
    except AssertionError as error:
        return Check(name, False, str(error))
    except Exception as error:  # whatever a foreign environment raises is a finding
        return Check(name, False, f"{type(error).__name__}: {error}")


def _tasks(env: TextEnv) -> list[Task]:
    tasks = env.tasks("train", _TASKS)
    _demand(bool(tasks), "tasks('train', n) is empty")
    return tasks


def _splits(env: TextEnv) -> str:
    splits = {split: {t.id for t in env.tasks(split, 40)} for split in ("train", "validation", "test")}
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = splits[a] & splits[b]
        _demand(not shared, f"{a} and {b} share {sorted(shared)[:2]}")
    return ", ".join(f"{len(ids)} {split}" for split, ids in splits.items())


def _deterministic(env: TextEnv) -> str:
    for task in _tasks(env):
        first, actions = _walk(env, task, random.Random(task.seed))
        again = _replay(env, task, actions)
        _demand(first == again, f"{task.id} differs when played again")
    return ""


def _snapshots(env: TextEnv) -> str:
    try:
        env.reset(_tasks(env)[0])
        env.snapshot()
    except SnapshotUnsupported:
        return "no snapshots; search replays actions"
    for task in _tasks(env):
        rng = random.Random(task.seed)
        env.reset(task)
        for _ in range(_TURNS):
            state = env.snapshot()
            action = rng.choice(env.available_actions() or ["none"])
            seen = _seen(env.step(action))
            env.restore(state)
            again = _seen(env.step(action))
            _demand(
                seen == again, f"{task.id}: {action!r} after restore gave {again[0]!r}, before {seen[0]!r}"
            )
            if seen[2] or seen[3]:
                break
    return ""


def _invalid(env: TextEnv) -> str:
    for action in _ROGUE:
        env.reset(_tasks(env)[0])
        result = env.step(action)
        _demand(result.info.get("valid") is False, f"{action[:30]!r} was taken as valid")
        _demand(isinstance(result.observation, str) and result.observation != "", f"{action[:30]!r}: no text")
    return ""


def _available(env: TextEnv) -> str:
    for task in _tasks(env):
        env.reset(task)
        for action in env.available_actions():
            env.reset(task)
            _demand(
                bool(env.step(action).info.get("valid", True)),
                f"{task.id}: {action!r} is offered but invalid",
            )
    return ""


def _pickles(env: TextEnv) -> str:
    task = _tasks(env)[0]
    episode, actions = _walk(env, task, random.Random(1))
    copy = pickle.loads(pickle.dumps(env))
    _demand(_replay(copy, task, actions) == episode, f"{task.id} differs in the copy")
    return ""


def _walk(env: TextEnv, task: Task, rng: random.Random) -> tuple[list[Any], list[str]]:
    seen: list[Any] = [env.reset(task)]
    actions: list[str] = []
    for _ in range(_TURNS):
        actions.append(rng.choice(env.available_actions() or ["none"]))
        seen.append(_seen(env.step(actions[-1])))
        if seen[-1][2] or seen[-1][3]:
            break
    return seen, actions


def _replay(env: TextEnv, task: Task, actions: list[str]) -> list[Any]:
    return [env.reset(task), *(_seen(env.step(action)) for action in actions)]


def _seen(result: StepResult) -> tuple[Any, ...]:
    return (result.observation, result.reward, result.terminated, result.truncated, result.info.get("valid"))


def _demand(condition: bool, message: str) -> None:
    # Not `assert`: the checks must hold under `python -O` too.
    if not condition:
        raise AssertionError(message)
