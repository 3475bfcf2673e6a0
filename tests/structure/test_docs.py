"""What the documents point at is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from depo.cli import _parser

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TESTS = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []


def test_every_test_named_in_the_algorithm_exists():
    text = (ROOT / "docs" / "algorithm.md").read_text()
    named = set(re.findall(r"\btest_[a-z0-9_]+(?!\w|\.py)\b", text))
    named = {name for name in named if f"{name}.py" not in TESTS}
    assert len(named) >= 8
    assert [name for name in sorted(named) if not any(f"def {name}(" in t for t in TESTS.values())] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_depo_commands_are_ones_the_command_line_takes(path):
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), flags=re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["depo"] and "|" not in line and "..." not in line:
                assert _parser().parse_args(words[1:]).command == words[1]


def test_make_targets_named_in_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_ci_runs_exactly_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert script.splitlines()[-1] == "make test"


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda path: path.stem)
def test_scripts_say_what_they_are_for(path):
    assert path.read_text().startswith('"""')
