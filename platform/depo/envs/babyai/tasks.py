"""Task lists of the three splits, without overlap: published for AgentGym's levels, made for others.

Seeds of the splits come from disjoint ranges. Two seeds, of one level or of two, can still give
the same start state; so every start state belongs to one split, by its fingerprint, and a seed is
kept only where its start state belongs to the range it came from, and is new.

For AgentGym's 40 levels the seeds kept are published in `splits/` (written by
`depo.envs.babyai.publish`), so that a task list needs no start state, and no start state is in the
lists of two levels. Under AgentGym's rules, whose pinned minigrid draws some seeds otherwise, those
seeds are left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import minigrid

from depo.config.base import ConfigError
from depo.envs.babyai.levels import AGENTGYM_LEVELS, Worlds
from depo.envs.babyai.solvable import unsolvable
from depo.records import Task

FIRST_SEED = {"train": 0, "validation": 10_000_000, "test": 20_000_000}
SPLITS = Path(__file__).with_name("splits")
"""Folder of the published lists."""

_SHARES = ("train", "train", "validation", "test")
MOST_MISSES = 2_000
"""Seeds in a row without a new task after which a level counts as used up."""


def fingerprint(world: Any) -> bytes:
    """What the task is that a minigrid level was just reset to, whichever level and seed made it.

    A digest of mission, grid, the agent's place and heading, and what it carries.
    """
    x, y = world.agent_pos
    agent = (int(x), int(y), int(world.agent_dir))
    carried = None if world.carrying is None else _code(world.carrying)
    what = (world.mission, world.grid.width, agent, carried, [_code(thing) for thing in world.grid.grid])
    return hashlib.blake2b(repr(what).encode(), digest_size=16).digest()


def _code(thing: Any) -> Any:
    if thing is None:
        return 0
    if thing.type == "wall":
        return 1
    return (*thing.encode(), _code(thing.contains))


def split_of(found: bytes) -> str:
    """The split a start state belongs to by its fingerprint: half train, a quarter each of the others."""
    return _SHARES[found[0] % len(_SHARES)]


@dataclass(frozen=True, slots=True)
class Listed:
    """One level's published tasks of one split."""

    seeds: tuple[int, ...]
    drawn_otherwise: tuple[int, ...]
    """Those of `seeds` that AgentGym's pinned minigrid makes another start state of."""
    complete: bool
    """Whether the level has no more tasks of this split."""
    first: str
    """`digest` of the first task's start state."""
    all: str
    """`digest` of all the start states."""


@dataclass(frozen=True, slots=True)
class Published:
    """One split as it was published."""

    minigrid: str
    """The release that makes these start states."""
    levels: Mapping[str, Listed]


@lru_cache
def published(split: str, folder: Path = SPLITS) -> Published:
    """The published lists of a split, read once."""
    read = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
    levels = {
        level: Listed(
            tuple(row["seeds"]), tuple(row["drawn_otherwise"]), row["complete"], row["first"], row["all"]
        )
        for level, row in read["levels"].items()
    }
    return Published(read["minigrid"], MappingProxyType(levels))


def digest(fingerprints: Iterable[bytes]) -> str:
    """One short digest of start states in order."""
    return hashlib.blake2b(b"".join(fingerprints), digest_size=8).hexdigest()


class TaskList:
    """The tasks of one split, over levels in turn; grown on demand, so a shorter list is a prefix.

    A level gives its published tasks, then those of the seeds that follow. It is used up, and
    loses its turn to the others, once it is without a new task in 2,000 seeds: `OpenRedDoor`, for
    one, has only 105 start states in all. `pinned` gives tasks as AgentGym's pinned minigrid makes
    them; `folder` holds the published lists.
    """

    def __init__(
        self, env: str, levels: Sequence[str], split: str, pinned: bool = False, folder: Path = SPLITS
    ) -> None:
        if split not in FIRST_SEED:
            raise ConfigError(f"unknown split {split!r}; use one of {', '.join(FIRST_SEED)}")
        self._env, self._split = env, split
        self._levels, self._turn = list(levels), 0
        self._worlds, self._pinned = Worlds(pinned), pinned
        self._tasks: list[Task] = []
        self._published = published(split, folder)
        self._given = dict.fromkeys(levels, 0)
        """Published tasks handed out, by level."""
        self._next_seed = dict.fromkeys(levels, FIRST_SEED[split])
        self._taken: set[bytes] | None = None
        """Start states handed out; kept from the first seed on that is not published."""

    def first(self, count: int) -> list[Task]:
        """The first `count` tasks.

        Raises `ConfigError` where the levels have no more to give, and where minigrid makes other
        start states than those published.
        """
        while len(self._tasks) < count:
            if not self._levels:
                raise ConfigError(
                    f"the levels have only {len(self._tasks)} different {self._split} tasks, {count} were "
                    "asked for; ask for fewer, or add levels"
                )
            task = self._following(self._levels[self._turn])
            if task is None:
                self._levels.pop(self._turn)
            else:
                self._tasks.append(task)
                self._turn += 1
            self._turn %= len(self._levels) or 1
        return self._tasks[:count]

    def _following(self, level: str) -> Task | None:
        listed = self._published.levels.get(level)
        if listed is None:
            return self._search(level)
        if not self._given[level]:
            self._check(level, listed)
        while self._given[level] < len(listed.seeds):
            task = self._task(level, listed.seeds[self._given[level]])
            self._given[level] += 1
            self._next_seed[level] = task.seed + 1
            if self._pinned and task.seed in listed.drawn_otherwise:
                continue
            if self._taken is None:
                return task
            found = self._fingerprint(task)
            if found not in self._taken:
                self._taken.add(found)
                return task
        return None if listed.complete else self._search(level)

    def _search(self, level: str) -> Task | None:
        """The next task that is not published."""
        if self._taken is None:
            self._taken = {self._fingerprint(task) for task in self._tasks}
        start = self._next_seed[level]
        for seed in range(start, start + MOST_MISSES):
            task = self._task(level, seed)
            found = self._fingerprint(task)
            known = found in self._taken or split_of(found) != self._split
            if known or unsolvable(self._worlds[level]):
                continue
            self._taken.add(found)
            self._next_seed[level] = seed + 1
            return task
        return None

    def _check(self, level: str, listed: Listed) -> None:
        """The first start state is always compared; all of them where minigrid is another release."""
        version = self._published.minigrid
        same = version == minigrid.__version__
        seeds, expected = (listed.seeds[:1], listed.first) if same else (listed.seeds, listed.all)
        worlds = Worlds() if level in AGENTGYM_LEVELS else self._worlds
        if digest(_start(worlds[level], seed) for seed in seeds) != expected:
            raise ConfigError(
                f"minigrid {minigrid.__version__} makes other tasks of level {level!r} than those published "
                f"for {version}; install minigrid {version} and a NumPy of its time"
            )

    def _task(self, level: str, seed: int) -> Task:
        return Task(self._env, level, seed, self._split)

    def _fingerprint(self, task: Task) -> bytes:
        return _start(self._worlds[task.level], task.seed)


def _start(world: Any, seed: int) -> bytes:
    world.reset(seed=seed)
    return fingerprint(world)
