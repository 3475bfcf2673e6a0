"""What the environment says beside the shop's own pages. Order and wording are fixed."""

from __future__ import annotations

from collections.abc import Iterable

OUT_OF_STEPS = "Over: no steps are left."
SEARCH = "search[<keywords>]"

BRIEF = "Buy what the instruction asks for in few steps."
FULL = f"""\
You are shopping in a web shop. Buy one product that fits the instruction: its kind, its attributes, the \
options asked for, and a price within the limit. Do it in as few steps as you can. Buying ends the task, and \
the score tells how much of the instruction was met. Choose all the options asked for before you buy.

Your actions:
- {SEARCH}: search the shop with a few words, on any page
- click[<button>]: press a button or follow a link of the page, such as: click[back to search], \
click[< prev], click[next >], a product's code, an option's value, click[description], click[features], \
click[buy now]

Think briefly, then act. Reply with exactly two lines:
Thought: <your thought>
Action: <one action>"""


def choices(clicks: Iterable[str]) -> str:
    return f"You can: {', '.join([SEARCH, *(f'click[{label}]' for label in clicks)])}."


def refused(reason: str) -> str:
    return f"Not possible: {reason}."
