"""WebShop as a text environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from depo.config.base import ConfigError
from depo.envs.base import StepResult
from depo.envs.task_lists import TaskNumbers, task_numbers
from depo.envs.webshop import texts
from depo.envs.webshop.nouns import Kind, make_tagger
from depo.envs.webshop.product import Goal, Product, Variant
from depo.envs.webshop.reward import SOLVED
from depo.envs.webshop.session import Catalogue, State, Target
from depo.envs.webshop.store import Shop
from depo.envs.webshop.synthetic import SyntheticSpec
from depo.envs.webshop.tasks import Splits
from depo.envs.webshop.visit import Turn, Visit, is_over
from depo.envs.webshop.wording import essence
from depo.records import Task

_KEPT_SHOPS = 8
MAX_STEPS = 30
"""Actions an episode may take under the repaired rules, where the options say nothing else."""


class Snapshot(NamedTuple):
    """A moment of an episode; immutable."""

    task: Task
    state: State
    steps: int


class _Source(NamedTuple):
    """The options that decide which shop is opened."""

    catalogue: str | None
    size: int
    seed: int
    human_goals: bool
    variant: Variant
    cache_dir: str | None


class WebShopEnv:
    """One purchase in a simulated web shop, in text.

    `catalogue` is a folder, archive or items file of WebShop's data; without one, a synthetic
    catalogue of `size` products is drawn from `seed`, which also draws the prices. `human_goals` takes
    the instructions written by people instead of the generated ones.

    `compat` "webshop" or "agentgym" plays by that environment's own rules, goals and pages, word for
    word; by default the repaired rules hold. `mode` is how a page is written: "text", in one line,
    or "text_rich", with buttons marked. `show_actions` adds what can be done to each observation: as
    a rule only under the repaired rules. `max_steps` ends an episode, by default after 30 valid
    actions, under `compat` never. `levels` picks difficulties for `tasks`; `splits` takes AgentGym's task
    numbers, which are those of the goals (`TaskNumbers`), instead of the environment's own. `nouns` says
    how nouns are found for the reward: "simple", "spacy", or "auto" for spaCy where it is installed.
    `instructions` picks the system prompt: "full", or one line for a student that is trained on the
    task. Raises `ConfigError` on a bad value.

    Reward is paid on buying, in [0, 1]; success is a reward of 1. `info` of a step holds `valid`, at
    the end `success`, and of a purchase the parts of the reward and `nouns`, the tagger's name.
    """

    id: ClassVar[str] = "webshop"

    def __init__(
        self,
        catalogue: str | None = None,
        size: int = 1_000,
        seed: int = 0,
        human_goals: bool = False,
        compat: Literal["webshop", "agentgym"] | None = None,
        mode: Literal["text", "text_rich"] = "text",
        show_actions: bool | None = None,
        max_steps: int | None = None,
        levels: Sequence[str] = (),
        nouns: Kind = "auto",
        instructions: Literal["full", "brief"] = "full",
        cache_dir: str | None = None,
        splits: Mapping[str, Any] | TaskNumbers | None = None,
    ) -> None:
        _demand(catalogue is None or isinstance(catalogue, str), "catalogue", "a path", catalogue)
        _demand(_is_count(size), "size", "a whole number of 1 or more", size)
        _demand(_is_count(seed) or seed == 0, "seed", "a whole number of 0 or more", seed)
        _demand(isinstance(human_goals, bool), "human_goals", "true or false", human_goals)
        _demand(compat in (None, "webshop", "agentgym"), "compat", "'webshop' or 'agentgym'", compat)
        _demand(mode in ("text", "text_rich"), "mode", "'text' or 'text_rich'", mode)
        _demand(
            show_actions is None or isinstance(show_actions, bool),
            "show_actions",
            "true or false",
            show_actions,
        )
        _demand(
            max_steps is None or _is_count(max_steps), "max_steps", "a whole number of 1 or more", max_steps
        )
        _demand(instructions in ("full", "brief"), "instructions", "'full' or 'brief'", instructions)
        listed = isinstance(levels, Sequence) and not isinstance(levels, str)
        _demand(listed, "levels", "a list of levels", levels)
        self._tagger = make_tagger(nouns)
        self._listed = None if splits is None else task_numbers(splits, self.id)
        # A copy in another process must not settle on another tagger: "auto" is decided here.
        self._options = {
            "catalogue": catalogue, "size": size, "seed": seed, "human_goals": human_goals, "compat": compat,
            "mode": mode, "show_actions": show_actions, "max_steps": max_steps, "levels": tuple(levels),
            "nouns": self._tagger.kind, "instructions": instructions, "cache_dir": cache_dir,
            "splits": self._listed,
        }  # fmt: skip
        self.levels = tuple(levels)
        self.compat = compat
        self.mode = mode
        self.show_actions = show_actions if show_actions is not None else compat is None
        self.max_steps = max_steps if max_steps is not None or compat else MAX_STEPS
        self.system = texts.FULL if instructions == "full" else texts.BRIEF
        self._source = _Source(catalogue, size, seed, human_goals, compat or "default", cache_dir)
        self._opened: Visit | None = None
        self._now: Snapshot | None = None
        self._goal: tuple[int, Goal] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"options": self._options, "now": self._now}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        self.__init__(**saved["options"])  # type: ignore[misc]
        self._now = saved["now"]

    @property
    def shop(self) -> Shop:
        """The shop, opened at the first use and shared by all environments of the process."""
        return self._visit().catalogue.shop

    @property
    def task(self) -> Task:
        """The task in hand."""
        return self._running().task

    @property
    def state(self) -> State:
        """Where the visit stands, for scripted policies."""
        return self._running().state

    @property
    def goal(self) -> Goal:
        """What is to be bought: the hidden product too, for scripted policies."""
        return self.goal_of(self._running().task)

    @property
    def outcome(self) -> str:
        """Empty while the episode goes on, then "success", "failure" or "truncated"."""
        return self._outcome(self._running())

    def product(self, asin: str) -> Product:
        """Any product of the shop, for scripted policies."""
        return self._visit().catalogue.product(asin)

    def clicks(self) -> dict[str, Target]:
        """The labels that can be clicked now, and what each does, for scripted policies."""
        return {} if self.outcome else self._visit().clicks(self._running().state)

    def reset(self, task: Task) -> str:
        """Start `task`; raises `ConfigError` for a goal that the shop does not have."""
        self.goal_of(task)
        self._now = Snapshot(task, State(), 0)
        return self._observe(self._now)

    def step(self, action: str) -> StepResult:
        now = self._running()
        if self._outcome(now) and not (self.compat and is_over(now.state)):
            return self._result(now, Turn(now.state, "the episode is over"))
        turn = self._visit().act(now.state, self.goal_of(now.task), action)
        if not turn.refused:
            self._now = now = Snapshot(now.task, turn.state, now.steps + 1)
        return self._result(now, turn)

    def available_actions(self) -> list[str]:
        """Every click; and where a page has none but the search, searches with the instruction's words."""
        if self.outcome:
            return []
        clicks = [f"click[{label}]" for label in self.clicks()]
        return clicks or [f"search[{keywords}]" for keywords in self._suggestions()]

    def snapshot(self) -> Snapshot:
        return self._running()

    def restore(self, state: Snapshot) -> None:
        self._now = state

    def tasks(self, split: str, count: int) -> list[Task]:
        """The first `count` tasks of a split; a task's seed is the number of its goal.

        Goals that no purchase of their own product meets are left out; `reset` plays them all the same.
        Of `splits` all goals are taken. Raises `ConfigError` for an unknown split or level, and where there
        are too few goals.
        """
        if self._listed is not None:
            tasks = self._given(split)
            if len(tasks) < count:
                raise ConfigError(f"splits.{split}: {len(tasks)} tasks, {count} were asked for; widen it")
            return tasks[:count]
        return _splits(self.shop).tasks(self.id, split, count, self.levels, self._can_be_met)

    def task_count(self, split: str) -> int:
        """Tasks of a split, each of which is looked at."""
        if self._listed is not None:
            return len(self._given(split))
        return _splits(self.shop).count(self.id, split, self.levels, self._can_be_met)

    def _given(self, split: str) -> list[Task]:
        """The tasks of `splits`, of the levels asked for."""
        assert self._listed is not None
        goals, tasks = self.shop.goals, []
        for number in self._listed.of(split):
            if number >= len(goals):
                raise ConfigError(
                    f"splits.{split}: no task {number}; the shop has goals 0 to {len(goals) - 1}"
                )
            task = Task(self.id, goals[number].difficulty, number, split)
            tasks += [task] if not self.levels or task.level in self.levels else []
        return tasks

    def _visit(self) -> Visit:
        if self._opened is None:
            peer = self.compat is not None
            self._opened = Visit(_shelves(self._source, peer), self.mode, self._tagger, peer)
        return self._opened

    def _running(self) -> Snapshot:
        if self._now is None:
            raise RuntimeError("no task is running; call reset(task) first")
        return self._now

    def goal_of(self, task: Task) -> Goal:
        """What a task asks for. Raises `ConfigError` for a goal that the shop does not have."""
        if self._goal is None or self._goal[0] != task.seed:
            goals = self.shop.goals
            if not 0 <= task.seed < len(goals):
                raise ConfigError(f"task {task.id}: the shop has goals 0 to {len(goals) - 1}")
            self._goal = (task.seed, goals[task.seed])
        return self._goal[1]

    def _can_be_met(self, task: Task) -> bool:
        return self._visit().can_be_met(self.shop.goals[task.seed])

    def _outcome(self, now: Snapshot) -> str:
        if is_over(now.state):
            return "success" if now.state.score >= SOLVED else "failure"
        return "truncated" if self.max_steps is not None and now.steps >= self.max_steps else ""

    def _result(self, now: Snapshot, turn: Turn) -> StepResult:
        outcome = self._outcome(now)
        info: dict[str, Any] = {"valid": not turn.refused}
        if outcome:
            info["success"] = outcome == "success"
        if turn.score is not None:
            info |= turn.score.info() | {"nouns": self._tagger.name}
        refused = f"{texts.refused(turn.refused)}\n" if turn.refused and not self.compat else ""
        return StepResult(
            observation=refused + self._observe(now),
            reward=turn.score.reward if turn.score is not None else 0.0,
            terminated=outcome in ("success", "failure"),
            truncated=outcome == "truncated",
            info=info,
        )

    def _observe(self, now: Snapshot) -> str:
        outcome = self._outcome(now)
        if outcome == "truncated" and not self.compat:
            return texts.OUT_OF_STEPS
        visit = self._visit()
        page = visit.observe(now.state, self.goal_of(now.task))
        if not self.show_actions or outcome:
            return page
        return f"{page.rstrip()}\n{texts.choices(visit.clicks(now.state))}"

    def _suggestions(self) -> list[str]:
        words = essence(self.goal)
        return list(dict.fromkeys([" ".join(words), " ".join(words[:4]), " ".join(words[-3:])]))


@lru_cache(_KEPT_SHOPS)
def _shelves(options: _Source, peer: bool) -> Catalogue:
    """The shop of a process for these options, with what is remembered of its pages."""
    source: Path | SyntheticSpec = SyntheticSpec(options.size, options.seed)
    if options.catalogue is not None:
        source = Path(options.catalogue)
    shop = Shop.open(
        source,
        human_goals=options.human_goals,
        variant=options.variant,
        seed=options.seed,
        cache_dir=options.cache_dir,
    )
    return Catalogue(shop, peer)


@lru_cache(_KEPT_SHOPS)
def _splits(shop: Shop) -> Splits:
    return Splits(shop)


def _demand(holds: bool, option: str, form: str, given: Any) -> None:
    if not holds:
        raise ConfigError(f"{option}: give {form}, not {given!r}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
