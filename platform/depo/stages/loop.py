"""The loop that keeps one engine busy: trees in, rows out, whatever fails on the way.

It runs in a thread of its own and alone touches the policy and the environments. Blocks of tasks
come in while others are under way; each tree is advanced on its own, so a slow one holds back no other.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Hashable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from depo.config.base import ConfigError
from depo.config.endpoint import OpenAIConfig
from depo.envs.base import TextEnv
from depo.envs.registry import make_env
from depo.identity import located, model_hash
from depo.policies.base import BudgetSpent, EngineDead, Policy
from depo.policies.engine import make_policy
from depo.policies.openai_client import EndpointError
from depo.records import Task, Trajectory
from depo.search.driver import Driver, Finished
from depo.stages.accounting import Spent, within_budget
from depo.stages.blocks import Block, Tree
from depo.stages.jobs import RolloutJob, WorkerSettings, error_row, start
from depo.stages.link import Link
from depo.stages.shards import ShardWriter, quarantine
from depo.threads import Background, reason

TRIES = 3
"""Failures of one tree, or deaths of engines that it was in, after which it is given up."""
_DEATHS_IN_A_ROW = 6
_RESTART_PAUSES_S = (2.0, 8.0)
_GATHER_S = 0.02

logger = logging.getLogger(__name__)


class Halt(RuntimeError):
    """No retry in this worker would mend it; the message says what it was."""


class EngineLoop:
    """Runs blocks against one engine at a time, `batch_tasks` trees in flight."""

    def __init__(self, settings: WorkerSettings, jobs: Sequence[RolloutJob], link: Link) -> None:
        self._settings, self._jobs, self._link = settings, jobs, link
        self._inbox: queue.SimpleQueue[Block | None] = queue.SimpleQueue()
        self._shards = ShardWriter()
        self._waiting: dict[int, deque[Tree]] = {}
        self._suspects: dict[int, deque[Tree]] = {}
        self._blocks: set[Block] = set()
        self._running: dict[Hashable, Tree] = {}
        self._free: dict[str, list[TextEnv]] = {}
        self._policy: Policy | None = None
        self._serves: tuple[object, str, str] | None = None
        self._driver: Driver | None = None
        self._job = -1
        self._metered = Spent()
        self._deaths_in_a_row = 0
        self._halted: Halt | None = None
        self._dead = False
        self._thread = Background(self._main, "engine", self._died)

    def put(self, block: Block) -> None:
        """Take up `block`; its `wait` tells when it is done."""
        self._inbox.put(block)
        if self._dead:
            self._refuse()

    def close(self) -> None:
        """End once nothing is under way; the engine with it."""
        self._inbox.put(None)
        self._thread.join()

    def _main(self) -> None:
        while self._take_in(idle=True):
            try:
                while self._busy():
                    self._turn()
            except Exception as error:
                self._halt(error)
            self._link.running = 0
        self._shards.close()
        if self._policy is not None:
            self._policy.close()

    def _died(self, error: Exception) -> None:
        """The thread is over before its time: nobody waits for it any longer."""
        self._halted = self._halted or Halt(_reason(error))
        self._dead = True
        for block in self._blocks:
            block.fail(self._halted)
        self._refuse()

    def _refuse(self) -> None:
        """Fail what came after the thread's end."""
        assert self._halted is not None
        with suppress(queue.Empty):
            while True:
                block = self._inbox.get_nowait()
                if block is not None:
                    block.fail(self._halted)

    def _busy(self) -> bool:
        return bool(self._running or any(self._waiting.values()) or any(self._suspects.values()))

    def _turn(self) -> None:
        """Let in what there is room for, wait for answers, settle what has ended."""
        self._take_in()
        if self._link.stop:
            raise Halt(self._link.stop)
        if not self._running:
            self._choose_job()
        assert self._driver is not None
        driver = self._driver
        try:
            self._admit(driver)
            ended = driver.wait()
        except EngineDead as error:
            ended = self._bury(driver, error)
        self._meter()
        for fatal in [self._settle(finished) for finished in ended]:
            if fatal is not None:
                raise fatal
        self._link.running = len(self._running)
        if driver.room and not self._waiting.get(self._job):
            self._shards.hurry()

    def _take_in(self, idle: bool = False) -> bool:
        """Sort the blocks that came in; with `idle` wait for the first. False at the end of all."""
        self._blocks = {block for block in self._blocks if not block.over}
        while True:
            try:
                block = self._inbox.get() if idle else self._inbox.get(timeout=self._patience())
            except queue.Empty:
                return True
            if block is None:
                return False
            if self._halted is not None:
                block.fail(self._halted)
                continue
            idle = False
            self._blocks.add(block)
            for tree in block.trees:
                self._queue(block.job, tree)

    def _patience(self) -> float:
        """Seconds to wait for more blocks: they arrive one by one, and an engine starts best with many."""
        few = not self._running and sum(map(len, self._waiting.values())) < self._settings.runtime.batch_tasks
        return _GATHER_S if few else 0

    def _queue(self, job: int, tree: Tree) -> None:
        if tree.accused:
            self._give_up(job, tree, "the worker process died with this task alone in it", [])
        elif tree.deaths >= TRIES - 1:
            self._suspects.setdefault(job, deque()).append(tree)
        else:
            self._waiting.setdefault(job, deque()).append(tree)

    def _choose_job(self) -> None:
        """Stay with the job at hand while it has tasks, else go on to another one's."""
        with_tasks = [n for pool in (self._waiting, self._suspects) for n, trees in pool.items() if trees]
        if self._driver is None or (self._job not in with_tasks and with_tasks):
            self._job = self._job if self._job in with_tasks else min(with_tasks)
            self._driver = Driver(self._serve(self._jobs[self._job]), self._settings.runtime.batch_tasks)

    def _serve(self, job: RolloutJob) -> Policy:
        """The policy of a job: the one served now, the same engine with other weights, or a new one."""
        wanted = (job.policy, job.model_dir and model_hash(job.model_dir), job.name)
        if self._policy is not None and wanted == self._serves:
            return self._policy
        pauses = [*_RESTART_PAUSES_S] if self._deaths_in_a_row else []
        while True:
            try:
                self._policy = self._make_policy(job)
                break
            except ConfigError:
                raise
            except Exception as error:
                if not pauses:
                    raise
                # What the dead engine held, memory of a GPU say, may not be free yet.
                logger.warning("the engine does not start: %s", error)
                time.sleep(pauses.pop(0))
        self._serves = wanted
        self._metered = Spent.of(self._policy.usage)
        return self._policy

    def _make_policy(self, job: RolloutJob) -> Policy:
        policy = job.policy
        if isinstance(policy, OpenAIConfig):
            policy = within_budget(policy, self._link.spent_before(), self._settings.runtime.actors)
        return make_policy(
            policy,
            name=job.name,
            model_dir=located(job.model_dir),
            student=self._settings.student,
            runtime=self._settings.runtime,
            previous=self._policy,
        )

    def _admit(self, driver: Driver) -> None:
        waiting = self._waiting.get(self._job, ())
        while waiting and driver.room:
            self._begin(driver, self._waiting[self._job].popleft())
        suspects = self._suspects.get(self._job)
        if not self._running and suspects:
            # A tree that was in two engines as they died is tried alone, so that a third death is its own.
            tree = suspects.popleft()
            self._link.accuse(name_of(self._job, tree.task))
            self._begin(driver, tree)

    def _begin(self, driver: Driver, tree: Tree) -> None:
        job = self._jobs[self._job]
        env = tree.env = self._an_env(job)
        self._running[tree.task.id] = tree
        assert self._policy is not None
        driver.add(tree.task.id, start(job, tree.task, env, self._policy))

    def _an_env(self, job: RolloutJob) -> TextEnv:
        """An environment that nobody acts in, of the job's own kind."""
        free = self._free.setdefault(self._world(job), [])
        config = job.env or self._settings.env
        return free.pop() if free else make_env(config.id, config.options)

    def _world(self, job: RolloutJob) -> str:
        return (job.env or self._settings.env).model_dump_json()

    def _settle(self, finished: Finished) -> Exception | None:
        """Write a tree that has ended, try it again, or give it up; an error that concerns all of them."""
        tree = self._running.pop(finished.key)
        if tree.deaths >= TRIES - 1:
            self._link.acquit(name_of(self._job, tree.task))
        error = finished.error
        if isinstance(error, ConfigError | BudgetSpent):
            return error
        rows = finished.trajectories
        if error is None:
            assert tree.env is not None
            self._free[self._world(self._jobs[self._job])].append(tree.env)
        broken = error is not None or all(row.stop_reason == "error" for row in rows)
        if not broken:
            self._deaths_in_a_row = 0
            self._write(self._job, tree, rows)
            return None
        tree.failures += 1
        self._link.count(failed=1)
        text = f"{type(error).__name__}: {error}" if error is not None else rows[-1].error
        if tree.failures < TRIES:
            self._retry(tree)
        else:
            self._give_up(self._job, tree, text, rows)
        return None

    def _retry(self, tree: Tree) -> None:
        self._link.count(retried=1)
        self._shards.spend(self._folder(self._job), Spent(retried=1))
        self._queue(self._job, tree)

    def _give_up(self, job: int, tree: Tree, error: str, rows: Sequence[Trajectory]) -> None:
        quarantine(self._folder(job), tree.task, error, tree.failures, tree.deaths)
        self._link.count(quarantined=1)
        self._write(job, tree, rows or [error_row(self._jobs[job], tree.task, error)])

    def _write(self, job: int, tree: Tree, rows: Sequence[Trajectory]) -> None:
        tree.env = None
        told = partial(self._written, job, tree, len(rows))
        self._shards.add(self._folder(job), rows, told)

    def _written(self, job: int, tree: Tree, rollouts: int, error: Exception | None) -> None:
        """A tree is on disk, or cannot be; called in the thread that writes.

        Only what is on disk counts: what a lost worker had finished and not written is done again.
        """
        if error is None:
            self._link.count(tasks=1, rollouts=rollouts)
        elif not isinstance(error, OSError) and not tree.unwritable:
            tree.unwritable = True
            try:
                self._give_up(job, tree, f"its rows cannot be stored ({reason(error)})", [])
                return
            except OSError as failed:
                error = failed
        tree.block.settled(error)

    def _folder(self, job: int) -> Path:
        return Path(self._jobs[job].out_dir)

    def _meter(self) -> None:
        """Charge what the policy has used since the last turn."""
        if self._policy is None:
            return
        now = Spent.of(self._policy.usage)
        used, self._metered = now - self._metered, now
        if used:
            self._shards.spend(self._folder(self._job), used)
            self._link.spend(used)

    def _bury(self, driver: Driver, error: EngineDead) -> list[Finished]:
        """Take leave of a dead engine; its trees start anew in the next. What had ended is kept."""
        logger.warning("the engine died: %s", error)
        suspects, ended = _salvage(driver)
        self._meter()
        self._close_policy()
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row >= _DEATHS_IN_A_ROW:
            raise Halt(
                f"the engine died {self._deaths_in_a_row} times and no tree was finished; the last: {error}"
            )
        for key in suspects:
            tree = self._running.pop(key)
            tree.env = None  # left in the middle of a step
            tree.deaths += 1
            self._link.count(failed=1)
            if tree.deaths < TRIES:
                self._retry(tree)
            else:
                self._link.acquit(name_of(self._job, tree.task))
                self._give_up(self._job, tree, f"EngineDead: {error}", [])
        self._driver = None
        return ended

    def _close_policy(self) -> None:
        policy, self._policy, self._serves = self._policy, None, None
        self._driver = None
        if policy is not None:
            try:
                policy.close()
            except Exception as error:  # it is dead: what its end says changes nothing
                logger.warning("closing the engine: %s", error)

    def _halt(self, error: Exception) -> None:
        """Keep what has ended, and let every block know that the rest will not be."""
        if not isinstance(error, Halt):
            logger.exception("generation stops")
        ended = _salvage(self._driver)[1] if self._driver is not None else []
        self._meter()
        for finished in ended:
            if finished.error is None and finished.key in self._running:
                self._write(self._job, self._running.pop(finished.key), finished.trajectories)
        self._halted = error if isinstance(error, Halt) else Halt(_reason(error))
        self._running.clear()
        self._waiting.clear()
        self._suspects.clear()
        self._shards.flush()
        for block in self._blocks:
            block.fail(self._halted)
        self._blocks.clear()


def name_of(job: int, task: Task) -> str:
    """A tree's name among those of all jobs."""
    return f"{job} {task.id}"


def _salvage(driver: Driver) -> tuple[list[Hashable], list[Finished]]:
    """(the searches that were under way, those that had ended) of a driver whose policy raised."""
    under_way = driver.keys
    while driver.keys:
        try:
            driver.abandon()
        except Exception as error:  # of the policy, which is asked to forget its requests
            logger.debug("abandoning a search: %s", error)
    return under_way, driver.wait()


def _reason(error: Exception) -> str:
    known = isinstance(error, BudgetSpent | EndpointError)
    return str(error) if known else reason(error)
