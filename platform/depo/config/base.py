"""Strictness shared by every configuration object, and errors a reader can act on."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class ConfigError(ValueError):
    """A configuration that cannot be used: which key or file, and the mend, in one line."""


class Strict(BaseModel):
    """Frozen, and closed to unknown keys; every field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `ConfigError` naming file and line."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ConfigError(f"{path}{line}: {problem}; mend the YAML") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no mapping; a configuration starts with `name: ...`")
    return value


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """`values` with `a.b=c` overrides laid over it; `values` itself is not changed.

    `c` is read as YAML; `@file` stands for the mapping in a YAML file.
    """
    result = dict(values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: write it as key.path=value")
        try:
            value = read_yaml(Path(text[1:])) if text.startswith("@") else yaml.safe_load(text)
        except yaml.YAMLError:
            raise ConfigError(f"--set {key}: {text!r} is not a YAML value; quote it") from None
        result = set_key(result, key, value)
    return result


def set_key(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of `values` in which the dotted `key` is `value`; a number picks an entry of a list.

    Raises `ConfigError` where the path leads through a plain value or past a list's end.
    """
    return _set(values, key.split("."), value, key)


def _set(inner: Any, path: list[str], value: Any, key: str) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(inner, list):
        if not head.isdigit() or int(head) >= len(inner):
            raise ConfigError(f"{key}: {head!r} picks no entry of a list of {len(inner)}; count from 0")
        at = int(head)
        return [*inner[:at], _set(inner[at], rest, value, key), *inner[at + 1 :]]
    if inner is None:
        inner = {}
    if not isinstance(inner, dict):
        raise ConfigError(
            f"{key}: what stands before {head!r} is a value, not a section; drop what follows the dot"
        )
    return {**inner, head: _set(inner.get(head), rest, value, key)}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a pydantic error as one line: the key, what is wrong, the mend."""
    problem = error.errors()[0]
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(sorted(known))}"
        return f"{key}: unknown key; {hint}"
    if problem["type"] == "missing":
        return f"{key}: missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message[0].lower()}{message[1:]}, not {problem['input']!r}"


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Field names known at a location inside `model`; walks through unions, lists and maps."""
    candidates = [model]
    for part in location:
        inner = [m.model_fields[part].annotation for m in candidates if part in m.model_fields]
        candidates = [m for annotation in inner for m in _models_in(annotation)] or candidates
    return sorted({name for m in candidates for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in get_args(annotation) for m in _models_in(argument)]
