"""What AgentGym's BabyAI offers in a state, and what it says of an action that it does not offer."""

from __future__ import annotations

from dataclasses import dataclass, field

from depo.envs.babyai.agentgym import text
from depo.envs.babyai.agentgym.paths import way, windows
from depo.envs.babyai.agentgym.text import NAMES
from depo.envs.babyai.board import FRONT, VIEW, Board
from depo.envs.babyai.episode import Episode, opens
from depo.envs.babyai.layout import CODES, FIRST_DOOR, FIRST_LOCKED, FIRST_SHUT
from depo.envs.babyai.mission import DROP, LEFT, PICKUP, RIGHT, STEP, TOGGLE
from depo.envs.babyai.paths import beside, facing, reachable
from depo.envs.babyai.view import CODE_MASK, RANK_SHIFT, View, look, wall_ahead


@dataclass(frozen=True, slots=True)
class Offer:
    """What an action comes to: a way to the thing at `rank` (-1 for none), then `moves`."""

    moves: tuple[int, ...] = ()
    rank: int = -1
    arrive: bool = False
    """Whether the way leads onto the thing's cell instead of up to it."""


_TURNS = {"turn left": Offer((LEFT,)), "turn right": Offer((RIGHT,))}
_STEP, _DROP, _TOGGLE, _CHECK = Offer((STEP,)), Offer((DROP,)), Offer((TOGGLE,)), Offer()


@dataclass(slots=True)
class Scene:
    """What follows from a state."""

    things: list[tuple[int, int, int]]
    """(code, number of that name, rank) of all that is in sight, nearest first."""
    barrier: tuple[int, str] | None
    """Steps to the nearest wall or box straight ahead, and which of the two it is."""
    free: int
    """The window's cells that a way may lead over; what is out of sight counts as free."""
    reached: int
    """The cells that ways lead to."""
    faced: int
    """The cells that ways lead up to."""
    offers: dict[str, Offer] = field(default_factory=dict)
    """Every action on offer, in order."""


def first_image(episode: Episode) -> bool:
    """Whether the image is still the first one, drawn before the level handed the agent its thing."""
    return not episode.steps and episode.scenario.first_layout is not episode.scenario.first.layout


def view_of(episode: Episode) -> View:
    """What AgentGym takes the agent to see."""
    if first_image(episode):
        return look(episode.place, episode.heading, episode.scenario.first_layout)
    return episode.view


def survey(episode: Episode) -> Scene:
    """The scene of a state."""
    view, heading = view_of(episode), episode.heading
    layout = episode.scenario.first_layout if first_image(episode) else episode.layout
    board = episode.scenario.terrain.board
    counts: dict[int, int] = {}
    things = []
    for thing in view.things:
        code = thing & CODE_MASK
        counts[code] = number = counts.get(code, 0) + 1
        things.append((code, number, thing >> RANK_SHIFT))
    blocked = view.walls | (layout.solid[heading] >> view.shift & view.seen)
    free = windows(board)[heading] & ~blocked
    reached = reachable(free, board) if things else 0
    scene = Scene(things, _barrier(things, view, board), free, reached, beside(reached, board))
    _offer(scene, episode.carried, board)
    return scene


def _barrier(things: list[tuple[int, int, int]], view: View, board: Board) -> tuple[int, str] | None:
    wall = wall_ahead(view, board)
    for code, _, rank in things:
        ahead, right = VIEW[rank]
        if not right and code < FIRST_DOOR and CODES[code][0] == "box" and (wall is None or ahead < wall):
            return ahead, "box"
    return None if wall is None else (wall, "wall")


def _offer(scene: Scene, carried: int, board: Board) -> None:
    offers = scene.offers
    offers.update(_TURNS)
    if scene.barrier is None or scene.barrier[0] > 1:
        offers["move forward"] = _STEP
    counts: dict[int, int] = {}
    near = []
    for code, _, rank in scene.things:
        if scene.faced & board.cells[rank]:
            counts[code] = number = counts.get(code, 0) + 1
            near.append((code, f"{NAMES[code]} {number}", rank))
    if carried < 0:
        for code, name, rank in near:
            if code < FIRST_DOOR:
                offers[f"pickup {name}"] = Offer((PICKUP,), rank)
    elif _room(scene):
        offers["drop"] = _DROP
    for code, number, rank in scene.things:
        if code >= FIRST_DOOR:
            _offer_door(scene, code, number, rank, carried, board)
    for _, name, rank in near:
        offers[f"go to {name}"] = Offer((), rank)
    offers[text.CHECK] = _CHECK


