"""The repaired rules: every success and failure counts and ends the episode, and so does the step limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from depo.envs.babyai import text
from depo.envs.babyai.actions import Scene, moves, normalise, reason, survey
from depo.envs.babyai.episode import Episode
from depo.envs.babyai.mission import CONTINUE, STEP, SUCCESS
from depo.envs.base import StepResult

_ENDS = {"success": text.SUCCEEDED, "failure": text.FAILED, "truncated": text.OUT_OF_STEPS}


class Repaired:
    """`depo.envs.babyai.rules.Rules`, with the default texts. `info` holds `valid`, `low_level_steps`."""

    def __init__(self, show_actions: bool, brief: bool) -> None:
        self.system = text.BRIEF if brief else text.FULL
        self._show_actions = show_actions

    def opening(self, episode: Episode) -> str:
        return f"{text.goal(episode.scenario.text)}\n{self._observe(episode)}"

    def step(self, episode: Episode, action: str) -> StepResult:
        if episode.outcome:
            return self._result(episode, "the episode is over", 0.0, 0)
        wanted = normalise(action)
        if wanted == text.CHECK:
            seen = f"{text.choices(self.available(episode))}\n{_describe(episode)}"
            return StepResult(seen, 0.0, False, False, {"valid": True, "low_level_steps": 0})
        plan = self.plan(episode, wanted)
        if plan is None:
            return self._result(episode, reason(wanted, _scene(episode), episode.carried), 0.0, 0)
        taken = self.run(episode, plan)
        reward = episode.payoff() if episode.outcome == "success" else 0.0
        return self._result(episode, "", reward, taken)

    def available(self, episode: Episode) -> list[str]:
        return [] if episode.outcome else [*_scene(episode).choices, text.CHECK]

    def plan(self, episode: Episode, action: str) -> Sequence[int] | None:
        if episode.outcome:
            return None
        scene = _scene(episode)
        choice = scene.choices.get(action) or scene.choices.get(normalise(action))
        return None if choice is None else moves(choice, scene, episode)

    def run(self, episode: Episode, moves: Sequence[int]) -> int:
        first, most = episode.steps, episode.scenario.max_steps
        for move in moves:
            before = episode.place
            status = episode.step(move)
            if status != CONTINUE:
                episode.outcome = "success" if status == SUCCESS else "failure"
                break
            if episode.steps >= most:
                episode.outcome = "truncated"
                break
            if move == STEP and episode.place == before:
                break
        return episode.steps - first

    def _result(self, episode: Episode, refusal: str, reward: float, steps: int) -> StepResult:
        info: dict[str, Any] = {"valid": not refusal, "low_level_steps": steps}
        if episode.outcome:
            info["success"] = episode.outcome == "success"
        refused = f"{text.refused(refusal)}\n" if refusal else ""
        return StepResult(
            observation=refused + self._observe(episode),
            reward=reward,
            terminated=episode.outcome in ("success", "failure"),
            truncated=episode.outcome == "truncated",
            info=info,
        )

    def _observe(self, episode: Episode) -> str:
        if episode.outcome:
            return _ENDS[episode.outcome]
        if self._show_actions:
            return f"{_describe(episode)}\n{text.choices(self.available(episode))}"
        return _describe(episode)


def _scene(episode: Episode) -> Scene:
    if episode.scene is None:
        episode.scene = survey(episode)
    scene: Scene = episode.scene
    return scene


def _describe(episode: Episode) -> str:
    scene = _scene(episode)
    return text.describe(scene.things, scene.wall_ahead, episode.carried)
