"""Which minigrid levels there are, by what names they go, and how one is built."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import minigrid  # noqa: F401  registers the levels
from gymnasium.envs.registration import load_env_creator, registry
from minigrid.envs.babyai.core import roomgrid_level
from minigrid.envs.babyai.core.levelgen import LevelGen

from depo.config.base import ConfigError

_PREFIX = "BabyAI-"
_MOST_TRIES = 1_000

AGENTGYM_LEVELS = (
    "GoToRedBallGrey", "GoToRedBall", "GoToRedBallNoDists", "GoToObjS6-v1", "GoToLocalS8N7",
    "GoToObjMazeS7", "GoToImpUnlock", "GoToSeqS5R2", "GoToRedBlueBall", "GoToDoor",
    "GoToObjDoor", "Open", "OpenRedDoor", "OpenDoorLoc", "OpenRedBlueDoorsDebug",
    "OpenDoorsOrderN4Debug", "Pickup", "UnblockPickup", "PickupLoc", "PickupDistDebug",
    "PickupAbove", "PutNextLocalS6N4", "PutNextS7N4Carrying", "Unlock", "UnlockLocalDist",
    "KeyInBox", "UnlockPickupDist", "BlockedUnlockPickup", "UnlockToUnlock", "ActionObjDoor",
    "FindObjS7", "KeyCorridorS6R3", "OneRoomS20", "MoveTwoAcrossS8N9", "SynthS5R2",
    "SynthLoc", "SynthSeq", "MiniBossLevel", "BossLevel", "BossLevelNoUnlock",
)  # fmt: skip
"""The levels in AgentGym's order; its number of a level is the index here plus 1."""

_PINNED = {"GoToObjS6": "GoToObjS4"}
"""Level as the minigrid that AgentGym pins (before 2.5) makes it, to its name today.

What was registered as GoToObjS6 had rooms of size 4; today's `GoToObjS6-v1` has size 6.
"""
PINNED_LEVELS = tuple(level.removesuffix("-v1") for level in AGENTGYM_LEVELS)
"""`AGENTGYM_LEVELS`, by the names that AgentGym's pinned minigrid gives them."""


@lru_cache(maxsize=1)
def _registered() -> dict[str, str]:
    """Level name, as this package writes it, to its gymnasium id."""
    ids = [name for name in registry if name.startswith(_PREFIX)]
    return {name.removeprefix(_PREFIX).removesuffix("-v0"): name for name in ids}


@lru_cache(maxsize=1024)
def level_name(level: str | int, pinned: bool = False) -> str:
    """The one name of a level given by any of its names or by AgentGym's number (1-40).

    "BabyAI-" and "-v0" may be left out; a later version may be left out where there is only one.
    `pinned` takes names and numbers as AgentGym's pinned minigrid does. Raises `ConfigError` naming the
    nearest level.
    """
    known = _registered()
    numbered = PINNED_LEVELS if pinned else AGENTGYM_LEVELS
    if isinstance(level, int) and not isinstance(level, bool):
        if not 1 <= level <= len(numbered):
            raise ConfigError(f"levels: {level} is no level number; use 1 to {len(numbered)} or a name")
        return numbered[level - 1]
    if not isinstance(level, str):
        raise ConfigError(f"levels: {level!r} is neither a level's name nor its number")
    name = level.removeprefix(_PREFIX).removesuffix("-v0")
    if name in known or (pinned and name in _PINNED):
        return name
    versions = [other for other in known if other.startswith(f"{name}-v")]
    if len(versions) == 1 and not level.endswith("-v0"):
        return versions[0]
    near = versions or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}?" if near else "see minigrid's list of BabyAI levels"
    raise ConfigError(f"levels: unknown BabyAI level {level!r}; {hint}")


class Worlds(dict[str, Any]):
    """Level name to a minigrid level, built at the first use; `pinned` as for `make_world`."""

    def __init__(self, pinned: bool = False) -> None:
        super().__init__()
        self._pinned = pinned

    def __missing__(self, level: str) -> Any:
        name = level_name(level, self._pinned)
        world = make_world(name, self._pinned) if name == level else self[name]
        self[level] = world
        return world


def make_world(name: str, pinned: bool = False) -> Any:
    """A minigrid level that skips drawing its image: text is made from the grid itself.

    `pinned` draws the start states that AgentGym's server gives with the minigrid it pins.
    """
    spec = registry[_registered()[_PINNED.get(name, name) if pinned else name]]
    assert spec.entry_point is not None
    creator: Callable[..., Any] = (
        load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    )
    if pinned and isinstance(creator, type) and issubclass(creator, LevelGen):
        creator = type(creator.__name__, (creator,), {"locked_room": _LeftBehind()})
    world = creator(**spec.kwargs)
    world.gen_obs = _no_image
    _bound(world)
    if pinned and isinstance(world, LevelGen):
        world.reset = _twice(world)  # type: ignore[method-assign]
    return world


class _LeftBehind:
    """The locked room of a level, which no new draw clears.

    Before 3.2 minigrid kept it from a draw that was rejected, and from the episode before; where that
    room was then decides which places a mission may name.
    """

    def __get__(self, world: Any, owner: type) -> Any:
        return world.__dict__.get("locked_room")

    def __set__(self, world: Any, room: Any) -> None:
        if room is not None:
            world.__dict__["locked_room"] = room


def _twice(world: Any) -> Callable[..., Any]:
    """`reset` as AgentGym's server does it: a new level, reset twice to the same seed."""
    once = world.reset

    def reset(**arguments: Any) -> Any:
        world.__dict__.pop("locked_room", None)
        first = once(**arguments)
        # Without a room left behind, the second reset would do again what the first has done.
        return first if world.locked_room is None else once(**arguments)

    return reset


def _no_image() -> dict[str, Any]:
    return {}


def _bound(world: Any) -> None:
    """Let minigrid's `place_obj` give up on an agent that fits nowhere.

    minigrid draws for ever where each free cell of a small room looks at an object; told that it
    cannot be done, it starts over with another grid.
    """
    place, draw = world.place_obj, world.gen_mission
    tries = 0

    def drawn_anew() -> None:
        # Counted from each draw on: what was drawn before must not show in a start state.
        nonlocal tries
        tries = 0
        draw()

    def bounded(obj: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal tries
        tries = tries + 1 if obj is None else 0  # None places the agent
        if tries > _MOST_TRIES:
            raise RecursionError("no place for the agent")
        return place(obj, *args, **kwargs)

    world.place_obj, world.gen_mission = bounded, drawn_anew


def _say_nothing(*_: Any) -> None:
    return None


# minigrid prints each rejected mission draw; a redirected stdout would be shared by all threads.
roomgrid_level.print = _say_nothing  # type: ignore[attr-defined]
