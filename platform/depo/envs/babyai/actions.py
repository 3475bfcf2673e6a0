"""The repaired rules' text actions: which there are, which low-level moves they stand for, why not."""

from __future__ import annotations

import re
from dataclasses import dataclass

from depo.envs.babyai.board import FRONT
from depo.envs.babyai.episode import Episode, opens
from depo.envs.babyai.layout import CODES, FIRST_DOOR, FIRST_LOCKED, FIRST_SHUT
from depo.envs.babyai.mission import DROP, LEFT, PICKUP, RIGHT, STEP, TOGGLE, WAIT
from depo.envs.babyai.paths import beside, facing, reachable, shortest
from depo.envs.babyai.text import CHECK, label, quoted
from depo.envs.babyai.view import CODE_MASK, NAMES, RANK_SHIFT, wall_ahead

_MACRO = re.compile(r"(go to|pick up|pickup|go through|open) (.+?)(?: (\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Choice:
    """What an action comes to: the way to face the thing at `rank` (-1 for none), then `moves`."""

    moves: tuple[int, ...]
    rank: int = -1


_ALWAYS = {"turn left": Choice((LEFT,)), "turn right": Choice((RIGHT,))}
_STEP, _TOGGLE, _DROP = Choice((STEP,)), Choice((TOGGLE,)), Choice((DROP,))


@dataclass(slots=True)
class Scene:
    """What follows from a state."""

    things: list[tuple[int, int, int]]
    """(code, number of that name, rank) of all that is in sight, nearest first."""
    wall_ahead: int | None
    free: int
    """The window's cells that can be walked; those out of sight can, where light gets that far."""
    choices: dict[str, Choice]
    """Every action that can be carried out, `check available actions` aside."""

    @property
    def front(self) -> int:
        """Code of what is right ahead, -1 for nothing."""
        return self.things[0][0] if self.things and self.things[0][2] == FRONT else -1


def survey(episode: Episode) -> Scene:
    """The scene of a state."""
    view, layout, heading = episode.view, episode.layout, episode.heading
    board = episode.scenario.terrain.board
    things: list[tuple[int, int, int]] = []
    counts: dict[int, int] = {}
    for thing in view.things:
        code = thing & CODE_MASK
        counts[code] = number = counts.get(code, 0) + 1
        things.append((code, number, thing >> RANK_SHIFT))
    blocked = (layout.opaque[heading] | layout.solid[heading]) >> view.shift & view.seen
    free = board.map[view.rows] & ~(board.outside[heading] >> view.shift) & ~blocked
    scene = Scene(things, wall_ahead(view, board), free, {})
    _choose(scene, episode)
    return scene


def _choose(scene: Scene, episode: Episode) -> None:
    choices, carried, board = scene.choices, episode.carried, episode.scenario.terrain.board
    front = scene.front
    choices.update(_ALWAYS)
    if scene.wall_ahead != 1 and (front < 0 or FIRST_DOOR <= front < FIRST_SHUT):
        choices["move forward"] = _STEP
    if front >= 0 and _has_lid(front) and not _locked(front, carried):
        choices["toggle"] = _TOGGLE
    if carried >= 0 and front < 0 and scene.wall_ahead != 1:
        choices["drop"] = _DROP
    if not scene.things:
        return
    faced = beside(reachable(scene.free, board), board)
    for code, number, rank in scene.things:
        if not faced & board.cells[rank]:
            continue
        name = label(code, number)
        choices[f"go to {name}"] = Choice((), rank)
        if code < FIRST_DOOR:
            if carried < 0:
                choices[f"pick up {name}"] = Choice((PICKUP,), rank)
        elif code < FIRST_SHUT:
            choices[f"go through {name}"] = Choice((STEP, STEP), rank)
        elif not _locked(code, carried):
            choices[f"open {name}"] = Choice((TOGGLE,), rank)
            choices[f"go through {name}"] = Choice((TOGGLE, STEP, STEP), rank)


def moves(choice: Choice, scene: Scene, episode: Episode) -> list[int]:
    """The low-level moves of a choice, at least one."""
    if choice.rank < 0:
        return list(choice.moves)
    board = episode.scenario.terrain.board
    way = shortest(facing(board.cells[choice.rank], scene.free, board), scene.free, board)
    return [*way, *choice.moves] or [WAIT]


def normalise(action: str) -> str:
    """Lower case, single spaces, no full stop at the end, one way to write each action."""
    words = " ".join(action.lower().split()).rstrip(". ")
    found = _MACRO.fullmatch(words)
    if found is None or found[3] is None:
        return words
    verb = "pick up" if found[1] == "pickup" else found[1]
    return f"{verb} {found[2]} {found[3].lstrip('0') or '0'}"


def reason(action: str, scene: Scene, carried: int) -> str:
    """Why a normalised action that is not among the scene's choices cannot be carried out."""
    front = scene.front
    match action:
        case "move forward":
            return "a wall is right ahead" if scene.wall_ahead == 1 else f"{label(front, 1)} is in the way"
        case "toggle":
            locked = front >= 0 and _locked(front, carried)
            return _needs_key(front, 1) if locked else "no door or box is right ahead"
        case "drop":
            return "you carry nothing" if carried < 0 else "the cell ahead is not empty"
    found = _MACRO.fullmatch(action)
    if found is None:
        return f"there is no such action; try {CHECK}"
    verb, name, number = found.groups()
    if number is None:
        return f"say which {quoted(name)}, such as {verb} {quoted(name)} 1"
    alike = [code for code, _, _ in scene.things if NAMES[code] == name]
    if not (number.isdigit() and 1 <= len(number) < 4 and 1 <= int(number) <= len(alike)):
        return f"only {len(alike)} {name} in sight" if alike else f"no {quoted(name)} in sight"
    return _unfit(verb, alike[0], int(number), carried)


def _unfit(verb: str, code: int, number: int, carried: int) -> str:
    """Why a thing that is in sight cannot be what the verb asks for."""
    name = label(code, number)
    if verb == "pick up":
        if code >= FIRST_DOOR:
            return "a door cannot be picked up"
        if carried >= 0:
            return f"you carry a {NAMES[carried]} already"
    elif verb != "go to":
        if code < FIRST_DOOR:
            return f"{name} is no door"
        if verb == "open" and code < FIRST_SHUT:
            return f"{name} is open already"
        if _locked(code, carried):
            return _needs_key(code, number)
    return f"no way leads to {name}"


def _has_lid(code: int) -> bool:
    return code >= FIRST_DOOR or CODES[code][0] == "box"


def _locked(code: int, carried: int) -> bool:
    """Whether it is a door that what is carried does not unlock."""
    return code >= FIRST_LOCKED and not opens(carried, code)


def _needs_key(code: int, number: int) -> str:
    return f"{label(code, number)} needs a {CODES[code][1]} key"