def _room(scene: Scene) -> bool:
    """Whether AgentGym lets the agent drop something: a door ahead is not in its way."""
    if scene.barrier is not None and scene.barrier[0] == 1:
        return False
    return not scene.things or scene.things[0][2] != FRONT or scene.things[0][0] >= FIRST_DOOR


def _offer_door(scene: Scene, code: int, number: int, rank: int, carried: int, board: Board) -> None:
    cell, name = board.cells[rank], f"{NAMES[code]} {number}"
    if code < FIRST_SHUT:
        if scene.reached & cell:
            scene.offers[f"go through {name}"] = Offer((), rank, arrive=True)
    elif scene.faced & cell and (code < FIRST_LOCKED or opens(carried, code)):
        scene.offers[f"toggle and go through {name}"] = Offer((TOGGLE, STEP), rank)
        if rank == FRONT:
            scene.offers["toggle"] = _TOGGLE


def moves(offer: Offer, scene: Scene, board: Board) -> list[int]:
    """The low-level moves of an offer: none for "go to" what is faced already."""
    if offer.rank < 0:
        return list(offer.moves)
    cell = board.cells[offer.rank]
    goals = (cell, cell, cell, cell) if offer.arrive else facing(cell, scene.free, board)
    return [*way(goals, scene.free, board), *offer.moves]


def errors(scene: Scene, carried: int, board: Board) -> dict[str, str]:
    """Action to what AgentGym says of it where it is not on offer; all others are not recognized.

    Things are numbered by those already on offer. The dictionary in some of the texts is the count of
    doors so far, printed where one number of it was meant.
    """
    found: dict[str, str] = {}
    if scene.barrier is not None and scene.barrier[0] <= 1:
        found["move forward"] = text.BARRIER
    if carried < 0:
        _note_out_of_reach(found, "pickup", scene, board)
        found["drop"] = text.NOTHING_TO_DROP
    elif not _room(scene):
        found["drop"] = text.NO_ROOM
    counts: dict[str, int] = {}
    for code, number, rank in scene.things:
        if code >= FIRST_DOOR:
            counts[NAMES[code]] = number
            _note_door(found, scene, (code, number, rank), counts, carried, board)
    _note_out_of_reach(found, "go to", scene, board)
    return found


def _note_out_of_reach(found: dict[str, str], verb: str, scene: Scene, board: Board) -> None:
    counts: dict[int, int] = {}
    for code, _, rank in scene.things:
        if verb == "pickup" and code >= FIRST_DOOR:
            continue
        number = counts.get(code, 0) + 1
        if scene.faced & board.cells[rank]:
            counts[code] = number
        else:
            action = f"{verb} {NAMES[code]} {number}"
            found[action] = text.cannot(action, text.NO_PATH)


def _note_door(
    found: dict[str, str],
    scene: Scene,
    door: tuple[int, int, int],
    counts: dict[str, int],
    carried: int,
    board: Board,
) -> None:
    code, number, rank = door
    name, cell = f"{NAMES[code]} {number}", board.cells[rank]
    through, toggle = f"go through {name}", f"toggle and go through {name}"
    if code < FIRST_SHUT:
        if not scene.reached & cell:
            found[through] = text.cannot(through, text.NO_PATH)
        return
    if code >= FIRST_LOCKED and not opens(carried, code):
        key = carried >= 0 and CODES[carried][0] == "key"
        found[toggle] = text.cannot(toggle, text.WRONG_KEY if key else text.NO_KEY)
        return
    if not scene.faced & cell:
        found[toggle] = text.cannot(f"toggle and go through {NAMES[code]} {counts}", text.NO_PATH)
    if code < FIRST_LOCKED:
        found[through] = text.cannot(through, text.CLOSED)
