"""Which environment a policy acts in."""

from __future__ import annotations

from typing import Any

from depo.config.base import Strict


class EnvConfig(Strict):
    """Which environment, and how its tasks read."""

    id: str = "babyai"
    """Registered id, or `module:Class`."""
    options: dict[str, Any] = {}
    """Keyword arguments of the environment's constructor, such as BabyAI's `levels`."""
