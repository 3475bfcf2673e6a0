"""AgentGym's rules for BabyAI, to the letter: what its server does, and what its client shows.

What is odd about them is kept, for it is what published numbers were measured with:

- the reward and the end that count are those of the *last* low-level step of an action;
- a success that pays 0.5 or less does not end the episode, nor does a failure, nor any number of
  steps: the reward turns negative once minigrid's `max_steps` are over;
- an action stops where the image does not change, even if nothing blocks it;
- an action that is not on offer, that comes to nothing, or that contains "check" leaves the reward
  as it was, and the reward is reported again (AgentGym's `score` is the sum of them all).

`docs/environments.md` tells them one by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from depo.envs.babyai.agentgym import text
from depo.envs.babyai.agentgym.actions import Scene, errors, first_image, moves, survey, view_of
from depo.envs.babyai.episode import Episode
from depo.envs.babyai.levels import AGENTGYM_LEVELS, PINNED_LEVELS
from depo.envs.babyai.mission import CONTINUE, SUCCESS
from depo.envs.base import StepResult
from depo.records import Task

_DROPPED = re.compile(r"[^A-Za-z0-9, ]+")
_LEAST_END = 0.5
"""A success must pay more than this to end an episode."""


def task_of(data_idx: int, split: str = "test", pinned: bool = True) -> Task:
    """The task that AgentGym calls by one number; `pinned` as its pinned minigrid names the level."""
    levels = PINNED_LEVELS if pinned else AGENTGYM_LEVELS
    seed, level = divmod(data_idx, len(levels))
    return Task("babyai", levels[level], seed, split)


def clean(action: str) -> str:
    """An action as AgentGym's client sends it and its environment reads it."""
    return " ".join(_DROPPED.sub("", action).split()).lower()


def scene_of(episode: Episode) -> Scene:
    """The scene of the present state, surveyed once."""
    if episode.scene is None:
        episode.scene = survey(episode)
    scene: Scene = episode.scene
    return scene


def describe(episode: Episode) -> str:
    """The present state in AgentGym's words, without the list of actions."""
    scene = scene_of(episode)
    return text.describe(scene.things, bool(view_of(episode).walls), scene.barrier, episode.carried)


class AgentGym:
    """`depo.envs.babyai.rules.Rules`.

    A step's `info` holds `valid` (the action was on offer, or asked for the list), AgentGym's own
    `action_is_valid`, which an action that comes to nothing leaves as it was, `low_level_steps`, the
    `moves` taken, and at the end `success`.
    """

    def __init__(self, show_actions: bool, brief: bool) -> None:
        self.system = text.BRIEF if brief else text.FULL
        self._show_actions = show_actions

    def opening(self, episode: Episode) -> str:
        seen = f"Your goal: {text.goal(episode.scenario.text)}\n{describe(episode)}"
        return self._with_options(seen, episode)

    def step(self, episode: Episode, action: str) -> StepResult:
        if episode.outcome:
            return StepResult(text.FINISHED, 0.0, True, False, self._info(episode, (), valid=False))
        scene = scene_of(episode)
        wanted = action if action in scene.offers else clean(action)
        if "check" in wanted:
            episode.accepted = True
            return self._result(episode, text.listed(scene.offers), (), valid=True)
        plan = self.plan(episode, wanted)
        if plan is None:
            episode.accepted = False
            return self._result(episode, self._refusal(episode, wanted), (), valid=False)
        if not plan:
            return self._result(episode, text.UNCHANGED, (), valid=True)
        taken, completed = self._run(episode, plan)
        episode.accepted = True
        seen = describe(episode) + (text.COMPLETED if completed else "")
        return self._result(episode, seen, plan[:taken], valid=True)

    def available(self, episode: Episode) -> list[str]:
        return [] if episode.outcome else list(scene_of(episode).offers)

    def plan(self, episode: Episode, action: str) -> Sequence[int] | None:
        scene = scene_of(episode)
        offer = scene.offers.get(action) or scene.offers.get(clean(action))
        if episode.outcome or offer is None:
            return None
        return moves(offer, scene, episode.scenario.terrain.board)

    def run(self, episode: Episode, moves: Sequence[int]) -> int:
        return self._run(episode, moves)[0]

    def _run(self, episode: Episode, moves: Sequence[int]) -> tuple[int, bool]:
        """Moves taken, and whether minigrid called the mission over at the last of them."""
        first, status = episode.steps, CONTINUE
        before = _image(episode)
        for move in moves:
            status = episode.step(move)
            after = _image(episode)
            if after == before:
                break
            before = after
        episode.reward = episode.payoff() if status == SUCCESS else 0.0
        if episode.reward > _LEAST_END:
            episode.outcome = "success"
        return episode.steps - first, status != CONTINUE

    def _refusal(self, episode: Episode, action: str) -> str:
        if not action:
            return text.UNCHANGED
        known = errors(scene_of(episode), episode.carried, episode.scenario.terrain.board)
        return known.get(action, text.UNKNOWN)

    def _with_options(self, seen: str, episode: Episode) -> str:
        return seen + text.options(scene_of(episode).offers) if self._show_actions else seen

    def _result(self, episode: Episode, seen: str, taken: Sequence[int], valid: bool) -> StepResult:
        shown = self._with_options(seen, episode)
        info = self._info(episode, taken, valid)
        return StepResult(shown, episode.reward, bool(episode.outcome), False, info)

    def _info(self, episode: Episode, taken: Sequence[int], valid: bool) -> dict[str, Any]:
        info: dict[str, Any] = {
            "valid": valid,
            "action_is_valid": episode.accepted,
            "low_level_steps": len(taken),
            "moves": tuple(taken),
        }
        if episode.outcome:
            info["success"] = True
        return info


def _image(episode: Episode) -> tuple[int, int, list[int], int]:
    """All that tells one image of minigrid's from another."""
    view = view_of(episode)
    return view.seen, view.walls, view.things, -1 if first_image(episode) else episode.carried
