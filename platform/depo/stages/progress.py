"""One line every few seconds on what a stage is doing.

On a terminal the line is rewritten in place, in a log each line stands by itself. Workers on other
machines add their counts to a `Board`, an actor that the driver reads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import Any, Self

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from depo.stages.accounting import Spent
from depo.threads import Background

INTERVAL_S = 3.0


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


@ray.remote(num_cpus=0)
class Board:
    """Adds up the counts that workers send, and remembers what it takes to find who killed a worker."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._by_worker: dict[str, Counter[str]] = {}
        self._running: dict[str, int] = {}
        self._begun: Counter[int] = Counter()
        self._alone: set[str] = set()
        self._stop = ""

    def add(self, counts: Mapping[str, float]) -> None:
        self._counts.update(counts)

    def report(self, worker: str, counts: Mapping[str, float], running: int) -> str:
        """Add a worker's counts; why all work is to stop, empty where it is not."""
        self._counts.update(counts)
        self._by_worker.setdefault(worker, Counter()).update(counts)
        self._running[worker] = running
        return self._stop

    def spent_by(self, worker: str) -> dict[str, float]:
        """What a worker has reported of its use of the engine."""
        names = {f.name for f in fields(Spent)}
        return {k: v for k, v in self._by_worker.get(worker, Counter()).items() if k in names}

    def begin(self, block: int, tasks: list[str]) -> tuple[int, list[str]]:
        """(times that a block began before, which of `tasks` were alone in a worker that then died)."""
        self._begun[block] += 1
        if self._begun[block] > 1:
            self._counts["begun again"] += len(tasks)
        return self._begun[block] - 1, [task for task in tasks if task in self._alone]

    def accuse(self, task: str) -> None:
        """A task is about to be alone in its worker."""
        self._alone.add(task)

    def acquit(self, task: str) -> None:
        self._alone.discard(task)

    def stop(self, reason: str) -> None:
        self._stop = self._stop or reason

    def counts(self) -> dict[str, float]:
        running = {"running": sum(self._running.values())} if self._running else {}
        return {**self._counts, **running}


def make_board() -> Any:
    """A board on the node of this process: it must not be lost with a worker's node."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


class Line:
    """The progress of one stage: `done` of `total`, further counts, rate and time left."""

    def __init__(self, stage: str, unit: str, total: int, done: int = 0) -> None:
        self.stage, self.total, self.before = stage, total, done
        self._unit = unit
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since this start."""
        return time.monotonic() - self._started

    def text(self, done: int, counts: Mapping[str, Any] | None = None) -> str:
        """The line after `done` units of this start, with each further count by its name."""
        seconds = self.seconds
        # What a lost worker had told of is told of again.
        done = min(done, self.total - self.before)
        parts = [f"{self.before + done:,}/{self.total:,} {self._unit}"]
        parts += [f"{_number(value)} {name}" for name, value in (counts or {}).items()]
        if counts and counts.get("tokens") and seconds > 1:
            parts.append(f"{counts['tokens'] / seconds:,.0f} tokens/s")
        parts.append(_clock(seconds))
        left = self.total - self.before - done
        if done and left > 0:
            parts.append(f"ETA {_clock(seconds / done * left)}")
        return f"[{self.stage}] " + " · ".join(parts)


class Losses:
    """What was lost since the last call, a line each: nodes, and workers by the tasks that begin again."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._nodes: dict[str, str] = {}
        self._again = 0

    def tell(self, counts: Mapping[str, float] | None = None) -> None:
        """Print them. `counts` are a board's."""
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        gone = [address for node, address in self._nodes.items() if node not in alive]
        again = int((counts or {}).get("begun again", 0))
        texts = [f"node {address} was lost; what ran there begins again elsewhere" for address in gone]
        if again > self._again:
            what = f"{again - self._again:,} unfinished tasks" if again - self._again > 1 else "a task"
            texts.append(f"a worker was lost (killed, or out of memory); another takes up {what} of its")
        self._nodes, self._again = alive, again
        for text in texts:
            end_line()
            say(f"[{self._stage}] {text}")


_SHOWN = ("running", "rollouts", "tokens", "failed", "retried", "quarantined", "money")


@contextmanager
def follow(
    board: Any, line: Line, unit: str, every_10_s: Callable[[Mapping[str, float]], None] | None = None
) -> Iterator[None]:
    """Print `line` every few seconds from `board`'s counts while the block runs, and once at its end.

    `every_10_s` is given the counts as often as that, and at the end.
    """
    stop = threading.Event()
    losses = Losses(line.stage)

    def show(done: int | None = None) -> dict[str, float]:
        counts: dict[str, float] = ray.get(board.counts.remote())
        losses.tell(counts)
        shown = {name: counts[name] for name in _SHOWN if counts.get(name)}
        print_line(line.text(int(counts.get(unit, 0)) if done is None else done, shown))
        return counts

    def loop() -> None:
        last = time.monotonic()
        while not stop.wait(INTERVAL_S):
            try:
                counts = show()
            except ray.exceptions.RayError:
                # The cluster is going down; the stage itself reports why.
                return
            if every_10_s is not None and time.monotonic() - last >= 10:
                last = time.monotonic()
                every_10_s(counts)

    thread = Background(loop, f"{line.stage}: its progress")
    done = None
    try:
        yield
        # A worker that was lost may have told of less than it wrote.
        done = line.total - line.before
    finally:
        stop.set()
        thread.join()
        with suppress(ray.exceptions.RayError):
            counts = show(done)
            if every_10_s is not None:
                every_10_s(counts)
        end_line()
    thread.finish()


class TrainingLine:
    """Progress of a training: call it with each row of `metrics.jsonl` as it appears.

    A row holds `step`, `total_steps` and metrics, or under `lost` what happened to a worker. Until the
    first one arrives it says that workers start, so that the terminal is never silent for long.
    """

    _SHOWN = ("loss", "logratio_desirable", "logratio_undesirable", "kl")

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._started = time.monotonic()
        self._text = "workers start"
        self._losses = Losses(stage)
        self._stop = threading.Event()

    def __call__(self, row: Mapping[str, Any]) -> None:
        if "lost" in row:
            end_line()
            say(f"[{self._stage}] {row['lost']}")
            self._text = "workers start again"
            return
        step, total = int(row.get("step", 0)), int(row.get("total_steps", 0))
        shown = [f"{name} {row[name]:.4g}" for name in self._SHOWN if name in row]
        self._text = " · ".join([f"step {step}/{total}", *shown])

    def __enter__(self) -> Self:
        self._thread = Background(self._loop, f"{self._stage}: its progress")
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show()
        end_line()
        if kind is None:
            self._thread.finish()

    def _loop(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            with suppress(ray.exceptions.RayError):  # no cluster yet, or none any longer
                self._losses.tell()
            self._show()

    def _show(self) -> None:
        print_line(f"[{self._stage}] {self._text} · {_clock(time.monotonic() - self._started)}")


def print_line(text: str) -> None:
    """Print a progress line: over the last one on a terminal, below it in a log."""
    if sys.stdout.isatty():
        print(f"\r\x1b[2K{text}", end="", flush=True)
    else:
        say(text)


def end_line() -> None:
    """Leave the progress line as it stands and go on below it."""
    if sys.stdout.isatty():
        print(flush=True)


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
