"""Folders that are built once on a machine and then only read, by any number of processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from depo.config.base import ConfigError

_SEAL = "seal.json"


def cache_root(cache_dir: Path | str | None) -> Path:
    """Where built folders are kept: `cache_dir`, else `depo/webshop` in the user's cache."""
    if cache_dir is not None:
        return Path(cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "depo" / "webshop"


def built_folder(root: Path, key: str, build: Callable[[Path], None]) -> Path:
    """The folder `root/key`, complete: found so, or made by `build`, which fills an empty folder.

    One process builds while others wait. A folder appears under its name only when it is complete; one
    that is damaged is built again. Raises `ConfigError` where `root` cannot be written.
    """
    folder = root / key
    if _is_whole(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f"{key}.lock"):
            if not _is_whole(folder):
                _build(folder, build)
    except OSError as error:
        raise ConfigError(
            f"cache_dir {root}: cannot be written ({error.strerror or error}); name another folder by "
            "cache_dir or by the environment variable XDG_CACHE_HOME"
        ) from None
    return folder


def remembered(root: Path, question: str, answer: Callable[[], str]) -> str:
    """The answer to a question that never changes its answer, kept in `root` where that can be written."""
    path = root / "stamps" / hashlib.sha256(question.encode()).hexdigest()
    if path.is_file() and (known := path.read_text()):
        return known
    found = answer()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(found)
        draft.rename(path)
    except OSError:
        pass  # then it is worked out again the next time
    return found


def _build(folder: Path, build: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(f"{folder.name}.*.draft"):
        shutil.rmtree(left)
    draft = folder.with_name(f"{folder.name}.{os.getpid()}.draft")
    draft.mkdir()
    try:
        build(draft)
        _seal(draft)
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Write size, time and digest of every file: last, so that a folder without it is not complete."""
    state = {path.name: [*_state(path), _digest(path)] for path in sorted(folder.iterdir())}
    with (folder / _SEAL).open("w") as stream:
        json.dump(state, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _is_whole(folder: Path) -> bool:
    """Whether every file is as it was sealed. Content is read only where a file's time has changed."""
    try:
        sealed = json.loads((folder / _SEAL).read_text())
        for name, (size, changed, digest) in sealed.items():
            found = _state(folder / name)
            if found[0] != size or (found[1] != changed and _digest(folder / name) != digest):
                return False
    except (OSError, ValueError, TypeError, AttributeError):
        return False
    return bool(sealed)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system releases it when that process ends, however it does."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"webshop: waiting for another process to build {path.stem}", file=sys.stderr)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield
