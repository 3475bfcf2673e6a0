"""Environments by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from depo.config.base import ConfigError
from depo.envs.base import TextEnv

ENTRY_POINTS = "depo.envs"
"""Entry-point group in which other packages register `name = "module:Class"`."""

BUILT_IN = {
    "babyai": "depo.envs.babyai.env:BabyAIEnv",
    "webshop": "depo.envs.webshop.env:WebShopEnv",
    "maths": "depo.envs.maths.env:MathsEnv",
    "agentgym": "depo.envs.agentgym:AgentGymEnv",
}


def make_env(id: str, options: Mapping[str, Any]) -> TextEnv:
    """The environment registered as `id`, or given as `module:Class`, built with `options`.

    Raises `ConfigError` on an unknown id or option (naming the nearest), a missing option, and what
    the environment itself says about an option's value.
    """
    cls = _load(id)
    known = {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for name in options:
        if name not in known:
            raise ConfigError(f"env.options.{name}: unknown option of {id!r}; {_hint(name, list(known))}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise ConfigError(f"env.options.{name}: missing; {id!r} needs it")
    try:
        return cls(**options)
    except ConfigError as error:
        raise ConfigError(f"env.options.{error}") from None


def _load(id: str) -> Any:
    path, registered = BUILT_IN.get(id, id), BUILT_IN
    if ":" not in path:
        # Only then, since it reads the metadata of every package that is installed.
        registered = {**{e.name: e.value for e in entry_points(group=ENTRY_POINTS)}, **BUILT_IN}
        path = registered.get(id, id)
    module, colon, name = path.partition(":")
    if not colon:
        raise ConfigError(
            f"env.id: unknown environment {id!r}; {_hint(id, list(registered))} (or module:Class)"
        )
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"env.id: {path!r} cannot be imported ({error}); mend the path or install it"
        ) from None


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
