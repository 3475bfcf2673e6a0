"""Tracking may fail without failing what it mirrors: one line, then silence."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LATER = "give the same command again later to mirror what is missing"


class Guard:
    """Runs what talks to the store; after the first failure it runs nothing more."""

    def __init__(self, explain: Callable[[Exception], str], closed: bool = False) -> None:
        """`explain` makes a line of an error; a guard that starts `closed` never runs anything."""
        self.broken = closed
        self._explain = explain
        self._gone = closed
        self._telling = threading.Lock()

    def attempt(self, action: Callable[[], T]) -> T | None:
        """The action's answer; None from the first failure on, of whatever kind it was."""
        if self.broken:
            return None
        try:
            return action()
        except Exception as error:  # a mirror: no failure of it may stop what it mirrors
            self.tell(error)
            return None

    def close(self, action: Callable[[], object]) -> None:
        """An action that ends a run; tried, in silence, also after a file could not be read here.

        A store that is gone is not waited for again.
        """
        if self._gone:
            return
        try:
            action()
        except Exception as error:
            self.tell(error)

    def tell(self, error: Exception) -> None:
        """Print why tracking stops, once; from here on nothing runs."""
        with self._telling:
            self._gone = self._gone or not isinstance(error, OSError)
            if not self.broken:
                self.broken = True
                reason = self._explain(error)
                print(f"tracking: stopped, the run goes on ({reason}); {_LATER}", file=sys.stderr, flush=True)
