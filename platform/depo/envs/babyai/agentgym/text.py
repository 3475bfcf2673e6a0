"""Every sentence of AgentGym's BabyAI that an agent reads, and the system prompt of our own.

The wording of observations and errors is the format that its trajectories are in; it is kept to
the letter, two spaces and "1 steps" included.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from depo.envs.babyai.board import VIEW
from depo.envs.babyai.layout import CODES

CHECK = "check available actions"
COMPLETED = "\n The task is completed."
UNCHANGED = "No change in state."
UNKNOWN = "The action is not recognized. Please check valid actions."
BARRIER = "There is a barrier in front of you, you can't move forward."
NOTHING_TO_DROP = "You cannot drop the object, as you are not carrying anything."
NO_ROOM = "You cannot drop the object, as there is already an object in front of you."
NO_PATH = "there is no path leading to it"
CLOSED = "it is closed. You should toggle it first"
NO_KEY = "you are not carrying a key"
WRONG_KEY = "the color of the key you are carrying does not match the color of door"
FINISHED = "The task has finished."
"""Our own: after the end the server answers with an error instead of an observation."""

BRIEF = "Reach the goal in few steps."
FULL = f"""\
You explore rooms on a grid, with walls, doors, keys, balls and boxes, to reach the goal you are \
given. In each turn you read what is in front of you and choose one action.

Your actions:
- turn left
- turn right
- move forward
- go to <object> <number>: walk up to it and face it
- pickup <object> <number>: walk up to it and take it; you can carry one object
- drop: put what you carry on the free cell in front of you
- go through <door> <number>: walk to where an open door is
- toggle and go through <door> <number>: walk up to a closed door, open it and step into it; a locked \
door needs the key of its color, which you must be carrying
- toggle: open the closed door that is right in front of you, or a locked one that you have the key to
- {CHECK}: list what you can do now

Write objects, doors and numbers as in the list of available actions, such as: pickup red ball 1

Reply with exactly two lines:
Thought: <your thought>
Action: <one action>"""

NAMES = tuple(f"{color} {state} {kind}" if state else f"{color} {kind}" for kind, color, state in CODES)
"""Code to name: a door's state stands between its colour and its type."""


def goal(mission: str) -> str:
    """A mission as AgentGym states it: which of two clauses comes first can no longer be told."""
    return mission.replace("then", "and").replace("after you", "and")


def position(ahead: int, right: int) -> str:
    """Where a thing is, seen from the agent."""
    if not right:
        return f"right in front of you {ahead} steps away. "
    return (
        f"{ahead} steps in front of you and {abs(right)} steps to your {'right' if right > 0 else 'left'}. "
    )


@lru_cache(maxsize=1 << 15)
def sighting(code: int, number: int, rank: int) -> str:
    return f"There is a {NAMES[code]} {number} {position(*VIEW[rank])} "


def describe(
    things: Iterable[tuple[int, int, int]], walls: bool, barrier: tuple[int, str] | None, carried: int
) -> str:
    """What is in sight.

    `things` are (code, number, rank), nearest first; `walls` tells whether one is in sight; `barrier`
    is the nearest wall or box straight ahead: how far off, and which of the two.
    """
    sightings = "".join([sighting(*thing) for thing in things])
    if sightings or walls:
        seen = f"In front of you in this room, you can see several objects: {sightings}"
    else:
        seen = "You cannot see any objects within sight."
    facing = f"You are facing a {barrier[1]} {barrier[0]} steps away. " if barrier else ""
    hands = "not carrying anything" if carried < 0 else f"carrying a {NAMES[carried]}"
    return f"{seen}The room has walls around you. {facing}You are {hands}."


def options(actions: Iterable[str]) -> str:
    """The line that AgentGym's server adds to each observation; there is always an action."""
    return '\nAvailable actions: ["' + '", "'.join(actions) + '"]'


def listed(actions: Iterable[str]) -> str:
    """The answer to a check of the available actions."""
    return "You can take the following actions: " + ", ".join(actions)


def cannot(action: str, because: str) -> str:
    return f"You cannot {action}, as {because}."
