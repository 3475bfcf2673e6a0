"""Checks any environment against the `TextEnv` contract."""

from __future__ import annotations

import pickle
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from depo.config.base import ConfigError
from depo.envs.base import Counted, SnapshotUnsupported, StepResult, TextEnv, received
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
_TASKS, _TURNS = 6, 12
_MOST, _ENDLESS = 10_000, 200
"""Tasks of a split that are listed of an environment that cannot count them, and of one without end."""
_ALIKE = 0.1
"""Share of a split's tasks that may play like another split's."""
_LISTING_S, _PLAYING_S = 3.0, 5.0
"""Seconds to list the tasks of a split, and to begin those of all splits; as many to play those alike."""
_METHODS = ("reset", "step", "available_actions", "snapshot", "restore", "tasks")

Seen = tuple[str, str, bool, bool, Any]


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
        ("rewards are finite numbers", _rewards),
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


def _every(env: TextEnv, split: str) -> list[Task]:
    """All tasks of a split; where they have no end, or it takes more than seconds, the first of them."""
    counted = isinstance(env, Counted)
    count = env.task_count(split) if isinstance(env, Counted) else None
    if count is not None:
        return env.tasks(split, count) if count else []
    most = _ENDLESS if counted else _MOST
    found: list[Task] = []
    until, refused, count = time.monotonic() + _LISTING_S, most + 1, min(_TASKS, most)
    while count > len(found) and (not found or time.monotonic() < until):
        try:
            tasks = env.tasks(split, count)
        except ValueError:
            refused = count
        else:
            if len(tasks) < count:
                return tasks
            found = tasks
        count = min(2 * count, most) if refused > most else (len(found) + refused) // 2
    return found


def _splits(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    _tasks(env)
    tasks = {split: _every(env, split) for split in SPLITS}
    owners: dict[str, str] = {}
    for split, found in tasks.items():
        twice = [id for id, times in Counter(task.id for task in found).items() if times > 1]
        _demand(not twice, f"{split} has {twice[:2]} more than once")
        _demand(all(task.split == split for task in found), f"a task of {split} names another split")
        again = env.tasks(split, len(found)) if found else []
        _demand(found == again, f"{split} has other tasks when asked again")
        for task in found:
            owner = owners.setdefault(task.id, split)
            _demand(owner == split, f"{owner} and {split} share {task.id}")
    said = ", ".join(f"{len(found)} {split}" for split, found in tasks.items()) + _same_games(env, tasks)
    try:
        env.tasks("no such split", 1)
    except ValueError:
        return said
    raise AssertionError("tasks('no such split', 1) raises no ValueError")


def _same_games(env: TextEnv, tasks: dict[str, list[Task]]) -> str:
    """Demand that few tasks of one split play like one of another; what else there is to say of it.

    Tasks that begin alike are played: different ones may share a first observation where the agent sees
    little. A few that read the same to the end are chance where a world is small; they are told.
    """
    until = time.monotonic() + _PLAYING_S
    begin: dict[str, list[Task]] = defaultdict(list)
    looked_at: Counter[str] = Counter()
    for task in (task for row in zip_longest(*tasks.values()) for task in row if task is not None):
        if time.monotonic() > until:
            break
        begin[env.reset(task)].append(task)
        looked_at[task.split] += 1
    alike: dict[str, list[str]] = defaultdict(list)
    for group in (group for group in begin.values() if len({task.split for task in group}) > 1):
        if time.monotonic() > until + _PLAYING_S:
            break
        owners: dict[str, Task] = {}
        for task in group:
            owner = owners.setdefault(_played(env, task), task)
            if owner.split != task.split:
                both = f"{owner.split} and {task.split} share {owner.id}, which plays like {task.id}"
                alike[task.split].append(both)
    told = ""
    for split, found in alike.items():
        share = f"{found[0]} ({len(found)} of {looked_at[split]} {split} tasks are another split's)"
        _demand(len(found) <= _ALIKE * looked_at[split], share)
        told += f"; {share}"
    left = sum(map(len, tasks.values())) - looked_at.total()
    return told + (f"; time was up before {left} of them" if left else "")


def _played(env: TextEnv, task: Task) -> str:
    """What a task looks like through three random walks: two tasks that differ differ here."""
    return repr([_walk(env, task, random.Random(walk))[0] for walk in range(3)])


def _deterministic(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    other = make()
    episodes = [(task, *_walk(env, task, random.Random(task.seed))) for task in _tasks(env)]
    # In another order, and in another instance: nothing may leak from one episode into the next.
    for task, first, actions in reversed(episodes):
        for again in (_replay(env, task, actions), _replay(other, task, actions)):
            _demand(first == again, f"{task.id} differs when played again: {_difference(first, again)}")
    return ""


def _rewards(env: TextEnv, make: Callable[[], TextEnv]) -> str:
    for task in _tasks(env):
        rng = random.Random(task.seed)
        env.reset(task)
        for action in ("no such action", *([""] * _TURNS)):
            result = received(env.step(action or rng.choice(_choices(env))))
            if result.terminated or result.truncated:
                break
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
    # As text, since NaN differs from itself; another clause is about that.
    reward = repr(result.reward)
    return (result.observation, reward, result.terminated, result.truncated, result.info.get("valid"))


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
