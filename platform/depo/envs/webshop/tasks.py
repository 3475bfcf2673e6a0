"""Task lists of the three splits, without leaks.

Goals that share their product, or ask for the same in the same words (in whatever form or order),
belong together, through any number of steps; a whole such group belongs to one split.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest

from depo.config.base import ConfigError
from depo.envs.webshop.analysis import search_terms
from depo.envs.webshop.product import Goal
from depo.envs.webshop.wording import essence
from depo.records import Task

SPLITS = ("train", "validation", "test")
_SHARES = ("train", "train", "validation", "test")
"""Half of the groups train, a quarter each are for the others."""


class Splits:
    """Which goal of a shop belongs to which split; worked out once, in one pass over the goals."""

    def __init__(self, goals: Sequence[Goal]) -> None:
        self._levels: dict[str, dict[str, list[int]]] = {split: defaultdict(list) for split in SPLITS}
        groups = _Groups()
        facts = []
        for goal in goals:
            request = " ".join(sorted(set(search_terms(" ".join(essence(goal))))))
            groups.join(f"asin {goal.asin}", f"words {request}")
            facts.append((goal.asin, request, goal.difficulty))
        taken: set[tuple[str, str]] = set()
        later: list[int] = []
        for index, (asin, request, _) in enumerate(facts):
            if (asin, request) in taken:
                later.append(index)
                continue
            taken.add((asin, request))
            self._place(index, facts[index], groups)
        for index in later:
            self._place(index, facts[index], groups)

    def _place(self, index: int, fact: tuple[str, str, str], groups: _Groups) -> None:
        digest = hashlib.sha256(groups.name(f"asin {fact[0]}").encode()).digest()
        self._levels[_SHARES[digest[0] % len(_SHARES)]][fact[2]].append(index)

    def tasks(
        self, env: str, split: str, count: int, levels: Sequence[str], fits: Callable[[Task], bool]
    ) -> list[Task]:
        """The first `count` tasks that fit, over the levels in turn; a level used up loses its turn.

        Within a level new requests come before the same request with other options. Raises
        `ConfigError` for an unknown split or level, and where there are too few goals.
        """
        if split not in SPLITS:
            raise ConfigError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
        known = sorted({level for split in SPLITS for level in self._levels[split]})
        for level in levels:
            if level not in known:
                raise ConfigError(f"levels: unknown level {level!r}; the goals have {', '.join(known)}")
        queues = [filter(fits, self._queue(env, level, split)) for level in levels or known]
        tasks = list(islice(_in_turn(queues), count))
        if len(tasks) < count:
            raise ConfigError(
                f"the shop has only {len(tasks)} {split} goals, {count} were asked for; ask for fewer, or "
                "give a larger catalogue"
            )
        return tasks

    def _queue(self, env: str, level: str, split: str) -> Iterator[Task]:
        return (Task(env, level, goal, split) for goal in self._levels[split].get(level, ()))


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
