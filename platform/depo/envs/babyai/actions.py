"""Text actions: which there are, which low-level moves they stand for, and why one is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from depo.envs.babyai.paths import DROP, LEFT, PICKUP, RIGHT, STEP, TOGGLE, WAIT, Routes, routes
from depo.envs.babyai.text import CHECK
from depo.envs.babyai.view import Seen, Sight

_MACRO = re.compile(r"(go to|pick up|pickup|go through|open) (.+?)(?: (\d+))?", re.ASCII)


@dataclass(frozen=True)
class Scene:
    """What deciding about an action needs to know."""

    sight: Sight
    carried: str | None
    """Name of what the agent carries."""

    @cached_property
    def routes(self) -> Routes:
        """The ways to all that is in sight; searched once, and only if asked for."""
        return routes(self.sight.blocked)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an action cannot be carried out."""

    reason: str


def normalise(action: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(action.lower().split()).rstrip(". ")


def moves(action: str, scene: Scene) -> tuple[int, ...] | Refusal:
    """The low-level moves that a normalised action stands for (at least one), or why it has none."""
    front = scene.sight.at(1, 0)
    match action:
        case "turn left":
            return (LEFT,)
        case "turn right":
            return (RIGHT,)
        case "move forward":
            return _step(scene, front)
        case "toggle":
            return _toggle(scene, front)
        case "drop":
            return _drop(scene, front)
    found = _MACRO.fullmatch(action)
    if found is None:
        return Refusal(f"there is no such action; try {CHECK}")
    verb, name, number = found.groups()
    if number is None:
        return Refusal(f"say which {name}, such as {verb} {name} 1")
    seen = scene.sight.find(f"{name} {int(number)}")
    if seen is None:
        return Refusal(_absent(name, scene.sight))
    return _approach("pick up" if verb == "pickup" else verb, seen, scene)


def available(scene: Scene) -> list[str]:
    """Every action that can be carried out, `check available actions` aside."""
    actions = ["turn left", "turn right", "move forward", "toggle", "drop"]
    for seen in scene.sight.objects:
        verbs = ("go to", "open", "go through") if seen.kind == "door" else ("go to", "pick up")
        actions += [f"{verb} {seen.label}" for verb in verbs]
    return [action for action in actions if not isinstance(moves(action, scene), Refusal)]


def _step(scene: Scene, front: Seen | None) -> tuple[int, ...] | Refusal:
    if scene.sight.wall_ahead == 1:
        return Refusal("a wall is right ahead")
    if front is not None and not front.name.startswith("open "):
        return Refusal(f"{front.label} is in the way")
    return (STEP,)


def _toggle(scene: Scene, front: Seen | None) -> tuple[int, ...] | Refusal:
    if front is None or front.kind not in ("door", "box"):
        return Refusal("no door or box is right ahead")
    return _unlockable(front, scene) or (TOGGLE,)


def _drop(scene: Scene, front: Seen | None) -> tuple[int, ...] | Refusal:
    if scene.carried is None:
        return Refusal("you carry nothing")
    if front is not None or scene.sight.wall_ahead == 1:
        return Refusal("the cell ahead is not empty")
    return (DROP,)


def _approach(verb: str, seen: Seen, scene: Scene) -> tuple[int, ...] | Refusal:
    door = seen.kind == "door"
    if verb == "pick up":
        if door:
            return Refusal("a door cannot be picked up")
        if scene.carried is not None:
            return Refusal(f"you carry a {scene.carried} already")
    elif verb != "go to":
        if not door:
            return Refusal(f"{seen.label} is no door")
        if verb == "open" and seen.name.startswith("open "):
            return Refusal(f"{seen.label} is open already")
        locked = _unlockable(seen, scene)
        if locked is not None:
            return locked
    way = scene.routes.to(seen.cell)
    if way is None:
        return Refusal(f"no way leads to {seen.label}")
    if verb == "go to":
        return way or (WAIT,)
    if verb == "pick up":
        return (*way, PICKUP)
    opening = () if seen.name.startswith("open ") else (TOGGLE,)
    return (*way, *opening) if verb == "open" else (*way, *opening, STEP, STEP)


def _unlockable(seen: Seen, scene: Scene) -> Refusal | None:
    if seen.name.startswith("locked ") and scene.carried != f"{seen.color} key":
        return Refusal(f"{seen.label} needs a {seen.color} key")
    return None


def _absent(name: str, sight: Sight) -> str:
    count = sum(seen.name == name for seen in sight.objects)
    return f"only {count} {name} in sight" if count else f"no {name} in sight"
