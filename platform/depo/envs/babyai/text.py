"""Every sentence the environment says. Order and wording are fixed, so equal states read alike."""

from __future__ import annotations

from collections.abc import Iterable

from depo.envs.babyai.view import Seen, Sight

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


def place(seen: Seen) -> str:
    """Where a thing is, seen from the agent: "3 ahead, 1 right"."""
    parts = [f"{seen.ahead} ahead"] if seen.ahead else []
    if seen.right:
        parts.append(f"{abs(seen.right)} {'right' if seen.right > 0 else 'left'}")
    return ", ".join(parts)


def describe(sight: Sight, carried: str | None) -> str:
    """What is in sight, nearest first, and what the agent carries."""
    items = [f"{seen.label}, {place(seen)}" for seen in sight.objects] or ["no objects"]
    if sight.wall_ahead is not None:
        items.append(f"wall {sight.wall_ahead} ahead")
    return f"You see: {'; '.join(items)}. You carry {f'a {carried}' if carried else 'nothing'}."


def goal(mission: str) -> str:
    return f"Your goal: {mission}."


def choices(actions: Iterable[str]) -> str:
    return f"You can: {', '.join(actions)}."


def refused(reason: str) -> str:
    return f"Not possible: {reason}."
