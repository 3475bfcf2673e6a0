"""Which trajectories are shown before and after: chosen by rule, never by hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from depo.records import Trajectory


@dataclass(frozen=True)
class Example:
    """One task as two policies did it."""

    why: str
    """The rule that chose it."""
    before: Trajectory
    after: Trajectory


def pick_examples(before: Iterable[Trajectory], after: Iterable[Trajectory]) -> list[Example]:
    """Up to three tasks that both policies tried: the median saving, the largest, and a failure.

    Savings are in tokens, over tasks both solved; ties go by task id. The failure is the first
    task that `after` fails, or else that `before` fails.
    """
    first = {trajectory.task.id: trajectory for trajectory in before}
    second = {trajectory.task.id: trajectory for trajectory in after}
    tasks = sorted(first.keys() & second.keys())

    def saving(task: str) -> tuple[int, str]:
        return second[task].num_tokens - first[task].num_tokens, task

    solved = sorted((task for task in tasks if first[task].success and second[task].success), key=saving)
    chosen: dict[str, str] = {}
    if solved:
        chosen[solved[(len(solved) - 1) // 2]] = "median change in tokens, of tasks both solve"
        chosen.setdefault(solved[0], "largest saving in tokens, of tasks both solve")
    failed = [task for task in tasks if not second[task].success]
    failed += [task for task in tasks if second[task].success and not first[task].success]
    if failed:
        chosen[failed[0]] = "first failure, in order of task"
    return [Example(why, first[task], second[task]) for task, why in chosen.items()]
