"""Shorter thoughts for desirable trajectories; actions stay as they were.

A `Rephraser` proposes thoughts, `shorten` accepts one only where it is shorter by the student's
tokenizer and could not be read as another action. Only the thought's own characters are exchanged: the
layout around them is no part of it, and a difference there between D and U is one that a loss can learn.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from depo.data.store import write_atomic
from depo.policies.base import Policy, Request, Sampling, format_reply, parse_reply, reply_parts, with_thought
from depo.records import Step, Trajectory, content_hash

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class Rephraser(Protocol):
    def propose(self, trajectories: Sequence[Trajectory]) -> list[list[list[str]]]:
        """For each trajectory, for each of its steps, thoughts that could stand for its own."""
        ...


class SiblingRephraser:
    """Offline: thoughts that the same policy itself found enough, elsewhere in the same round.

    Two kinds stand for a step's thought: the whole thought of another rollout that took the same
    action on the same observation of the same task, and one sentence of the thought itself, where
    that sentence stood alone before the same action somewhere in the round.
    """

    def __init__(self, trajectories: Iterable[Trajectory]) -> None:
        self._siblings: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._alone: set[tuple[str, str]] = set()
        for trajectory in trajectories:
            for step in trajectory.steps:
                if step.valid and step.thought:
                    self._siblings[_key(trajectory, step)].add(step.thought)
                    self._alone.add((step.thought, step.action))

    def propose(self, trajectories: Sequence[Trajectory]) -> list[list[list[str]]]:
        return [[self._for_step(t, step) for step in t.steps] for t in trajectories]

    def _for_step(self, trajectory: Trajectory, step: Step) -> list[str]:
        own = [s for s in sentences(step.thought) if (s, step.action) in self._alone]
        return sorted({*self._siblings[_key(trajectory, step)], *own} - {step.thought})


class PolicyRephraser:
    """By a language model behind any `Policy`, such as an OpenAI-compatible endpoint."""

    INSTRUCTION = (
        "You shorten the reasoning of an agent. Keep what justifies the action and every fact it rests on; "
        "drop repetition, restated goals and filler. Answer with the shortened thought alone."
    )

    def __init__(self, policy: Policy, kept: Path | None = None, max_tokens: int = 256) -> None:
        """`kept` is a file of replies: those in it are not asked for again, new ones are added at once."""
        self._policy = policy
        self._kept = kept
        self._sampling = Sampling(temperature=0.0, max_tokens=max_tokens)

    def propose(self, trajectories: Sequence[Trajectory]) -> list[list[list[str]]]:
        requests = {self._key(step): self._request(step) for t in trajectories for step in t.steps}
        answers = self._remembered()
        self._ask({key: request for key, request in requests.items() if key not in answers}, answers)
        return [[[answers[self._key(step)]] for step in t.steps] for t in trajectories]

    def _ask(self, requests: dict[str, Request], answers: dict[str, str]) -> None:
        """Add the answers to `requests`; what came before one of them fails is kept."""
        for key, request in requests.items():
            self._policy.submit(key, request)
        waiting = len(requests)
        while waiting:
            for answer in self._policy.collect():
                if answer.error is not None:
                    raise answer.error
                waiting -= 1
                key = str(answer.key)
                answers[key] = _bare(answer.replies[0].text)
                self._remember(key, answers[key])

    def _remembered(self) -> dict[str, str]:
        if self._kept is None or not self._kept.is_file():
            return {}
        text = self._kept.read_text()
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a kill in the middle of a line
            write_atomic(self._kept, whole)
        return dict(json.loads(line) for line in whole.splitlines())

    def _remember(self, key: str, thought: str) -> None:
        if self._kept is not None:
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            with self._kept.open("a") as file:
                file.write(json.dumps([key, thought]) + "\n")

    def _key(self, step: Step) -> str:
        return content_hash([self._policy.name, step.observation, step.thought, step.action])

    def _request(self, step: Step) -> Request:
        return Request(
            system=self.INSTRUCTION,
            history=(),
            observation=f"Observation: {step.observation}\n{format_reply(step.thought, step.action)}",
            n=1,
            sampling=self._sampling,
            seed=0,
        )


class KeepThoughts:
    """Leaves every thought as it is."""

    def propose(self, trajectories: Sequence[Trajectory]) -> list[list[list[str]]]:
        return [[[] for _ in t.steps] for t in trajectories]


def shorten(
    trajectories: Sequence[Trajectory], rephraser: Rephraser, count_tokens: Callable[[str], int]
) -> tuple[list[Trajectory], int]:
    """The trajectories with the shortest acceptable thoughts, and how many steps were shortened.

    A changed step loses `token_ids`, `logprob`: its text is no longer what a policy sampled.
    """
    shortened = 0
    result = []
    for trajectory, proposals in zip(trajectories, rephraser.propose(trajectories), strict=True):
        steps = []
        for step, thoughts in zip(trajectory.steps, proposals, strict=True):
            best = min(
                (t for t in thoughts if _acceptable(t, step, count_tokens)),
                key=lambda t: (count_tokens(t), t),
                default=None,
            )
            if best is None:
                steps.append(step)
                continue
            shortened += 1
            text = with_thought(step.text, best)
            steps.append(
                replace(
                    step, thought=best, text=text, num_tokens=count_tokens(text), token_ids=(), logprob=None
                )
            )
        result.append(replace(trajectory, steps=tuple(steps)))
    return result, shortened


def sentences(thought: str) -> list[str]:
    """The sentences of a thought, in order."""
    return [s for s in _SENTENCE_END.split(thought.strip()) if s]


def _acceptable(thought: str, step: Step, count_tokens: Callable[[str], int]) -> bool:
    same = parse_reply(with_thought(step.text, thought)) == (thought, step.action, False)
    return bool(thought) and same and count_tokens(thought) < count_tokens(step.thought)


def _key(trajectory: Trajectory, step: Step) -> tuple[str, str, str]:
    return (trajectory.task.id, step.observation, step.action)


def _bare(text: str) -> str:
    """The thought that an endpoint answers with, without its own reasoning before it."""
    thoughts = reply_parts(text).thoughts
    return text[slice(*thoughts[-1])].strip('"') if thoughts else ""
