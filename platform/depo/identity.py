"""What a model or a set of files is, by content: the same wherever it lies and whenever it was written."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from depo.config.base import ConfigError
from depo.records import content_hash

_SMALL = 2**20
"""Bytes up to which a file is read anew each time."""
_SETTLED = 2 * 10**9
"""Nanoseconds after a change before a hash is kept: a second change within a file system's tick shows in
no time stamp."""
_WEIGHTS = (".safetensors", ".bin")
_READ = (*_WEIGHTS, ".json", ".jinja", ".model", ".txt", ".tiktoken")
_NOT_WEIGHTS = ("tokenizer", "special_tokens", "generation_config", "vocab", "added_tokens")
_NOT_READ = (
    "training_args",
    "trainer_state",
    "optimizer",
    "scheduler",
    "rng_state",
    "all_results",
    "train_results",
)
_HUB_FILES = ["*.json", "*.safetensors", "*.bin", "*.jinja", "*.model", "*.txt", "*.tiktoken"]


def file_hash(file: Path) -> str:
    """SHA-256 of a file's content.

    That of a large file is kept in the user's cache folder (`XDG_CACHE_HOME`, else `~/.cache`) under its
    path, size, inode and time stamps, so that gigabytes are read once.
    """
    found = file.stat()
    if found.st_size <= _SMALL:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    state = [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    note = caches / "depo" / "hashes" / content_hash(str(file.resolve()), length=32)
    with suppress(OSError, ValueError):
        *known, digest = json.loads(note.read_text())
        if known == state:
            return str(digest)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if time.time_ns() - max(state[2:]) > _SETTLED:
        with suppress(OSError):  # a cache that cannot be written costs time and nothing else
            note.parent.mkdir(parents=True, exist_ok=True)
            fresh = note.with_name(f"{note.name}.{os.getpid()}.{threading.get_ident()}")
            fresh.write_text(json.dumps([*state, digest]))
            fresh.replace(note)
    return digest


def files_hash(path: str | Path, read: Callable[[Path], bool] = Path.is_file) -> dict[str, str]:
    """Name (below `path`) to hash of each file of a folder that is `read`, or of one file; {} for none."""
    root = Path(path)
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    files = [file for file in files if read(file)]
    with ThreadPoolExecutor(8) as pool:
        names = [str(file.relative_to(root)) if file != root else file.name for file in files]
        return dict(zip(names, pool.map(file_hash, files), strict=True))


def model_hash(model_dir: str) -> str:
    """The identity of a model: hash of its weights, configuration, tokenizer and chat template.

    Of an adapter, that of its base too. Of a hub's model it is "id@commit", as `pinned` answers it.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        return model_dir
    return _hash_of(folder, _READ, _NOT_READ, model_hash)


def weights_hash(model_dir: str) -> str:
    """Hash of a saved model's configuration and weights, whatever its tokenizer; of a hub's, "id@commit".

    Of an adapter, that of its base's too.
    """
    folder = Path(model_dir)
    if not folder.is_dir():
        return content_hash(model_dir, length=32)
    return _hash_of(folder, (*_WEIGHTS, ".json"), (*_NOT_WEIGHTS, *_NOT_READ), weights_hash)


def _hash_of(
    folder: Path, kinds: tuple[str, ...], left_out: tuple[str, ...], of_base: Callable[[str], str]
) -> str:
    digests = files_hash(
        folder,
        lambda file: file.parent == folder and file.suffix in kinds and not file.name.startswith(left_out),
    )
    with suppress(OSError, ValueError, AttributeError):
        base = json.loads((folder / "adapter_config.json").read_text()).get("base_model_name_or_path")
        digests["base model"] = of_base(str(base)) if base else ""
    return content_hash(digests, length=32)


@functools.lru_cache(maxsize=64)
def hub_commit(model: str, revision: str) -> str | None:
    """The commit that `revision` of a hub's model is: in the local cache, else on the hub; else None."""
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, "config.json", revision=revision)
        if isinstance(cached, str):
            return Path(cached).parent.name
        return HfApi().model_info(model, revision=revision, timeout=10).sha
    except Exception:  # the hub's client lets those of its HTTP library through
        return None


def pinned(model: str, revision: str | None) -> str:
    """A hub's model at one commit, as "id@commit"; the id alone where the commit cannot be told. A folder
    is itself."""
    if Path(model).is_dir():
        return model
    commit = hub_commit(model, revision or "main")
    return f"{model}@{commit}" if commit else model


def require_commit(model: str, revision: str | None) -> None:
    """Raise `ConfigError` where a hub's model cannot be told by its commit."""
    if not Path(model).is_dir() and "@" not in pinned(model, revision):
        raise ConfigError(
            f"student.revision: {revision or 'main'} of {model!r} is in no local cache, and no hub tells its "
            "commit; download the model, or check student.model and student.revision"
        )


@functools.lru_cache(maxsize=64)
def located(model_dir: str, download: bool = True) -> str:
    """Where this machine has the model: the folder, or the local copy of "id@commit", downloaded if need be
    and allowed.

    Raises `ConfigError` where that is not to be had.
    """
    name, at, commit = model_dir.rpartition("@")
    if not at or Path(model_dir).exists():
        return model_dir
    from huggingface_hub import snapshot_download

    reason = "it has not all of its weights"
    for local in (True, False) if download else (True,):  # the hub is asked only for what is not here
        try:
            here = snapshot_download(name, revision=commit, allow_patterns=_HUB_FILES, local_files_only=local)
            if _whole(Path(here)):
                return here
        except Exception as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
    raise ConfigError(
        f"student.model: {name} at commit {commit} is neither whole in the local cache nor to be had "
        f"({reason}); download it, or check student.revision"
    )


def _whole(folder: Path) -> bool:
    """Whether a model's local copy has its weights, all shards of them."""
    for index in folder.glob("*.index.json"):
        with suppress(OSError, ValueError):
            shards = set(json.loads(index.read_text())["weight_map"].values())
            return all((folder / shard).is_file() for shard in shards)
    return any(file.suffix in _WEIGHTS for file in folder.iterdir())
