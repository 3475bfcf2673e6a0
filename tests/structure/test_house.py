"""The house rules: who may import whom, what stays light, how large a room may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "depo"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import the rooms of its own set, and its own files.
ALLOWED = {
    "records": set(),
    "config": {"records"},
    "identity": {"records", "config"},
    "threads": {"config"},
    "interrupts": set(),
    "envs": {"records", "config"},
    "policies": {"records", "config", "identity", "threads", "envs"},
    "objectives": {"records", "config"},
    "search": {"records", "config", "envs", "policies"},
    "data": {"records", "config", "identity", "policies"},
    "training": {"records", "config", "identity", "objectives", "policies", "data"},
    "evaluation": {"records", "config", "data"},
    "tracking": {"records", "config"},
    "report": {"records", "config", "evaluation"},
    "stages": {
        "records", "config", "identity", "threads", "interrupts", "envs", "policies", "objectives", "search",
        "data", "training", "evaluation", "tracking", "report",
    },
    "graph": {"records", "config", "identity", "objectives", "stages"},
    "bodies": {"records", "config", "training", "stages", "graph"},
    "pipeline": {"records", "config", "identity", "data", "envs", "policies", "stages", "graph", "bodies"},
    "sweeps": {"records", "config", "data", "stages", "graph", "bodies", "pipeline"},
    "doctor": set(),
    "commands": {
        "records", "config", "interrupts", "data", "envs", "evaluation", "report", "stages", "graph",
        "pipeline", "sweeps", "doctor",
    },
    "cli": {"config", "interrupts", "commands"},
    "__init__": set(),
}  # fmt: skip

# Where a heavy library may be imported at all.
HEAVY = {
    "ray": {"stages"},
    "vllm": {"policies"},
    "trl": {"training"},
    "peft": {"training"},
    "deepspeed": {"training"},
    "mlflow": {"tracking"},
    "matplotlib": {"report"},
    "torch": {"objectives", "training", "policies", "doctor"},
    "transformers": {"training", "policies", "stages"},
    "minigrid": {"envs", "policies"},
}
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
PUBLIC_FACES = {"training"}


def room_of(path: Path) -> str:
    """The room a file is in: its folder below the package, or its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """All modules a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards_only(path):
    room = room_of(path)
    rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("depo.")}
    known = rooms & ALLOWED.keys()
    assert known - {room} <= ALLOWED[room]


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_stays_in_its_rooms(library):
    rooms = {
        room_of(path) for path in FILES if any(name.split(".")[0] == library for name in imports_of(path))
    }
    assert rooms <= HEAVY[library]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path):
    source = path.read_text()
    assert len(source.splitlines()) <= LONGEST_FILE
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=room_of)
def test_a_package_file_holds_a_docstring_and_no_imports(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    # A public face may import on demand.
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    if path.parent.name not in PUBLIC_FACES:
        assert imports_of(path) == set()


def test_the_source_root_never_becomes_a_package():
    # `platform/__init__.py` would shadow the standard library's module of that name.
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("depo.config.load", {"torch", "ray", "transformers", "numpy"}),
        ("depo.cli", {"torch", "ray", "transformers", "mlflow", "vllm"}),
        ("depo.pipeline", {"torch", "ray", "transformers", "mlflow", "vllm"}),
        ("depo.search.driver", {"torch", "ray", "asyncio.base_events"}),
        ("depo.envs.registry", {"torch", "ray"}),
        ("depo.objectives.preference", {"ray", "transformers", "trl"}),
    ],
)
def test_importing_stays_light(module, absent):
    code = f"import sys, {module}; print(*sorted({absent!r} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_records_know_nothing_but_arrow():
    libraries = {name.split(".")[0] for name in imports_of(PACKAGE / "records.py")}
    assert libraries - set(sys.stdlib_module_names) == {"pyarrow"}


@pytest.mark.parametrize("room", ["envs", "search", "objectives", "evaluation", "data"])
def test_pure_rooms_use_neither_ray_nor_collectives(room):
    for path in (PACKAGE / room).rglob("*.py"):
        names = imports_of(path)
        assert not any(name.split(".")[0] == "ray" or name.startswith("torch.distributed") for name in names)
