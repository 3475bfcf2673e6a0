"""Where a catalogue's three files are, and what identifies their content."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from depo.config.base import ConfigError
from depo.envs.webshop.json_rows import Row, read_rows

ITEMS, ATTRIBUTES, HUMAN = "items_shuffle", "items_ins_v2", "items_human_ins"
_MEND = f"the public data are {ITEMS}*.json, {ATTRIBUTES}*.json and, for human goals, {HUMAN}.json"


@dataclass(frozen=True)
class DataFile:
    """One JSON file, on its own or inside an archive."""

    label: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]

    def rows(self, kind: str) -> Iterator[Row]:
        """Its rows; see `read_rows`."""
        return read_rows(self.open, self.label, kind)


@dataclass(frozen=True)
class Source:
    """A catalogue's files; `human` may be missing. `parts` are the files on disk that hold them."""

    items: DataFile
    attributes: DataFile
    human: DataFile | None
    parts: tuple[Path, ...]

    def stamp(self) -> str:
        """Changes whenever a file is written, replaced or moved; read without opening any."""
        states = [(str(path.resolve()), path.stat()) for path in self.parts]
        return repr([(name, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for name, s in states])

    def digest(self) -> str:
        """SHA-256 over all files, in hexadecimal."""
        digest = hashlib.sha256()
        for path in self.parts:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()


def find_source(path: Path) -> Source:
    """The catalogue in a directory, in a `.tar.gz`, or around one items file.

    An items file goes with the other files whose names end alike (`items_shuffle_1000.json` with
    `items_ins_v2_1000.json`), or with the only ones there are. Raises `ConfigError` where a file is
    missing or where it is not clear which one is meant.
    """
    if path.is_dir():
        return _choose(path, _listing(path), "")
    if not path.exists():
        raise ConfigError(f"{path}: no such file or directory; {_MEND}")
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return _choose(path, _members(path), "", archive=True)
    if not path.name.startswith(ITEMS):
        raise ConfigError(f"{path}: not a catalogue: give a directory, a .tar.gz or an {ITEMS}*.json file")
    return _choose(path.parent, _listing(path.parent), path.name)


def _listing(folder: Path) -> dict[str, DataFile]:
    return {
        path.name: DataFile(str(path), partial(_open_file, path))
        for path in sorted(folder.glob("items_*.json"))
    }


def _members(path: Path) -> dict[str, DataFile]:
    try:
        with tarfile.open(path) as archive:
            names = [member.name for member in archive if member.isfile()]
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read as an archive ({error}); copy it again") from None
    return {
        os.path.basename(name): DataFile(f"{path}:{name}", partial(_open_member, path, name))
        for name in names
    }


def _open_file(path: Path) -> IO[bytes]:
    return path.open("rb")


@contextmanager
def _open_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with tarfile.open(path) as archive:
        member = archive.extractfile(name)
        assert member is not None
        with member:
            yield member


def _choose(place: Path, files: dict[str, DataFile], items: str, archive: bool = False) -> Source:
    items = items or _only(place, [name for name in files if _is(name, ITEMS)], ITEMS)
    ending = items.removeprefix(ITEMS)
    attributes = _matching(place, files, ATTRIBUTES, ending)
    if not attributes:
        raise ConfigError(f"{place}: holds no {ATTRIBUTES}*.json; {_MEND}")
    human = _matching(place, files, HUMAN, ending)
    names = [items, attributes, *([human] if human else [])]
    parts = (place,) if archive else tuple(place / name for name in names)
    return Source(files[items], files[attributes], files.get(human), parts)


def _is(name: str, kind: str) -> bool:
    return name.startswith(kind) and name.endswith(".json")


def _matching(place: Path, files: dict[str, DataFile], kind: str, ending: str) -> str:
    """The file of a kind that ends as the items file does, else the only one; "" where there is none."""
    if kind + ending in files:
        return kind + ending
    names = [name for name in files if _is(name, kind)]
    return _only(place, names, kind) if names else ""


def _only(place: Path, names: list[str], kind: str) -> str:
    if not names:
        raise ConfigError(f"{place}: holds no {kind}*.json; {_MEND}")
    if len(names) > 1:
        raise ConfigError(f"{place}: holds {' and '.join(names)}; give the {ITEMS}*.json file that is meant")
    return names[0]
