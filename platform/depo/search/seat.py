"""The one environment of a search, taken to whichever state is to be played next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from depo.envs.base import SnapshotUnsupported, TextEnv, received_text
from depo.policies.base import Reply
from depo.records import Task


class Seat:
    """Moves `env` between the states of one task: by snapshots, or by playing the actions again.

    A state that the environment is in already costs nothing; whoever lets others move it in between
    says so by `lost`.
    """

    def __init__(self, env: TextEnv, task: Task) -> None:
        self.env = env
        self._task = task
        self._at: tuple[str, ...] | None = None
        self.replays = False
        """The environment cannot save its state."""

    def open(self) -> str:
        """Start the task; the first observation. Raises what the environment raises."""
        self._at = None
        first = received_text(self.env.reset(self._task))
        self._at = ()
        return first

    def save(self) -> Any:
        """The present state; None where the environment cannot save it."""
        if self.replays:
            return None
        try:
            return self.env.snapshot()
        except SnapshotUnsupported:
            self.replays = True
            return None

    def go(self, said: Sequence[Reply], state: Any) -> None:
        """Bring the environment to where `said` led, which `state` is a snapshot of (None: play it again).

        Raises what the environment raises.
        """
        actions = tuple(reply.action for reply in said if not reply.malformed)
        if self._at == actions:
            return
        self._at = None
        if state is not None:
            self.env.restore(state)
        else:
            self.env.reset(self._task)
            for action in actions:
                self.env.step(action)
        self._at = actions

    def moved(self, reply: Reply) -> None:
        """The environment has just carried out `reply` from where it was."""
        if self._at is not None and not reply.malformed:
            self._at = (*self._at, reply.action)

    def lost(self) -> None:
        """The environment may have been moved by others, or failed: look nowhere before the next `go`."""
        self._at = None
