"""Ctrl-C and SIGTERM: a word at once, an orderly end, and an end in any case.

A thread learns of the signals from `signal.set_wakeup_fd`, so that its answer depends neither on what the
main thread is in the middle of nor on handlers that libraries put in the place of ours.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

EXIT_CODE = 130
"""Of a command that was interrupted, by either signal; what shells give for Ctrl-C."""
TEXT = "interrupted: the same command goes on"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ORDERLY_S = 9.0
_TWICE_S = 0.5
"""Signals that follow the first so soon are one with it: `timeout` sends two."""

_asked, _raised, _told = threading.Event(), threading.Event(), threading.Lock()
_caught: list[signal.Signals] = []
"""The signals that are ours to answer; empty outside `interruptible`."""
_ends: list[Callable[[], object]] = []


def interrupted() -> bool:
    """Whether this process was asked to end: no failure from then on is one of its own."""
    return _asked.is_set()


def at_end(end: Callable[[], object]) -> None:
    """Have `end` called where the process ends because of an interruption, in whatever thread."""
    if end not in _ends:
        _ends.append(end)


def take_signals() -> None:
    """Put our handlers in the place of those that a library has set; nothing outside `interruptible`."""
    if threading.current_thread() is threading.main_thread():
        for number in _caught:
            signal.signal(number, _raise)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the main thread for SIGINT and SIGTERM that come while the block runs.

    The first is answered on stderr at once. A second one, or nine seconds, end the process there and then
    with `EXIT_CODE`, also after the block. A signal that the process was started to ignore stays ignored.
    """
    if _caught or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    _caught.extend(number for number, handler in before.items() if handler is not signal.SIG_IGN)
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    woken = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(ours, list(_caught)), name="interrupts", daemon=True).start()
    take_signals()
    try:
        yield
    finally:
        if _asked.is_set():
            _end()
        else:
            signal.set_wakeup_fd(woken)
            for number in _caught:
                signal.signal(number, before[number])
            _caught.clear()
            os.close(theirs)


def _raise(number: int, frame: object) -> None:
    if _raised.is_set():
        return  # a second one is for the thread to answer
    _raised.set()
    _tell()
    logging.disable(logging.CRITICAL)  # what is torn down has much to say of it
    raise KeyboardInterrupt


def _tell() -> None:
    """Say once, in whichever thread comes first, that the process is asked to end; return when it is said."""
    if _told.acquire(blocking=False):
        lead = "\n" if sys.stderr.isatty() else ""
        os.write(2, f"{lead}depo: {TEXT}\n".encode())
        _asked.set()
    _asked.wait(1)


def _watch(pipe: int, caught: list[signal.Signals]) -> None:
    """Read the numbers of signals; answer the first of ours and see to the end."""
    while (came := os.read(pipe, 1)) and came[0] not in caught:
        pass
    if not came:  # the block is over
        os.close(pipe)
        return
    began = time.monotonic()
    _tell()
    first, last = began + _TWICE_S, began + _ORDERLY_S
    while (left := last - time.monotonic()) > 0:
        came = os.read(pipe, 1) if select.select([pipe], [], [], left)[0] else b"\0"
        if came[0] in caught and time.monotonic() > first:
            break
    _end()
    os._exit(EXIT_CODE)


def _end() -> None:
    for end in _ends:
        with suppress(Exception):
            end()
