"""One line every few seconds on what a stage is doing.

On a terminal the line is rewritten in place, in a log each line stands by itself. Workers on other
machines add their counts to a `Board`, an actor that the driver reads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import ray

INTERVAL_S = 3.0


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


@ray.remote(num_cpus=0)
class Board:
    """Adds up the counts that workers send."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, counts: Mapping[str, int]) -> None:
        self._counts.update(counts)

    def counts(self) -> dict[str, int]:
        return dict(self._counts)


class Line:
    """The progress of one stage: `done` of `total`, further counts, rate and time left."""

    def __init__(self, stage: str, unit: str, total: int, done: int = 0) -> None:
        self._stage, self._unit, self._total, self._before = stage, unit, total, done
        self._started = time.monotonic()

    def text(self, done: int, counts: Mapping[str, Any] | None = None) -> str:
        """The line after `done` units of this start, with each further count by its name."""
        seconds = time.monotonic() - self._started
        parts = [f"{self._before + done:,}/{self._total:,} {self._unit}"]
        parts += [f"{_number(value)} {name}" for name, value in (counts or {}).items()]
        if counts and counts.get("tokens") and seconds > 1:
            parts.append(f"{counts['tokens'] / seconds:,.0f} tokens/s")
        parts.append(_clock(seconds))
        left = self._total - self._before - done
        if done and left:
            parts.append(f"ETA {_clock(seconds / done * left)}")
        return f"[{self._stage}] " + " · ".join(parts)


@contextmanager
def follow(board: Any, line: Line, unit: str) -> Iterator[None]:
    """Print `line` every few seconds from `board`'s counts while the block runs, and once at its end."""
    stop = threading.Event()

    def show() -> None:
        counts = ray.get(board.counts.remote())
        print_line(line.text(counts.pop(unit, 0), counts))

    def loop() -> None:
        while not stop.wait(INTERVAL_S):
            try:
                show()
            except ray.exceptions.RayError:
                # The cluster is going down; the stage itself reports why.
                return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    show()
    end_line()


class TrainingLine:
    """Progress of a training: call it with each row of `metrics.jsonl` as it appears.

    A row holds `step`, `total_steps` and metrics. Until the first one arrives it says that workers
    start, so that the terminal is never silent for long.
    """

    _SHOWN = ("loss", "logratio_desirable", "logratio_undesirable", "kl")

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._started = time.monotonic()
        self._text = "workers start"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __call__(self, row: Mapping[str, Any]) -> None:
        step, total = int(row.get("step", 0)), int(row.get("total_steps", 0))
        shown = [f"{name} {row[name]:.4g}" for name in self._SHOWN if name in row]
        self._text = " · ".join([f"step {step}/{total}", *shown])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._show()
        end_line()

    def _loop(self) -> None:
        while not self._stop.wait(INTERVAL_S):
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
