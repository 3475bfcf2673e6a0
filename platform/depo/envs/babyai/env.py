"""BabyAI as a text environment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from depo.config.base import ConfigError
from depo.envs.babyai import text
from depo.envs.babyai.actions import Refusal, Scene, available, moves, normalise
from depo.envs.babyai.levels import Worlds, level_name
from depo.envs.babyai.paths import STEP
from depo.envs.babyai.state import Snapshot, Start
from depo.envs.babyai.tasks import TaskList
from depo.envs.babyai.view import Sight, look, object_name
from depo.envs.base import StepResult
from depo.records import Task

_KEPT_STARTS = 16
"""Start states kept for the next reset; one of the largest levels takes some 150 KB."""
_ENDS = {"success": text.SUCCEEDED, "failure": text.FAILED, "truncated": text.OUT_OF_STEPS}


class BabyAIEnv:
    """One BabyAI episode in text, on minigrid's own start states, rules and reward.

    A text action is run as minigrid's low-level steps, planned through what is in sight, until it
    is finished, blocked, or the mission ends. Reward is minigrid's `1 - 0.9 * steps / max_steps`,
    in low-level steps, paid on success. An invalid action takes no low-level step: turns are for
    the caller to count.

    `levels` are names ("GoToRedBall", "BabyAI-GoToObjS6-v1") or AgentGym's numbers (1-40);
    `show_actions` adds what can be done to each observation; `instructions` picks the system
    prompt: "full", or one line for a student that is trained on the task. Raises `ConfigError` on
    an unknown level or a bad value.

    `info` of a step holds `valid`, `low_level_steps` (of this action) and, at the end, `success`.
    """

    id: ClassVar[str] = "babyai"

    def __init__(
        self,
        levels: Sequence[str | int] = ("GoToRedBall",),
        show_actions: bool = True,
        instructions: Literal["full", "brief"] = "full",
    ) -> None:
        if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
            raise ConfigError("levels: give a list of one level or more, such as [GoToRedBall]")
        if not isinstance(show_actions, bool):
            raise ConfigError(f"show_actions: give true or false, not {show_actions!r}")
        if instructions not in ("full", "brief"):
            raise ConfigError(f"instructions: give 'full' or 'brief', not {instructions!r}")
        self.levels = tuple(dict.fromkeys(level_name(level) for level in levels))
        self.show_actions = show_actions
        self.instructions = instructions
        self.system = text.FULL if instructions == "full" else text.BRIEF
        self._worlds = Worlds()
        self._starts: OrderedDict[tuple[str, int], Start] = OrderedDict()
        self._lists: dict[str, TaskList] = {}
        self._start: Start | None = None
        self._pending: Snapshot | None = None
        self._outcome = ""
        self._seen: Scene | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = self.snapshot() if self._start or self._pending else None
        return {"options": (self.levels, self.show_actions, self.instructions), "state": state}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(*saved["options"])  # type: ignore[misc]
        self._pending = saved["state"]  # rebuilt when first needed

    @property
    def task(self) -> Task:
        """The task in hand."""
        return self._running().task

    @property
    def world(self) -> Any:
        """minigrid's live level in the present state, for scripted policies; change nothing."""
        return self._worlds[self._running().task.level]

    @property
    def goal(self) -> str:
        """The mission in minigrid's words, order words included."""
        return self._running().mission

    @property
    def outcome(self) -> str:
        """Empty while the episode goes on, then "success", "failure" or "truncated"."""
        self._running()
        return self._outcome

    def sight(self) -> Sight:
        """What the agent sees now."""
        return self._scene().sight

    def reset(self, task: Task) -> str:
        """Start `task`; raises `ConfigError` for an unknown level."""
        self._enter(task)
        self._load(self._running().first)
        return f"{text.goal(self.goal)}\n{self._observe()}"

    def step(self, action: str) -> StepResult:
        if self.outcome:
            return self._result("the episode is over", 0.0, 0, valid=False)
        wanted = normalise(action)
        if wanted == text.CHECK:
            listed = text.choices(self.available_actions())
            return StepResult(
                f"{listed}\n{self._describe()}", 0.0, False, False, {"valid": True, "low_level_steps": 0}
            )
        plan = moves(wanted, self._scene())
        if isinstance(plan, Refusal):
            return self._result(plan.reason, 0.0, 0, valid=False)
        before = self.world.step_count
        reward = self._run(plan, self.world)
        return self._result("", reward, self.world.step_count - before, valid=True)

    def available_actions(self) -> list[str]:
        if self.outcome:
            return []
        return [*available(self._scene()), text.CHECK]

    def snapshot(self) -> Snapshot:
        if self._pending is not None:
            return self._pending
        return self._running().save(self.world, self._outcome)

    def restore(self, state: Snapshot) -> None:
        self._pending = None
        if self._start is None or self._start.task != state.task:
            self._enter(state.task)
        self._load(state)

    def tasks(self, split: str, count: int) -> list[Task]:
        """The first `count` tasks of a split; raises `ConfigError` where there are too few.

        Leaves the episode in hand as it is.
        """
        if split not in self._lists:
            self._lists[split] = TaskList(self.id, self.levels, split)
        return self._lists[split].first(count)

    def attempt(self, action: str) -> int:
        """`step` without the text, for scripted policies that look ahead.

        Returns the low-level steps taken, 0 where the action is not possible.
        """
        plan = Refusal("") if self.outcome else moves(normalise(action), self._scene())
        if isinstance(plan, Refusal):
            return 0
        before = self.world.step_count
        self._run(plan, self.world)
        return int(self.world.step_count - before)

    def low_level(self, move: int) -> None:
        """Take one of minigrid's low-level steps; for scripted policies that look ahead."""
        self._run((move,), self.world)

    def _running(self) -> Start:
        if self._pending is not None:
            self.restore(self._pending)
        if self._start is None:
            raise RuntimeError("no task is running; call reset(task) first")
        return self._start

    def _enter(self, task: Task) -> None:
        """Make `task` the one in hand, from its kept start state where there is one."""
        self._pending = None
        key = (task.level, task.seed)
        start = self._starts.pop(key, None)
        if start is None:
            start = Start(self._worlds[task.level], task)
        self._starts[key] = start
        if len(self._starts) > _KEPT_STARTS:
            self._starts.popitem(last=False)
        start.task = task
        self._start = start

    def _load(self, state: Snapshot) -> None:
        start = self._running()
        start.load(self._worlds[start.task.level], state)
        self._outcome, self._seen = state.outcome, None

    def _scene(self) -> Scene:
        """What is known of the present state; made once a state."""
        self._running()
        if self._seen is None:
            world = self.world
            carried = None if world.carrying is None else object_name(world.carrying)
            self._seen = Scene(look(world), carried)
        return self._seen

    def _run(self, plan: tuple[int, ...], world: Any) -> float:
        """Take low-level steps until the plan or the episode ends or the way is blocked."""
        self._seen = None
        for move in plan:
            before = world.agent_pos
            _, reward, terminated, truncated, _ = world.step(move)
            if move == STEP:
                world.agent_pos = (int(world.agent_pos[0]), int(world.agent_pos[1]))
            if terminated:
                self._outcome = "success" if reward > 0 else "failure"
                return float(reward)
            if truncated:
                self._outcome = "truncated"
                return 0.0
            if move == STEP and world.agent_pos == before:
                return 0.0
        return 0.0

    def _result(self, reason: str, reward: float, steps: int, valid: bool) -> StepResult:
        info: dict[str, Any] = {"valid": valid, "low_level_steps": steps}
        if self._outcome:
            info["success"] = self._outcome == "success"
        refused = f"{text.refused(reason)}\n" if reason else ""
        return StepResult(
            observation=refused + self._observe(),
            reward=reward,
            terminated=self._outcome in ("success", "failure"),
            truncated=self._outcome == "truncated",
            info=info,
        )

    def _observe(self) -> str:
        if self._outcome:
            return _ENDS[self._outcome]
        if self.show_actions:
            return f"{self._describe()}\n{text.choices(self.available_actions())}"
        return self._describe()

    def _describe(self) -> str:
        scene = self._scene()
        return text.describe(scene.sight, scene.carried)
