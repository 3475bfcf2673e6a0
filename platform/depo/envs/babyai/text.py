"""Every sentence of the repaired rules. Order and wording are fixed, so equal states read alike."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from depo.envs.babyai.board import VIEW
from depo.envs.babyai.view import NAMES

CHECK = "check available actions"
SUCCEEDED = "Done: the goal is reached."
FAILED = "Over: the goal was missed."
OUT_OF_STEPS = "Over: no steps are left."

BRIEF = "Reach the goal in few steps."
FULL = f"""\
You are an agent in a grid world of rooms, doors, keys, balls and boxes. Reach the goal in as few \
steps as you can. You see a cone of 7 by 7 cells ahead of you, and neither through walls nor \
through closed doors; turn to see more. Things of one name are numbered, the nearest first, anew \
in every observation. The name of a door begins with its state: open, closed or locked. A locked \
door opens to a key of its colour that you carry. You can carry one thing.

Your actions:
- turn left
- turn right
- move forward
- go to <thing> <number>: walk up to it and face it, such as: go to red ball 1
- pick up <thing> <number>: walk up to it and take it
- open <door> <number>: walk up to it and open it
- go through <door> <number>: walk up to it, open it if need be, and walk through
- toggle: open or close the door, or open the box, right in front of you
- drop: put what you carry on the empty cell in front of you
- {CHECK}: list what you can do now

Think briefly, then act. Reply with exactly two lines:
Thought: <your thought>
Action: <one action>"""

_LONGEST = 60
"""Characters of an action that are repeated to whoever made it up."""


def label(code: int, number: int) -> str:
    """The name of a thing in sight, by its code, and which one of that name it is."""
    return f"{NAMES[code]} {number}"


@lru_cache(maxsize=1 << 15)
def item(code: int, number: int, rank: int) -> str:
    """A thing and where it is, seen from the agent: "red ball 1, 3 ahead, 1 right"."""
    ahead, right = VIEW[rank]
    parts = [label(code, number)]
    if ahead:
        parts.append(f"{ahead} ahead")
    if right:
        parts.append(f"{abs(right)} {'right' if right > 0 else 'left'}")
    return ", ".join(parts)


def describe(things: Iterable[tuple[int, int, int]], wall_ahead: int | None, carried: int) -> str:
    """What is in sight, nearest first, as (code, number, rank), and the code of what is carried."""
    items = [item(*thing) for thing in things] or ["no objects"]
    if wall_ahead is not None:
        items.append(f"wall {wall_ahead} ahead")
    return f"You see: {'; '.join(items)}. You carry {'nothing' if carried < 0 else f'a {NAMES[carried]}'}."


def goal(mission: str) -> str:
    return f"Your goal: {mission}."


def choices(actions: Iterable[str]) -> str:
    return f"You can: {', '.join(actions)}."


def refused(reason: str) -> str:
    return f"Not possible: {reason}."


def quoted(words: str) -> str:
    """What is repeated of an action."""
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}..."
