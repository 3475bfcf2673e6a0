"""Strictness shared by every configuration object, and errors a reader can act on."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number; give one")
    return value


_Float = Annotated[float, BeforeValidator(_number)]
_Int = Annotated[int, BeforeValidator(_number)]
Fraction = Annotated[_Float, Field(ge=0, le=1)]
Positive = Annotated[_Float, Field(gt=0)]
NonNegative = Annotated[_Float, Field(ge=0)]
Count = Annotated[_Int, Field(ge=1)]
Seed = Annotated[_Int, Field(ge=0, lt=2**32)]
"""What every generator of random numbers takes."""
_DEEPEST = 100


class ConfigError(ValueError):
    """A configuration that cannot be used: which key or file, and the mend, in one line."""


class Strict(BaseModel):
    """Frozen, and closed to unknown keys; every field's docstring is its description."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    def unread(self) -> dict[str, str]:
        """Settings that nothing reads as the others stand, `search.tasks` for one of a section, and why.

        What another value of a switch reads (`student.tiny`, `generation.vllm`, `evaluation.temperature`) is
        none: `--set` turns the switch and cannot take settings out.
        """
        return {}

    @model_validator(mode="after")
    def _nothing_unread_is_set(self, info: ValidationInfo) -> Self:
        for name, why in self.unread().items():
            if _is_set(self, name.split("."), resolved=info.context == RESOLVED):
                raise ValueError(f"{name} is not read {why}: leave it out")
        return self


RESOLVED = {"resolved": True}
"""Validation context of what the program wrote itself, where every setting may stand at its default."""


def _is_set(section: Any, path: list[str], resolved: bool) -> bool:
    name, *rest = path
    if isinstance(section, dict):
        return _is_set(section[name], rest, resolved)
    if name not in section.model_fields_set:
        return False
    value = getattr(section, name)
    if rest:
        return _is_set(value, rest, resolved)
    return not resolved or value != type(section).model_fields[name].get_default(call_default_factory=True)


def read_settings(value: Any, dumped: Any) -> Any:
    """What a configuration, `dumped` as JSON, says without the settings that nothing reads."""
    if isinstance(value, Strict):
        kept = {name: read_settings(getattr(value, name), inner) for name, inner in dumped.items()}
        for unread in value.unread():
            *sections, name = unread.split(".")
            section = kept
            for one in sections:
                section = section[one]
            section.pop(name, None)
        return kept
    if isinstance(value, dict):
        return {key: read_settings(inner, dumped[key]) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [read_settings(*pair) for pair in zip(value, dumped, strict=True)]
    return dumped


def plain(value: Any) -> Any:
    """`value`, where it is such data as JSON can hold; raises `ValueError` saying what of it is not."""
    try:
        _require_plain(value, "")
    except RecursionError:
        raise ValueError("is nested without end; write it out") from None
    return value


def _require_plain(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{place}{key!r}: a key is text here; quote it")
            _require_plain(inner, f"{place}{key}: ")
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_plain(inner, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place}{value} is no finite number; give one")
    elif not isinstance(value, str | int | float | None):
        raise ValueError(f"{place}{value} is a {type(value).__name__}; quote it to mean the text")


Options = Annotated[dict[str, Any], AfterValidator(plain)]
"""Keyword arguments of something else: plain data."""


class _Loader(yaml.SafeLoader):
    """YAML as it is meant: a key stands once in a mapping, `1e-4` is a number, and `on` is a word."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        # Before merges (`<<`) are carried out, which may well give a key another value.
        node = super().compose_mapping_node(anchor)
        first: dict[Any, int] = {}
        for key, _ in node.value:
            name, line = (key.tag, str(key.value)), key.start_mark.line + 1
            if name in first:
                problem = f"key {key.value!r} stands there twice, first in line {first[name]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            first[name] = line
        return node

    def construct_yaml_int(self, node: Any) -> int:
        if re.fullmatch(r"[-+]?0[0-9_]+|.*:.*", node.value):
            problem = f"{node.value} is read as an octal number or a time; drop the zeros, or quote it"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would take for a number."""


for _side in (_Loader, _Dumper):
    _side.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag != "tag:yaml.org,2002:bool"]
        for first, known in _side.yaml_implicit_resolvers.items()
    }
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


def load_yaml(text: str, place: str) -> Any:
    """The value of a YAML text, which stands at `place`; the one reader of YAML.

    Raises `ConfigError` naming place and line: what is no YAML, a key that stands twice in a mapping, a
    value that cannot be what it looks like.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
    except RecursionError:
        line, problem = "", "nested too deeply"
    except KeyError as error:
        line, problem = "", f"{error} is neither true nor false"
    except (ValueError, TypeError) as error:  # a date that is none, an integer of thousands of digits
        line, problem = "", str(error).partition(";")[0]
    raise ConfigError(f"{place}{line}: {' '.join(problem.split())}; mend the YAML, or quote what is text")


def dump_yaml(value: Any) -> str:
    """Plain data as YAML that `load_yaml` reads back to the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=100)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `ConfigError` naming file and line."""
    try:
        value = load_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8 text (byte {error.start}); save it as UTF-8") from None
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
        value = read_yaml(Path(text[1:])) if text.startswith("@") else load_yaml(text, f"--set {key}")
        result = set_key(result, key, value)
    return result


def set_key(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of `values` in which the dotted `key` is `value`; a number picks an entry of a list.

    Raises `ConfigError` where the path leads through a plain value or past a list's end.
    """
    path = key.split(".")
    if len(path) > _DEEPEST:
        raise ConfigError(f"{_shown(key)}: leads {len(path)} sections deep; no key does")
    return _set(values, path, value, key)


def _set(inner: Any, path: list[str], value: Any, key: str) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(inner, list):
        if not head.isdecimal() or int(head) >= len(inner):
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
    location = [_shown(str(part)) for part in problem["loc"]]
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
    return f"{key}: {message[0].lower()}{message[1:]}, not {_shown(repr(problem['input']))}"


def _shown(text: str, most: int = 120) -> str:
    """What somebody wrote, on one line and not too long."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= most else f"{text[:most]}..."


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
