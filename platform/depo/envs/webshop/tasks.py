"""Task lists of the three splits, without leaks.

Goals that share their product, or ask for the same in the same words (in whatever form or order),
belong together, through any number of steps; a whole such group belongs to one split.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from depo.config.base import ConfigError
from depo.envs.webshop.analysis import search_terms
from depo.envs.webshop.heap import load_array
from depo.envs.webshop.product import Goal
from depo.envs.webshop.store import Shop
from depo.envs.webshop.wording import essence
from depo.records import Task

_VERSION = 1
"""Goes up when goals are placed otherwise, so that no list of an earlier release is read."""

SPLITS = ("train", "validation", "test")
_SHARES = ("train", "train", "validation", "test")
"""Half of the groups train, a quarter each are for the others."""


def place(goals: Sequence[Goal]) -> dict[tuple[str, str], list[int]]:
    """(split, level) to its goals; new requests come before the same request with other options.

    Takes one pass over all goals, seconds for a large catalogue.
    """
    groups = _Groups()
    facts = []
    for goal in goals:
        request = " ".join(sorted(set(search_terms(" ".join(essence(goal))))))
        groups.join(f"asin {goal.asin}", f"words {request}")
        facts.append((goal.asin, request, goal.difficulty))
    taken: set[tuple[str, str]] = set()
    first: list[int] = []
    later: list[int] = []
    for index, (asin, request, _) in enumerate(facts):
        (later if (asin, request) in taken else first).append(index)
        taken.add((asin, request))
    placed: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in [*first, *later]:
        asin, _, level = facts[index]
        digest = hashlib.sha256(groups.name(f"asin {asin}").encode()).digest()
        placed[_SHARES[digest[0] % len(_SHARES)], level].append(index)
    return placed


class Splits:
    """Which goal of a shop belongs to which split; kept beside the shop, and mapped like it."""

    def __init__(self, shop: Shop) -> None:
        def build(folder: Path) -> None:
            for (split, level), goals in place(shop.goals).items():
                np.save(folder / f"{split}.{level}.npy", np.array(goals, np.int32))

        folder = shop.derived(f"splits-{_VERSION}", build)
        self._levels: dict[str, dict[str, np.ndarray]] = {split: {} for split in SPLITS}
        for path in folder.glob("*.npy"):
            split, level = path.stem.split(".", 1)
            self._levels[split][level] = load_array(path)

    def tasks(
        self, env: str, split: str, count: int, levels: Sequence[str], fits: Callable[[Task], bool]
    ) -> list[Task]:
        """The first `count` tasks that fit, over the levels in turn; a level used up loses its turn.

        Raises `ConfigError` for an unknown split or level, and where there are too few goals.
        """
        tasks = list(islice(self._fitting(env, split, levels, fits), count))
        if len(tasks) < count:
            raise ConfigError(
                f"the shop has only {len(tasks)} {split} goals, {count} were asked for; ask for fewer, or "
                "give a larger catalogue"
            )
        return tasks

    def count(self, env: str, split: str, levels: Sequence[str], fits: Callable[[Task], bool]) -> int:
        """How many tasks fit; raises as `tasks` does."""
        return sum(1 for _ in self._fitting(env, split, levels, fits))

    def _fitting(
        self, env: str, split: str, levels: Sequence[str], fits: Callable[[Task], bool]
    ) -> Iterator[Task]:
        if split not in SPLITS:
            raise ConfigError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
        known = sorted({level for split in SPLITS for level in self._levels[split]})
        for level in levels:
            if level not in known:
                raise ConfigError(f"levels: unknown level {level!r}; the goals have {', '.join(known)}")
        return _in_turn([filter(fits, self._queue(env, level, split)) for level in levels or known])

    def _queue(self, env: str, level: str, split: str) -> Iterator[Task]:
        return (Task(env, level, int(goal), split) for goal in self._levels[split].get(level, ()))


def _in_turn(queues: Sequence[Iterator[Task]]) -> Iterator[Task]:
    for row in zip_longest(*queues):
        yield from (task for task in row if task is not None)


class _Groups:
    """Disjoint sets of names; a set is known by its least member, whatever was joined first."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def name(self, member: str) -> str:
        parent = self._parent.setdefault(member, member)
        while parent != self._parent[parent]:
            self._parent[member] = self._parent[parent]
            member, parent = parent, self._parent[parent]
        return parent

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.name(one), self.name(other)))
        self._parent[high] = low
