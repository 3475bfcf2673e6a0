"""Ctrl-C and SIGTERM: a word at once, an orderly end, and an end in any case."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.timeout(60)

START = "import signal, sys, time; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
WORD = "depo: interrupted: the same command goes on\n"


def start(body: str, before: str = START) -> subprocess.Popen[str]:
    """A process that has printed "ready" from within `body`."""
    code = before + "from depo import interrupts\n" + body
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def command(body: str) -> str:
    """`depo` with `body` for what its command does."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"""
from depo import cli
def sleep():
    print("ready", flush=True)
    time.sleep(60)
def action(options):
{lines}
import argparse, types
given = types.SimpleNamespace(parse_args=lambda _: argparse.Namespace(action=action))
cli._parser = lambda: given
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "body",
    [
        "sleep()",
        "try: sleep()\nfinally: print('put away', flush=True)",
        "try: sleep()\nexcept KeyboardInterrupt: raise ValueError('of the interruption')",
        "import threading; threading.Thread(target=time.sleep, args=(1,)).start()\nsleep()",
    ],
    ids=["asleep", "with something to put away", "failing of it", "beside a thread"],
)
def test_a_command_says_so_and_ends_in_order(body, number):
    process = start(command(body))
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, WORD)
    assert ("put away" in out) == ("put away" in body)


def test_the_word_comes_at_once_and_the_end_comes_though_nobody_listens():
    stubborn = "interrupts._ORDERLY_S = 1.5\nfor n in (2, 15): signal.signal(n, lambda *_: None)\n"
    process = start(command(stubborn + "print('ready', flush=True)\nwhile True: time.sleep(1)"))
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    assert process.stderr is not None
    assert process.stderr.readline() == WORD
    assert time.monotonic() - began < 1
    assert process.wait(timeout=10) == 130
    assert time.monotonic() - began > 1


def test_a_second_signal_ends_it_there_and_then():
    process = start(command("try: sleep()\nfinally: time.sleep(60)"))
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=3) == 130


def test_two_signals_in_one_breath_are_one():
    process = start(command("try: sleep()\nfinally: time.sleep(1); print('put away', flush=True)"))
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert "put away" in process.communicate(timeout=10)[0]


def test_what_a_library_sets_in_its_place_can_be_put_back():
    body = "signal.signal(signal.SIGINT, lambda *_: None); interrupts.take_signals()\nsleep()"
    process = start(command(body))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130


def test_a_process_that_is_to_ignore_ctrl_c_does():
    ignoring = START.replace("default_int_handler", "SIG_IGN")
    process = start(command("print('ready', flush=True)\ntime.sleep(1)\nreturn 0"), ignoring)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 0


def test_a_script_of_several_commands_ends_at_the_first_that_is_interrupted():
    body = """
from depo.commands.scripts import answered, in_turn
def one(call):
    print("ready", flush=True)
    time.sleep(60)
    return 0
sys.exit(answered(lambda _: in_turn(one, [[], []]), []))
"""
    process = start(body)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", WORD)


def test_outside_a_command_signals_are_as_they_were():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    from depo.interrupts import interrupted, interruptible, take_signals

    with interruptible():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    take_signals()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not interrupted()
