"""The rows of a large JSON file one by one, with errors that name file and row."""

from __future__ import annotations

import codecs
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from json.decoder import JSONDecodeError
from typing import IO, Any

from depo.config.base import ConfigError

_CHUNK = 1 << 20
_SPACE = " \t\n\r"
_CUT = 12
"""An error this near the end of what was read may only mean that a word or an escape was cut."""

Row = tuple[int, str, Any]
"""Number (from 1), key ("" in an array), value."""


def read_rows(
    open_file: Callable[[], AbstractContextManager[IO[bytes]]], label: str, kind: str
) -> Iterator[Row]:
    """The rows of a file that holds one JSON array (`kind` "array") or object ("object").

    Memory stays at some MB, whatever the file's size. Raises `ConfigError` naming `label` and the row for
    a file that is empty, truncated, not UTF-8, not JSON or of the other kind.
    """
    try:
        with open_file() as stream:
            yield from _Reader(stream, label).rows(kind)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise ConfigError(f"{label}: cannot be read ({error}); copy the file again") from None


class _Reader:
    """A window of text that moves over a stream."""

    def __init__(self, stream: IO[bytes], label: str) -> None:
        self._stream, self._label = stream, label
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._passed = "", 0, 0
        self._ended = False
        self._row = 0

    def rows(self, kind: str) -> Iterator[Row]:
        first, last = "[]" if kind == "array" else "{}"
        if not (found := self._peek()):
            raise ConfigError(f"{self._label}: is empty; it must hold a JSON {kind}")
        if found != first:
            raise ConfigError(f"{self._label}: row 1: starts with {found!r}; it must hold a JSON {kind}")
        self._at += 1
        if self._peek() != last:
            while True:
                self._row += 1
                key = self._key() if kind == "object" else ""
                yield self._row, key, self._value()
                if self._next(f",{last}") == last:
                    break
        else:
            self._at += 1
        if self._peek():
            raise self._error("text after the end; keep one JSON value in the file")

    def _key(self) -> str:
        found = self._peek()
        if found and found != '"':
            raise self._error(f"expected a key in double quotes, found {found!r}")
        key: str = self._value()
        self._next(":")
        return key

    def _next(self, allowed: str) -> str:
        """Step over the next character, one of `allowed`."""
        found = self._peek()
        if not found:
            raise self._truncated()
        if found not in allowed:
            raise self._error(f"expected {' or '.join(map(repr, allowed))}, found {found!r}")
        self._at += 1
        return found

    def _peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _value(self) -> Any:
        if not self._peek():
            raise self._truncated()
        while True:
            try:
                value, self._at = self._scan(self._text, self._at)
                return value
            except JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _CUT
                if cut and self._more():
                    continue
                if cut:
                    raise self._truncated() from None
                raise self._error(f"{error.msg.lower()} (character {self._passed + error.pos})") from None
            except (ValueError, RecursionError) as error:
                raise self._error(f"not readable ({error})") from None

    def _more(self) -> bool:
        """Read on, at least doubling a row that is not yet whole; False at the end."""
        if self._ended:
            return False
        rest = self._text[self._at :]
        self._passed += self._at
        data = self._stream.read(max(_CHUNK, len(rest)))
        self._ended = not data
        try:
            self._text, self._at = rest + self._decoder.decode(data, final=self._ended), 0
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8 ({error.reason})") from None
        return True

    def _truncated(self) -> ConfigError:
        row = f"row {max(self._row, 1)}"
        return ConfigError(
            f"{self._label}: {row}: the file ends in the middle; it is truncated, copy it again"
        )

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"{self._label}: row {max(self._row, 1)}: {problem}; mend the JSON")
