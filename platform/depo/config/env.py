"""Which environment a policy acts in."""

from __future__ import annotations

from depo.config.base import Options, Strict


class EnvConfig(Strict):
    """Which environment, and how its tasks read."""

    id: str = "babyai"
    """Registered id, or `module:Class`."""
    options: Options = {}
    """Keyword arguments of the environment's constructor, such as BabyAI's `levels`."""
