"""GSM8K, MATH and SimulEq as a text environment of one answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from depo.config.base import ConfigError
from depo.envs.base import StepResult
from depo.envs.maths import answers, data, simuleq
from depo.envs.maths.answers import Answer
from depo.records import Task, content_hash

_SOURCES = {
    "gsm8k": "github.com/openai/grade-school-math or huggingface.co/datasets/openai/gsm8k",
    "math": "github.com/hendrycks/math, or its 500 at huggingface.co/datasets/HuggingFaceH4/MATH-500",
}
SPLITS = ("train", "validation", "test")
SYSTEM = (
    "You get a maths problem. Think it through, then give its answer, and nothing else, as your action: "
    "a number, a fraction such as 3/4, or LaTeX; where several values are asked for, list them with commas, "
    "such as `x = 3, y = 1/2`. Write no units and leave no sum to do. You have one try.\n"
    "Reply with a line `Thought: ` and your reasoning, then a line `Action: ` and the answer."
)


@dataclass(frozen=True)
class State:
    """A task and what came of it: "" while it is open, then "right" or "wrong"."""

    task: Task
    outcome: str = ""


class MathsEnv:
    """One problem, one answer: reward 1 and success for the right one, 0 for a wrong one; either ends it.

    `dataset` is "gsm8k", "math" or "simuleq"; `path` its public file (JSONL, JSON, Parquet, or MATH's
    folder), whose problems all belong to the test split: these are out-of-domain sets, nothing is trained
    on them. Without a path, "simuleq" is generated: level `simuleq-2` has two `unknowns`, `simuleq-3` three,
    and the splits share no equations. Levels of MATH are `math-1` to `math-5`. A task's seed is the row of
    the file, from 0, or the seed of the generator.

    What cannot be meant as an answer (empty, over 500 characters, unprintable, words) is an invalid action:
    the problem stays open. Raises `ConfigError` naming file, row and field where the file is malformed.
    """

    id: ClassVar[str] = "maths"

    def __init__(
        self,
        dataset: Literal["gsm8k", "math", "simuleq"] = "simuleq",
        path: str | None = None,
        unknowns: Sequence[int] = (2, 3),
    ) -> None:
        if dataset not in ("gsm8k", "math", "simuleq"):
            raise ConfigError(f"dataset: give gsm8k, math or simuleq, not {dataset!r}")
        if path is not None and not isinstance(path, str):
            raise ConfigError(f"path: give a file's path, not {path!r}")
        if path is None and dataset in _SOURCES:
            raise ConfigError(
                f"path: {dataset} needs its public file, from {_SOURCES[dataset]}; set path to it"
            )
        if not isinstance(unknowns, list | tuple) or not unknowns or not set(unknowns) <= {2, 3}:
            raise ConfigError(f"unknowns: give a list of 2, 3 or both, not {unknowns!r}")
        self.system = SYSTEM
        self._options = (dataset, path, tuple(dict.fromkeys(unknowns)))
        self._rows = () if path is None else data.load(dataset, path)
        self._state: State | None = None
        self._question, self._answer = "", Answer(("",))

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self._options, "state": self._state}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(*saved["options"])  # type: ignore[misc]
        if saved["state"] is not None:
            self.restore(saved["state"])

    def reset(self, task: Task) -> str:
        """Start `task`; raises `ConfigError` for a level or seed that there is not."""
        self._question, self._answer = self._find(task)
        self._state = State(task)
        return f"Problem: {self._question}"

    def step(self, action: str) -> StepResult:
        state = self.snapshot()
        if state.outcome:
            return self._result("The problem has been answered.", state.outcome, valid=False)
        if not answers.readable(action):
            unreadable = "That cannot be read as an answer. Give a number, an expression or one word."
            return self._result(f"{unreadable}\nProblem: {self._question}", "", valid=False)
        outcome = "right" if answers.equal(self._answer, action) else "wrong"
        self._state = State(state.task, outcome)
        said = "That is the right answer." if outcome == "right" else "That is not the answer."
        return self._result(said, outcome, valid=True)

    def available_actions(self) -> list[str]:
        """Always empty: any text may be an answer."""
        return []

    def snapshot(self) -> State:
        if self._state is None:
            raise RuntimeError("no task is running; call reset(task) first")
        return self._state

    def restore(self, state: State) -> None:
        if self._state is None or self._state.task != state.task:
            self.reset(state.task)
        self._state = state

    def tasks(self, split: str, count: int) -> list[Task]:
        """The first `count` tasks of a split, levels in turn; a file is shuffled, always in the same way.

        Raises `ConfigError` for a split without tasks, or with fewer.
        """
        if split not in SPLITS:
            raise ConfigError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
        dataset, path, unknowns = self._options
        if path is not None and split != "test":
            raise ConfigError(f"{dataset}: {path} holds test tasks only, no {split} tasks; evaluate on them")
        if path is None:
            streams = {f"simuleq-{n}": simuleq.stream(split, n) for n in unknowns}
        else:
            streams = {level: iter(seeds) for level, seeds in self._levels().items()}
        turns = itertools.zip_longest(
            *([(level, seed) for seed in itertools.islice(seeds, count)] for level, seeds in streams.items())
        )
        found = [Task(self.id, each[0], each[1], split) for turn in turns for each in turn if each][:count]
        if len(found) < count:
            raise ConfigError(
                f"{path} has only {len(found)} different {split} tasks, {count} were asked for; ask for fewer"
            )
        return found

    def task_count(self, split: str) -> int | None:
        """Different problems of a split of the file; None where they are generated."""
        if self._options[1] is None:
            return None
        return sum(map(len, self._levels().values())) if split == "test" else 0

    def _levels(self) -> dict[str, list[int]]:
        """Rows of each level, in the order of their questions' hashes; equal questions are one task."""
        unique = {row.question: row for row in reversed(self._rows)}
        levels: dict[str, list[int]] = {}
        for row in sorted(unique.values(), key=lambda row: content_hash(row.question)):
            levels.setdefault(row.level, []).append(row.index)
        return dict(sorted(levels.items()))

    def _find(self, task: Task) -> tuple[str, Answer]:
        if self._rows:
            if not 0 <= task.seed < len(self._rows) or self._rows[task.seed].level != task.level:
                raise ConfigError(
                    f"no {task.level!r} in row {task.seed} of {self._options[1]}; take tasks from tasks()"
                )
            row = self._rows[task.seed]
            return row.question, row.answer
        level, _, unknowns = task.level.partition("-")
        if level != "simuleq" or unknowns not in ("2", "3"):
            raise ConfigError(f"no level {task.level!r}; generated levels are simuleq-2 and simuleq-3")
        problem = simuleq.generate(task.seed, int(unknowns))
        return problem.question, problem.answer

    def _result(self, text: str, outcome: str, valid: bool) -> StepResult:
        info: dict[str, Any] = {"valid": valid}
        if outcome:
            info["success"] = outcome == "right"
        reward = 1.0 if valid and outcome == "right" else 0.0
        return StepResult(text, reward, terminated=bool(outcome), truncated=False, info=info)
