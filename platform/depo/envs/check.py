"""Checks any environment against the `TextEnv` contract."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depo.config.base import ConfigError
from depo.envs.base import SnapshotUnsupported, StepResult, TextEnv
from depo.envs.registry import make_env
from depo.records import Task

SPLITS = ("train", "validation", "test")
ROGUE = {
    "an empty string": "",
    "a blank": " ",
    "unknown words": "no such action",
    "10,000 characters": "x" * 10_000,
    "control characters": "\x00\x1b[2K\x07",
    "brackets": "go to [[]]",
    "nested brackets": "click" + "[" * 40 + "a" + "]" * 40,
    "another script": "去红球",
    "the prompt's words": "action: action:",
}
"""Action strings that no environment may take as valid, by what is odd about them."""
_OPEN = ("1", "42", "look", "none")
"""What is tried where an environment offers no actions because any text will do."""
_TASKS, _SPLIT_TASKS, _TURNS = 6, 40, 12
_METHODS = ("reset", "step", "available_actions", "snapshot", "restore", "tasks")

Seen = tuple[str, float, bool, bool, Any]


@dataclass(frozen=True)
class Check:
    """One clause of the contract; `detail` says what was seen, first of all where it failed."""

    name: str
    ok: bool
    detail: str = ""


def check_env(env_id: str, options: dict[str, Any]) -> list[Check]:
    """Run every check on a few tasks; whatever a foreign environment raises is a finding.

    Raises `ConfigError` for an environment that cannot be found, or options that it does not take.
    """

    def make() -> TextEnv:
        return make_env(env_id, options)

    try:
        env = make()
    except ConfigError:
        raise
    except Exception as error:
        return [Check("it can be made", False, _describe(error))]
    shape = _run("it has what the contract names", _shape, env, make)
    if not shape.ok:
        return [shape]
    checks: list[tuple[str, Callable[[TextEnv, Callable[[], TextEnv]], str]]] = [
        ("splits share no task", _splits),
        ("the same actions lead to the same episode", _deterministic),
        ("a restored state has the same future", _snapshots),
        ("an invalid action is an observation", _invalid),
        ("an invalid action changes nothing", _unmoved),
        ("available actions are valid", _available),
        ("it survives pickling", _pickles),
    ]
    return [shape, *(_run(name, check, env, make) for name, check in checks)]


def _run(
    name: str,
    check: Callable[[TextEnv, Callable[[], TextEnv]], str],
    env: TextEnv,
    make: Callable[[], TextEnv],
) -> Check:
    try:
        return Check(name, True, check(env, make))
    except AssertionError as error:
        return Check(name, False, str(error) or "an assertion in the environment failed")
    except Exception as error:
        return Check(name, False, _describe(error))


def _describe(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _shape(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    missing = [name for name in _METHODS if not callable(getattr(env, name, None))]
    _demand(not missing, f"no method {', '.join(missing)}")
    for name in ("id", "system"):
        _demand(isinstance(getattr(env, name, None), str), f"{name} is no text")
    return ""


def _some(env: TextEnv, split: str, most: int) -> list[Task]:
    """Up to `most` tasks of a split; an environment may refuse to give more than it has."""
    for count in (most, most // 4, 3, 1):
        try:
            return env.tasks(split, count)
        except ValueError:
            continue
    return []


def _tasks(env: TextEnv) -> list[Task]:
    for split in SPLITS:
        tasks = _some(env, split, _TASKS)
        if tasks:
            return tasks
    raise AssertionError("no split has a task")


def _splits(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    tasks = {split: _some(env, split, _SPLIT_TASKS) for split in SPLITS}
    _tasks(env)
    for split, found in tasks.items():
        twice = [id for id, times in Counter(task.id for task in found).items() if times > 1]
        _demand(not twice, f"{split} has {twice[:2]} more than once")
        _demand(all(task.split == split for task in found), f"a task of {split} names another split")
        _demand(found == _some(env, split, _SPLIT_TASKS), f"{split} has other tasks when asked again")
    owners: dict[str, tuple[str, str]] = {}
    for split, found in tasks.items():
        marks = [(task, task.id) for task in found]
        marks += [(task, _played(env, task)) for task in found[:_TASKS]]
        for task, mark in marks:
            owner, first = owners.setdefault(mark, (split, task.id))
            also = "" if first == task.id else f", which plays like {task.id}"
            _demand(owner == split, f"{owner} and {split} share {first}{also}")
    try:
        env.tasks("no such split", 1)
    except ValueError:
        return ", ".join(f"{len(found)} {split}" for split, found in tasks.items())
    raise AssertionError("tasks('no such split', 1) raises no ValueError")


def _played(env: TextEnv, task: Task) -> str:
    """What a task looks like through three random walks: two tasks that differ differ here.

    The first observation alone may be shared by different tasks where the agent sees little.
    """
    return repr([_walk(env, task, random.Random(walk))[0] for walk in range(3)])


def _deterministic(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    other = make()
    episodes = [(task, *_walk(env, task, random.Random(task.seed))) for task in _tasks(env)]
    # In another order, and in another instance: nothing may leak from one episode into the next.
    for task, first, actions in reversed(episodes):
        for again in (_replay(env, task, actions), _replay(other, task, actions)):
            _demand(first == again, f"{task.id} differs when played again: {_difference(first, again)}")
    return ""


def _snapshots(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    try:
        env.reset(_tasks(env)[0])
        env.snapshot()
    except SnapshotUnsupported:
        return "no snapshots; search replays actions"
    other = make()
    for task in _tasks(env):
        rng = random.Random(task.seed)
        seen: list[Any] = [env.reset(task)]
        actions: list[str] = []
        states = [env.snapshot()]
        while len(actions) < _TURNS and not _over(seen):
            actions.append(rng.choice(_choices(env)))
            seen.append(_seen(env.step(actions[-1])))
            states.append(env.snapshot())
        for at in rng.sample(range(len(states)), len(states)):
            for each in (env, other):
                each.restore(states[at])
                future = [_seen(each.step(action)) for action in actions[at:]]
                difference = _difference(seen[at + 1 :], future)
                _demand(not difference, f"{task.id}, restored after {at} actions: {difference}")
    return ""


def _invalid(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    task = _tasks(env)[0]
    for what, action in ROGUE.items():
        env.reset(task)
        result = env.step(action)
        _demand(isinstance(result, StepResult), f"{what}: step gave {type(result).__name__}, no StepResult")
        _demand(result.info.get("valid") is False, f"{what}: {action[:30]!r} was taken as valid")
        _demand(isinstance(result.observation, str) and result.observation != "", f"{what}: no observation")
        _demand(not (result.terminated or result.truncated), f"{what}: {action[:30]!r} ended the episode")
    return ""


def _unmoved(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    for number, task in enumerate(_tasks(env)):
        seen, actions = _walk(env, task, random.Random(task.seed))
        env.reset(task)
        offered = env.available_actions()
        what, rogue = list(ROGUE.items())[number % len(ROGUE)]
        env.step(rogue)
        _demand(env.available_actions() == offered, f"{task.id}: {what} changed the available actions")
        future = [_seen(env.step(action)) for action in actions]
        difference = _difference(seen[1:], future)
        _demand(not difference, f"{task.id}: {what} changed the episode: {difference}")
    return ""


def _available(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    open_ended = True
    for task in _tasks(env):
        env.reset(task)
        for action in env.available_actions():
            open_ended = False
            env.reset(task)
            valid = env.step(action).info.get("valid", True)
            _demand(bool(valid), f"{task.id}: {action!r} is offered but invalid")
    return "none offered; any text may be an action" if open_ended else ""


def _pickles(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    task = _tasks(env)[0]
    episode, actions = _walk(env, task, random.Random(1))
    copy = pickle.loads(pickle.dumps(env))
    difference = _difference(episode, _replay(copy, task, actions))
    _demand(not difference, f"{task.id} differs in the copy: {difference}")
    half = len(actions) // 2
    _replay(env, task, actions[:half])
    copy = pickle.loads(pickle.dumps(env))
    difference = _difference(episode[half + 1 :], [_seen(copy.step(action)) for action in actions[half:]])
    _demand(not difference, f"{task.id}, pickled after {half} actions: {difference}")
    return ""


def _choices(env: TextEnv) -> list[str]:
    return env.available_actions() or list(_OPEN)


def _walk(env: TextEnv, task: Task, rng: random.Random) -> tuple[list[Any], list[str]]:
    """A random episode of up to 12 actions: all that was seen, and the actions."""
    first = env.reset(task)
    _demand(isinstance(first, str) and first != "", f"{task.id}: reset gave {first!r}, no observation")
    seen: list[Any] = [first]
    actions: list[str] = []
    while len(actions) < _TURNS and not _over(seen):
        actions.append(rng.choice(_choices(env)))
        seen.append(_seen(env.step(actions[-1])))
    return seen, actions


def _replay(env: TextEnv, task: Task, actions: list[str]) -> list[Any]:
    return [env.reset(task), *(_seen(env.step(action)) for action in actions)]


def _seen(result: StepResult) -> Seen:
    return (result.observation, result.reward, result.terminated, result.truncated, result.info.get("valid"))


def _over(seen: list[Any]) -> bool:
    return len(seen) > 1 and (seen[-1][2] or seen[-1][3])


def _difference(first: list[Any], again: list[Any]) -> str:
    """Where two episodes part, in words; "" where they do not."""
    for turn, (a, b) in enumerate(zip(first, again, strict=True)):
        if a != b:
            return f"at {turn}, {str(b)[:150]!r} instead of {str(a)[:150]!r}"
    return ""


def _demand(condition: bool, message: str) -> None:
    # Not `assert`: the checks must hold under `python -O` too.
    if not condition:
        raise AssertionError(message)
