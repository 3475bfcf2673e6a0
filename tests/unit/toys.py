"""Small deterministic environments and scripted policies that the search is tested on."""

from __future__ import annotations

import random
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


class Lever(Corridor):
    """A corridor whose goal opens only after a lever was pulled: what an action does depends on the past."""

    def __init__(self) -> None:
        super().__init__(goal=2)
        self.pulled = False

    def reset(self, task: Task) -> str:
        self.pulled = False
        return super().reset(task)

    def step(self, action: str) -> StepResult:
        word = action.lower().strip()
        if word == "stay":
            self.pulled = not self.pulled
        if word == "right" and self.cell == 1 and not self.pulled:
            self.steps += 1
            return StepResult(f"{self._see()}, shut", 0.0, False, False, {"valid": False, "success": False})
        return super().step(action)

    def snapshot(self) -> Any:
        return (self.pulled, super().snapshot())

    def restore(self, state: Any) -> None:
        self.pulled, inner = state
        super().restore(inner)


class Fragile(Corridor):
    """Fails in cell 1 after two steps or more, in one of its methods."""

    def __init__(self, method: str) -> None:
        super().__init__(goal=3)
        self.method = method

    def step(self, action: str) -> StepResult:
        self._break("step", (self.cell, self.steps))
        return super().step(action)

    def snapshot(self) -> Any:
        self._break("snapshot", (self.cell, self.steps))
        return super().snapshot()

    def restore(self, state: Any) -> None:
        self._break("restore", state)
        super().restore(state)

    def _break(self, method: str, state: tuple[int, int]) -> None:
        if method == self.method and state[0] == 1 and state[1] >= 2:
            self.cell = self.steps = 99  # what is left behind is of no use
            raise RuntimeError(f"{method} failed")


Order = Callable[[list[Answer]], tuple[list[Answer], list[Answer]]]


def shuffled(rng: random.Random) -> Order:
    """Hands out any one to three of the answers that are there, in any order."""

    def order(there: list[Answer]) -> tuple[list[Answer], list[Answer]]:
        mixed = rng.sample(there, len(there))
        cut = rng.randint(1, 3)
        return mixed[:cut], mixed[cut:]

    return order


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
        order: Order | None = None,
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
