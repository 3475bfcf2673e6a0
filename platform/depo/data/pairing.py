"""Which samples of a task are paired, for objectives and formats that compare two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import lcm

from depo.records import content_hash


def pair_up(
    tasks: Sequence[str], desirable: Sequence[bool], ids: Sequence[str], per_task: int, seed: int
) -> list[tuple[int, int]]:
    """Pairs of places (desirable, undesirable), up to `per_task` of each task that has both.

    Which ones is decided by a hash of seed and ids, so that it depends on the samples and not on their
    order. Every pair comes up once, and all samples of a task are used before one is used again.
    """
    by_task: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for place, (task, good) in enumerate(zip(tasks, desirable, strict=True)):
        by_task[task][0 if good else 1].append(place)
    pairs: list[tuple[int, int]] = []
    for task in sorted(by_task):
        chosen, rejected = (
            sorted(some, key=lambda place: content_hash([seed, ids[place]])) for some in by_task[task]
        )
        around = lcm(len(chosen), len(rejected))
        # Along the diagonals of the table of all pairs.
        pairs += [
            (chosen[k % len(chosen)], rejected[(k + k // around) % len(rejected)])
            for k in range(min(per_task, len(chosen) * len(rejected)))
        ]
    return pairs
