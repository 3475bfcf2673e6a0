"""Task lists of the three splits, without overlap.

Seeds of the splits come from disjoint ranges. Two seeds, of one level or of two, can still give
the same start state; so every start state belongs to one split, by its fingerprint, and a seed is
kept only where its start state belongs to the range it came from, and is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigrid.envs.babyai.core.verifier import AfterInstr, BeforeInstr, OpenInstr

from depo.config.base import ConfigError
from depo.envs.babyai.levels import Worlds
from depo.envs.babyai.state import Start
from depo.records import Task

FIRST_SEED = {"train": 0, "validation": 10_000_000, "test": 20_000_000}
_SHARES = ("train", "train", "validation", "test")
_MOST_MISSES = 2_000
"""Seeds in a row without a new task after which a level counts as used up."""


def split_of(fingerprint: bytes) -> str:
    """The split a start state belongs to: half of them train, a quarter each of the others."""
    return _SHARES[fingerprint[0] % len(_SHARES)]


def _unsolvable(instr: Any) -> bool:
    """Whether minigrid itself rules success out.

    Where two doors are to be opened in order and the second strictly, minigrid tests the second
    clause on the very toggle that fulfils the first, and calls it failed.
    """
    if not isinstance(instr, BeforeInstr | AfterInstr):
        return False
    parts = [instr.instr_a, instr.instr_b]
    both_open = all(isinstance(part, OpenInstr) for part in parts)
    return both_open and parts[isinstance(instr, BeforeInstr)].strict


class TaskList:
    """The tasks of one split, over levels in turn; grown on demand, so a shorter list is a prefix.

    A level without a new task in 2,000 seeds is used up and loses its turn to the others:
    `OpenRedDoor`, for one, has only 108 start states in all.
    """

    def __init__(self, env: str, levels: Sequence[str], split: str) -> None:
        if split not in FIRST_SEED:
            raise ConfigError(f"unknown split {split!r}; use one of {', '.join(FIRST_SEED)}")
        self._env, self._split = env, split
        self._levels, self._turn = list(levels), 0
        self._worlds = Worlds()
        self._tasks: list[Task] = []
        self._taken: set[bytes] = set()
        self._next_seed = dict.fromkeys(levels, FIRST_SEED[split])

    def first(self, count: int) -> list[Task]:
        """The first `count` tasks. Raises `ConfigError` where the levels have no more to give."""
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
        start = self._next_seed[level]
        for seed in range(start, start + _MOST_MISSES):
            task = Task(self._env, level, seed, self._split)
            begin = Start(self._worlds[level], task)
            digest = begin.fingerprint()
            if digest in self._taken or split_of(digest) != self._split or _unsolvable(begin.instrs):
                continue
            self._taken.add(digest)
            self._next_seed[level] = seed + 1
            return task
        return None
