"""The objectives by name.

An objective is one function and one `Objective`: here, or in a module of one's own, which a
configuration names as `objective: my_module:MY_OBJECTIVE`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from depo.config.base import ConfigError
from depo.config.method import OBJECTIVE_FACTS, Kind
from depo.objectives import paired, preference, supervised
from depo.objectives.scores import Losses, Scores

__all__ = ["OBJECTIVES", "Losses", "Objective", "Scores", "objective"]


@dataclass(frozen=True)
class Objective:
    """A loss, and what a trainer must give it."""

    name: str
    kind: Kind
    loss: Callable[..., Any]
    """By kind; `method` is the `MethodConfig`, whose `options` are an own objective's parameters.

    - supervised: `(scores, method) -> Tensor`, the weight of each sample's NLL `[batch]`;
    - unpaired: `(scores, kl, method) -> Losses`, `kl` a scalar, 0 where `needs_kl` is False;
    - paired: `(chosen, rejected, method) -> Losses` of each pair.
    """
    needs_reference: bool = False
    """Reads `ref_logp`."""
    needs_kl: bool = False
    """Reads `kl`."""
    takes_bonus: bool = False
    """Reads `bonus`."""
    desirable_only: bool = False
    """Trains on desirable samples alone."""
    discounts_turns: bool = False
    """Weighs the log-probs of later turns less, by `turn_discount`."""


_LOSSES: dict[str, Callable[..., Any]] = {
    "sft": supervised.sft,
    "weighted_bc": supervised.weighted_bc,
    "kto": preference.kto,
    "depo": preference.depo,
    "dpo": paired.dpo,
    "dmpo": paired.dmpo,
    "simpo": paired.simpo,
}

OBJECTIVES: dict[str, Objective] = {
    name: Objective(
        name,
        facts.kind,
        _LOSSES[name],
        needs_reference=facts.needs_reference,
        needs_kl=facts.needs_kl,
        takes_bonus=facts.takes_bonus,
        desirable_only=facts.desirable_only,
        discounts_turns="turn_discount" in facts.reads,
    )
    for name, facts in OBJECTIVE_FACTS.items()
}


def objective(name: str) -> Objective:
    """The objective of a name, or of `module:NAME`. Raises `ConfigError` where there is none."""
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(
            f"objective {name!r} is not defined; known: {', '.join(OBJECTIVES)}, or module:NAME"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"objective {name!r}: cannot be imported ({error}); check module and name"
        ) from None
    if not isinstance(found, Objective):
        raise ConfigError(
            f"objective {name!r}: is a {type(found).__name__}, not an Objective; wrap the loss in "
            "depo.objectives.registry.Objective"
        )
    return found
