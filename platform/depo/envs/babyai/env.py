"""BabyAI as a text environment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from depo.config.base import ConfigError
from depo.envs.babyai.agentgym.rules import AgentGym, task_of
from depo.envs.babyai.episode import Episode
from depo.envs.babyai.levels import AGENTGYM_LEVELS, Worlds, level_name
from depo.envs.babyai.repaired import Repaired
from depo.envs.babyai.rules import Rules
from depo.envs.babyai.scenario import Scenario, Snapshot
from depo.envs.babyai.state import Start
from depo.envs.babyai.tasks import TaskList
from depo.envs.babyai.view import Sight, sight
from depo.envs.base import StepResult
from depo.envs.task_lists import TaskNumbers, task_numbers
from depo.records import Task

Compat = Literal["agentgym", "agentgym-minigrid3"]
COMPAT: tuple[Compat, ...] = get_args(Compat)
_KEPT_STARTS = 256
"""Start states kept for the next reset; one takes some 10 KB."""


class BabyAIEnv:
    """One BabyAI episode in text, on minigrid's own start states, rules and reward.

    A text action is run as minigrid's low-level steps, planned through what is in sight, until it
    is finished or blocked. Two rule sets say which actions there are and how they read:

    - by default the repaired ones: the first low-level step that fulfils or fails the mission ends
      the episode, as do minigrid's `max_steps`; success pays minigrid's
      `1 - 0.9 * steps / max_steps`, in low-level steps. `info` of a step holds `valid`,
      `low_level_steps` (of this action) and, at the end, `success`;
    - `compat="agentgym"`: all that AgentGym's BabyAI does, what is odd about it included; see
      `depo.envs.babyai.agentgym.rules`. Start states are those of the minigrid that AgentGym pins (before
      2.5); `compat="agentgym-minigrid3"` has the installed minigrid's under the same rules.

    An invalid action takes no low-level step: turns are for the caller to count.

    `levels` are names ("GoToRedBall", "BabyAI-GoToObjS6-v1") or AgentGym's numbers (1-40), by default
    GoToRedBall. `splits` replaces the published task lists by AgentGym's task numbers (`TaskNumbers`: ranges,
    lists, files), of which `levels` picks those of its levels, by default all. `show_actions` adds what can
    be done to each observation; `instructions` picks the system prompt: "full", or one line for a student
    that is trained on the task. Raises `ConfigError` on an unknown level or a bad value.
    """

    id: ClassVar[str] = "babyai"

    def __init__(
        self,
        levels: Sequence[str | int] | None = None,
        show_actions: bool = True,
        instructions: Literal["full", "brief"] = "full",
        compat: Compat | None = None,
        splits: Mapping[str, Any] | TaskNumbers | None = None,
    ) -> None:
        if levels is None:
            levels = ("GoToRedBall",) if splits is None else tuple(range(1, len(AGENTGYM_LEVELS) + 1))
        if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
            raise ConfigError("levels: give a list of one level or more, such as [GoToRedBall]")
        if not isinstance(show_actions, bool):
            raise ConfigError(f"show_actions: give true or false, not {show_actions!r}")
        if instructions not in ("full", "brief"):
            raise ConfigError(f"instructions: give 'full' or 'brief', not {instructions!r}")
        if compat not in (None, *COMPAT):
            raise ConfigError(
                f"compat: give {' or '.join(map(repr, COMPAT))}, or leave it out, not {compat!r}"
            )
        self.compat, self._pinned = compat, compat == "agentgym"
        self.levels = tuple(dict.fromkeys(level_name(level, self._pinned) for level in levels))
        self.rules: Rules = (AgentGym if compat else Repaired)(show_actions, instructions == "brief")
        self.system = self.rules.system
        self._listed = None if splits is None else task_numbers(splits, self.id, self._plays)
        self._options = (self.levels, show_actions, instructions, compat, self._listed)
        self._worlds = Worlds(self._pinned)
        self._scenarios: OrderedDict[tuple[str, int], Scenario] = OrderedDict()
        self._lists: dict[str, TaskList] = {}
        self._episode: Episode | None = None
        self._pending: Snapshot | None = None
        self._live: Start | None = None
        self._shown = False

    def __getstate__(self) -> dict[str, Any]:
        state = self._episode.save() if self._episode and not self._pending else self._pending
        return {"options": self._options, "state": state}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(*saved["options"])  # type: ignore[misc]
        self._pending = saved["state"]  # taken up when first needed

    @property
    def task(self) -> Task:
        """The task in hand."""
        return self._running().task

    @property
    def episode(self) -> Episode:
        """The episode in hand, for what the rules themselves know of it; change nothing."""
        return self._running()

    @property
    def world(self) -> Any:
        """minigrid's live level in the present state, for scripted policies; change nothing.

        A reference that is kept follows `low_level`; after anything else, ask for it again.
        """
        episode = self._running()
        if self._live is None or not _same(self._live.task, episode.task):
            self._live = Start(self._worlds[episode.task.level], episode.task)
        if not self._shown:
            self._live.show(episode)
            self._shown = True
        return self._live.world

    @property
    def goal(self) -> str:
        """The mission in minigrid's words, order words included."""
        return self._running().scenario.text

    @property
    def outcome(self) -> str:
        """Empty while the episode goes on, then "success", "failure" or "truncated"."""
        return self._running().outcome

    def sight(self) -> Sight:
        """What the agent sees now."""
        episode = self._running()
        return sight(episode.view, episode.place, episode.heading, episode.scenario.terrain)

    def reset(self, task: Task) -> str:
        """Start `task`; raises `ConfigError` for an unknown level."""
        scenario = self._scenario(task)
        self._begin(scenario, scenario.first._replace(task=task))
        return self.rules.opening(self._running())

    def step(self, action: str) -> StepResult:
        episode = self._running()
        self._shown = False
        return self.rules.step(episode, action)

    def available_actions(self) -> list[str]:
        return self.rules.available(self._running())

    def snapshot(self) -> Snapshot:
        return self._running().save()

    def restore(self, state: Snapshot) -> None:
        episode = self._episode
        if episode is None or self._pending is not None or not _same(episode.task, state.task):
            self._begin(self._scenario(state.task), state)
        else:
            self._shown = False
            episode.load(state)

    def tasks(self, split: str, count: int) -> list[Task]:
        """The first `count` tasks of a split; raises `ConfigError` where there are too few.

        Leaves the episode in hand as it is.
        """
        if self._listed is not None:
            return [self._numbered(number, split) for number in self._listed.first(split, count)]
        if split not in self._lists:
            self._lists[split] = TaskList(self.id, self.levels, split, self._pinned)
        return self._lists[split].first(count)

    def task_count(self, split: str) -> int | None:
        """Tasks that `splits` gives a split; None for the published lists, which have no end."""
        return None if self._listed is None else len(self._listed.of(split))

    def attempt(self, action: str) -> int:
        """`step` without the text, for scripted policies that look ahead.

        Returns the low-level steps taken, 0 where the action is not possible.
        """
        episode = self._running()
        plan = self.rules.plan(episode, action)
        self._shown = False
        return 0 if plan is None else self.rules.run(episode, plan)

    def low_level(self, move: int) -> None:
        """Take one of minigrid's low-level steps; for scripted policies that look ahead."""
        episode = self._running()
        self.rules.run(episode, (move,))
        if self._shown and self._live is not None:
            self._live.show(episode)

    def _numbered(self, number: int, split: str = "test") -> Task:
        return task_of(number, split, self._pinned)

    def _plays(self, number: int) -> bool:
        return self._numbered(number).level in self.levels

    def _running(self) -> Episode:
        if self._pending is not None:
            self.restore(self._pending)
        if self._episode is None:
            raise RuntimeError("no task is running; call reset(task) first")
        return self._episode

    def _begin(self, scenario: Scenario, state: Snapshot) -> None:
        self._pending, self._shown = None, False
        self._episode = Episode(scenario, state)

    def _scenario(self, task: Task) -> Scenario:
        """A task's compiled start state: the kept one, or a new one."""
        key = (task.level, task.seed)
        scenario = self._scenarios.pop(key, None)
        if scenario is None:
            self._live, self._shown = Start(self._worlds[task.level], task), False
            scenario = self._live.scenario()
        self._scenarios[key] = scenario
        if len(self._scenarios) > _KEPT_STARTS:
            self._scenarios.popitem(last=False)
        return scenario


def _same(task: Task, other: Task) -> bool:
    """Whether two tasks have the same start state."""
    return task.seed == other.seed and task.level == other.level
