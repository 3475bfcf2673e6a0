"""The environment that docs/adding.md shows is run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from depo.envs.check import check_env
from depo.records import Task

DOCS = Path(__file__).parents[2] / "docs" / "adding.md"


@pytest.fixture
def jugs(tmp_path, monkeypatch):
    """The folder with the documented file in it, importable."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    (tmp_path / "jugs.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("jugs", None)


def test_the_documented_environment_is_short_and_keeps_the_contract(jugs):
    assert len((jugs / "jugs.py").read_text().splitlines()) < 60
    checks = check_env("jugs:Jugs", {"limit": 20})
    assert [check for check in checks if not check.ok] == []


def test_the_documented_environment_can_be_won(jugs):
    from jugs import PUZZLES, Jugs

    env = Jugs()
    env.reset(Task("jugs", "jugs", PUZZLES.index((3, 5, 4)), "train"))
    pour, away = "pour the large jug", "empty the small jug"
    results = [env.step(a) for a in ("fill the large jug", pour, away, pour, "fill the large jug", pour)]
    assert [r.terminated for r in results] == [False] * 5 + [True]
    assert results[-1].info["success"] and results[-1].reward == pytest.approx(1 - 5 / 30)


def test_the_documented_command_works_in_the_directory_of_the_file(jugs):
    command = [sys.executable, "-P", "-m", "depo.cli", "check-env", "jugs:Jugs", "--options", '{"limit": 20}']
    done = subprocess.run(command, cwd=jugs, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok   ")
