"""Small deterministic environments and scripted policies that the search is tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from depo.envs.base import SnapshotUnsupported, StepResult
from depo.policies.base import Answer, Immediate, Reply, Request, format_reply, parse_reply
from depo.records import Task, content_hash


def toy_task(seed: int = 0) -> Task:
    return Task("toy", "toy", seed, "train")


def reply(thought: str, action: str) -> Reply:
    return read(format_reply(thought, action))


def read(text: str) -> Reply:
    thought, action, malformed = parse_reply(text)
    ids = tuple(text.encode())
    return Reply(text, thought, action, malformed, len(ids), (*ids, 0), logprob=-1.0, input_tokens=10)


class Corridor:
    """Walk left and right from cell 0; cell `goal` pays 1 less 0.1 a step, cell -1 is a pit that ends it.

    "explode" breaks the environment itself.
    """

    id: ClassVar[str] = "corridor"
    system = "walk"

    def __init__(self, goal: int = 2, limit: int = 100, snapshots: bool = True) -> None:
        self.goal, self.limit, self.snapshots = goal, limit, snapshots
        self.cell = self.steps = self.resets = 0

    def reset(self, task: Task) -> str:
        self.cell = self.steps = 0
        self.resets += 1
        return self._see()

    def step(self, action: str) -> StepResult:
        word = " ".join(action.lower().split())
        if word == "explode":
            raise RuntimeError("boom")
        self.steps += 1
        valid = word in self.available_actions()
        self.cell += {"right": 1, "left": -1}.get(word, 0)
        success = self.cell == self.goal
        ended = success or self.cell < 0
        return StepResult(
            observation=self._see() if valid else "no such action",
            reward=1 - 0.1 * self.steps if success else 0.0,
            terminated=ended,
            truncated=self.steps >= self.limit,
            info={"valid": valid, "success": success},
        )

    def available_actions(self) -> list[str]:
        return ["left", "right"]

    def snapshot(self) -> Any:
        if not self.snapshots:
            raise SnapshotUnsupported("corridor")
        return (self.cell, self.steps)

    def restore(self, state: Any) -> None:
        self.cell, self.steps = state

    def tasks(self, split: str, count: int) -> list[Task]:
        return [Task("corridor", "corridor", seed, split) for seed in range(count)]

    def _see(self) -> str:
        return f"cell {self.cell} after {self.steps}"


class Bandit(Corridor):
    """One action ends the episode after a second one; "arm a 0" ... pay what `arms` says."""

    def __init__(self, arms: dict[str, float]) -> None:
        super().__init__()
        self.arms = arms
        self.pulled = ""

    def reset(self, task: Task) -> str:
        self.pulled = ""
        return "pull"

    def step(self, action: str) -> StepResult:
        if self.pulled:
            return StepResult("over", self.arms[self.pulled], True, False, {"success": True})
        self.pulled = action
        return StepResult("pulled", 0.0, False, False)

    def snapshot(self) -> Any:
        return self.pulled

    def restore(self, state: Any) -> None:
        self.pulled = state


class Scripted(Immediate):
    """Answers each request by a function of it; keeps what it was asked.

    `order` rearranges the answers that are there: none of them is handed out before it was asked
    whether it is its turn.
    """

    name = "scripted"
    tokenizer_fingerprint = "bytes"

    def __init__(
        self,
        answer: Callable[[Request], list[Reply]],
        order: Callable[[list[Answer]], tuple[list[Answer], list[Answer]]] | None = None,
    ) -> None:
        super().__init__()
        self.answer, self.order = answer, order
        self.batches: list[int] = []
        """How many answers were there at each `collect`."""

    def reply(self, request: Request) -> list[Reply]:
        return self.answer(request)

    def collect(self) -> list[Answer]:
        there = super().collect()
        self.batches.append(len(there))
        if self.order is None:
            return there
        now, later = self.order(there)
        self._answers.update({answer.key: answer for answer in later})
        return now


def wander(request: Request) -> list[Reply]:
    """Replies drawn by the request's seed and history alone; one in eight is malformed."""
    replies = []
    for i in range(request.n):
        said = [exchange.reply.text for exchange in request.history]
        number = int(content_hash([request.seed + i, said, request.observation]), 16)
        action = ("right", "Right", "left", "stay")[number % 4]
        text = "lost" if number // 4 % 8 == 0 else format_reply(f"thought {number % 97}", action)
        replies.append(read(text))
    return replies
