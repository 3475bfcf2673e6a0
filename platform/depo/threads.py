"""Threads whose failure is told: what one raises ends whoever waits for its work, in one line."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from depo.config.base import ConfigError

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Background(threading.Thread):
    """A daemon thread that keeps what `work` raised, of whatever kind, until it is asked for."""

    def __init__(
        self, work: Callable[[], object], name: str, failed: Callable[[Exception], object] | None = None
    ) -> None:
        """`failed` is called in the thread, as its last act, where `work` raised: those who wait for
        something else than the thread's end learn of it so."""
        super().__init__(name=name, daemon=True)
        self._work, self._failed = work, failed
        self.error: Exception | None = None
        self.over = threading.Event()
        """Set at its end. To wait for it can be interrupted and taken up again; `join` holds an interrupted
        thread for ended."""
        self.start()

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # an exit, which Python would keep quiet about, included
            logger.debug("thread %s", self.name, exc_info=True)
            self.error = error if isinstance(error, Exception) else RuntimeError(reason(error))
            if self._failed is not None:
                self._failed(self.error)
        finally:
            self.over.set()

    def finish(self) -> None:
        """Wait for the thread's end. Raises `ConfigError` of its name and what it raised."""
        self.over.wait()
        if self.error is not None:
            raise ConfigError(f"{self.name}: {reason(self.error)}") from self.error


def awaited(work: Callable[[], T], name: str) -> T:
    """What `work` answers, or raises, from a thread of its own, while this one waits and can be interrupted.

    For libraries that take signals for themselves where they run in the main thread, and that go to pieces
    where an interruption comes in the middle of them.
    """
    answer: list[T] = []
    thread = Background(lambda: answer.append(work()), name)
    thread.over.wait()
    if thread.error is not None:
        raise thread.error
    return answer[0]


def reason(error: BaseException) -> str:
    """An error in one line, with its kind where it is not one that speaks for itself."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}".rstrip(": ")
