"""Whether two answers written in LaTeX are equal, decided by math-verify in a process of its own.

Symbolic algebra on what a policy wrote may take for ever or all memory (`9^{9^{9^9}}`), inside calls that
neither a signal handler nor a thread can stop, and handlers cannot be set outside the main thread at all.
So a helper process decides; the kernel's alarm ends it where one comparison takes too long, and the next
comparison starts another.
"""

from __future__ import annotations

import atexit
import functools
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading

SECONDS = 3
"""Time one comparison may take; beyond it the answers count as different."""
_BYTES = 4 * 2**30


class _Helper:
    """The helper process; starts with the first question and again after its death."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    def ask(self, gold: str, answer: str) -> bool:
        with self._lock:
            process = self._process or self._start()
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps([gold, answer]) + "\n")
                process.stdin.flush()
                verdict = process.stdout.readline()
            except BrokenPipeError:
                verdict = ""
            if not verdict:
                self._stop()
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


def same_value(gold: str, answer: str) -> bool:
    """Whether `answer` equals `gold`, both LaTeX or plain; false where that takes over `SECONDS` seconds.

    May be called from any thread. Raises `RuntimeError` where math-verify is not installed.
    """
    return _helper(os.getpid()).ask(gold, answer)


def serve(seconds: int) -> None:
    """The helper's side: a line [gold, answer] in, a line "equal" or "different" out."""
    from math_verify import parse, verify
    from math_verify.parser import LatexExtractionConfig

    logging.disable(logging.CRITICAL)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = _BYTES if most == resource.RLIM_INFINITY else min(_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, most))
    whole = [LatexExtractionConfig(boxed_match_priority=0)]
    print("ready", flush=True)
    for line in sys.stdin:
        # The default action of the alarm is the kernel's: it ends the process, whatever runs.
        signal.alarm(seconds)
        try:
            gold, answer = (
                parse(rf"\boxed{{{text}}}", whole, parsing_timeout=None) for text in json.loads(line)
            )
            equal = bool(gold and answer) and verify(gold, answer, timeout_seconds=None)
        except Exception:  # sympy raises nearly anything on odd input
            equal = False
        signal.alarm(0)
        print("equal" if equal else "different", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(int(sys.argv[1]))
