"""An environment that breaks its contract in ways the checker must find."""

from __future__ import annotations

import itertools

from depo.envs.base import SnapshotUnsupported, StepResult
from depo.records import Task


class Leaky:
    """Splits overlap, episodes differ each time, and everything is a valid action."""

    id = "leaky"
    system = ""
    clock = itertools.count()

    def reset(self, task):
        return f"tick {next(self.clock)}"

    def step(self, action):
        return StepResult(f"tick {next(self.clock)}", 0.0, False, False, {"valid": True})

    def available_actions(self):
        return ["wait"]

    def snapshot(self):
        raise SnapshotUnsupported

    def restore(self, state):
        raise SnapshotUnsupported

    def tasks(self, split, count):
        return [Task("leaky", "one", seed, split) for seed in range(count)]
