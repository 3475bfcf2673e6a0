"""Whether two answers written in LaTeX are equal, decided by math-verify in a process of its own.

Symbolic algebra on what a policy wrote may take for ever or all memory (`9^{9^{9^9}}`), inside calls that
neither a signal handler nor a thread can stop, and handlers cannot be set outside the main thread at all.
So a helper process decides; the kernel's alarm ends it where one comparison takes too long, and the next
comparison starts another.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import math
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

SECONDS = 2
"""Seconds of a processor that one comparison may take; beyond it the answers count as different."""
_BYTES = 4 * 2**30


class Undecided(Exception):
    """The comparison took over `SECONDS` seconds or all memory."""


class _Helper:
    """The helper process; starts with the first question and again after its death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    def ask(self, *question: Any) -> bool:
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
                verdict = process.stdout.readline()
            except BrokenPipeError:
                verdict = ""
            if not verdict:
                self._stop()
                raise Undecided
            return verdict.strip() == "equal"

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[str]:
        # -P: this file's folder must not hide other packages from the helper.
        command = [sys.executable, "-P", os.path.abspath(__file__), str(SECONDS)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            self._stop()
            raise RuntimeError("math-verify's helper process does not start; is math-verify installed?")
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


@functools.cache
def _helper(pid: int) -> _Helper:
    """The helper of process `pid`: a forked child must not talk through its parent's pipes."""
    return _Helper()


def same_value(one: str, other: str, step: float | None = None) -> bool:
    """Whether two answers, LaTeX or plain, are equal; the order of the two does not matter.

    Where one was written as a decimal, `step` is the place value of its last digit. May be called from any
    thread. Raises `Undecided` where it takes over `SECONDS` seconds, and `RuntimeError` where math-verify
    is not installed.
    """
    return _helper(os.getpid()).ask(*sorted((one, other)), step)


def _expressions(one: str, other: str, step: float | None, read: Callable[[str], Any]) -> bool:
    """Whether two expressions are equal.

    Two numbers are compared exactly, or by far more digits than they have, since math-verify takes what is
    below 1e-15 for nothing; to 1e-6 of them and less than `step` where a decimal was written.
    """
    import sympy
    from math_verify import verify

    if re.search(r"\b(?:or|and)\b", one + other):
        return False  # the parser drops these words
    sides = read(one), read(other)
    names = [s for side in sides for s in side.free_symbols if s.name == "i"]
    if any(not name.is_real for name in names):  # a number of one side, which the parser does not see in 0.5i
        sides = sides[0].subs(dict.fromkeys(names, sympy.I)), sides[1].subs(dict.fromkeys(names, sympy.I))
    if all(isinstance(side, sympy.Expr) and side.is_number for side in sides):
        off, size = (sides[0] - sides[1]).doit(), max(abs(side.doit().evalf(15)) for side in sides)
        if any(side.atoms(sympy.Float) for side in sides):
            return bool(abs(off.evalf(50)) <= size / 10**6 and abs(off.evalf(50)) < (step or math.inf))
        digits = 60 + 3 * len(str(int(size)))
        return bool(
            off.is_zero or (not off.is_Rational and abs(off.evalf(digits)) <= size / 10 ** (digits - 10))
        )
    return any(
        verify(a, b, timeout_seconds=None, allow_set_relation_comp=True) for a, b in (sides, sides[::-1])
    )


def _regions(one: str, other: str, step: float | None, read: Callable[[str], Any]) -> bool:
    """Whether two intervals, or inequalities of one variable joined by "and" and "or", are the same set."""
    import sympy

    regions, names = [], []
    for text in (one, other):
        either = [[read(part) for part in re.split(r"\band\b", each)] for each in re.split(r"\bor\b", text)]
        names.append({name for both in either for part in both for name in part.free_symbols})
        meets = (
            sympy.Intersection(*(p if isinstance(p, sympy.Set) else p.as_set() for p in both))
            for both in either
        )
        regions.append(sympy.Union(*meets))
    return (not all(names) or names[0] == names[1]) and bool(regions[0] == regions[1])


def serve(seconds: int) -> None:
    """The helper's side: a line [one, other] in, a line "equal" or "different" out."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import parse
    from math_verify.parser import LatexExtractionConfig

    logging.disable(logging.CRITICAL)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = _BYTES if most == resource.RLIM_INFINITY else min(_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
    # Units are gone already; the parser's would take the last letter of "x + c" for one.
    spelling = NormalizationConfig(units=False, malformed_operators=True, nits=True)
    whole = [LatexExtractionConfig(boxed_match_priority=0, normalization_config=spelling)]

    def read(text: str) -> Any:
        return parse(rf"\boxed{{{text}}}", whole, parsing_timeout=None)[0]

    ways: tuple[Callable[..., bool], ...] = (_expressions, _regions)
    print("ready", flush=True)
    for line in sys.stdin:
        # The default action of the alarms is the kernel's: they end the process, whatever runs. The first
        # counts the processor's time, so that a busy machine changes no verdict.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(10 * seconds)
        equal = False
        question = json.loads(line)
        for way in ways:
            with contextlib.suppress(Exception):  # sympy raises nearly anything on odd input
                equal = equal or way(*question, read)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        print("equal" if equal else "different", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(int(sys.argv[1]))
