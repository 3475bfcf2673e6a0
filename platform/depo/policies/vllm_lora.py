"""The adapters that one vLLM engine serves beside its own weights."""

from __future__ import annotations

import itertools
from typing import Any

from depo.config.base import ConfigError


class Adapters:
    """Up to `room` adapters at a time; the one loaded first makes way for the next.

    Every adapter gets an id and a name that were never used before: an id used again with other
    weights serves the old ones, and a name used again finds their prefixes in the cache.
    """

    def __init__(self, engine: Any, room: int) -> None:
        self._engine = engine
        self._room = room
        self._numbers = itertools.count(1)
        self._loaded: list[int] = []

    def add(self, path: str, in_use: set[int]) -> Any:
        """Load the adapter at `path`; the `LoRARequest` to send with requests.

        `in_use` are ids of adapters that requests in flight need. Raises `ConfigError` where the
        adapter cannot be served, or all places are in use; those loaded before then stay.
        """
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.exceptions import EngineDeadError

        leaving = [number for number in self._loaded if number not in in_use][:1]
        if len(self._loaded) >= self._room and not leaving:
            raise ConfigError(
                f"{path}: all {self._room} adapters have requests in flight; raise "
                "runtime.generation.vllm.adapters"
            )
        number = next(self._numbers)
        adapter = LoRARequest(f"{path}#{number}", number, path)
        try:
            self._engine.add_lora(adapter)  # inside a step a bad one would leave the engine spinning
        except EngineDeadError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [repr(error)])[0]
            raise ConfigError(f"{path}: the adapter cannot be served ({reason})") from None
        if len(self._loaded) >= self._room:
            self._remove(leaving)
        self._loaded.append(number)
        return adapter

    def clear(self) -> None:
        """Forget all adapters; none may be in use."""
        self._remove(list(self._loaded))

    def _remove(self, numbers: list[int]) -> None:
        for number in numbers:
            self._engine.remove_lora(number)
            self._loaded.remove(number)
