"""What the scripted teacher thinks: a core sentence that justifies the action, and filler.

Cores are one sentence of at most `CORE_WORDS` words out of a small closed set; each filler
sentence has more. So the shortest sentence of a thought is always its core.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CORE_WORDS = 11

_ITEM = re.compile(r"([a-z]+(?: [a-z]+)+ \d+), ([^;.]+)")
_WORDS = re.compile(r"\w+|[^\w\s]")
_MACRO = re.compile(r"(go to|pick ?up|(?:toggle and )?go through|open) (.+) (\d+)")
_VERBS = {"pickup": "pick up", "toggle and go through": "go through"}
_DOOR_STATES = ("open", "closed", "locked")
_AGENTGYM_ITEM = re.compile(
    r"There is a ([a-z]+(?: [a-z]+)+ \d+) "
    r"(?:right in front of you (\d+)|(\d+) steps in front of you and (\d+))"
    r" steps (?:away|to your (right|left))"
)
_AGENTGYM_CARRIED = re.compile(r"You are carrying an? ([a-z]+ [a-z]+)")


@dataclass(frozen=True)
class Reading:
    """What the teacher takes from an observation."""

    things: Mapping[str, str]
    """Label ("red ball 1") to place ("3 ahead, 1 right"), nearest first."""
    carried: str
    """Name of what the agent carries, empty for nothing."""
    refused: str
    """Why the last action was not possible, empty if it was."""


def read(observation: str) -> Reading:
    """The facts of an observation as `BabyAIEnv` writes it, under either of its rules."""
    if "You see: " not in observation and not observation.startswith("Not possible: "):
        return _read_agentgym(observation)
    seen = observation.partition("You see: ")[2].partition("\n")[0]
    things, _, carried = seen.partition(" You carry ")
    refused = observation.removeprefix("Not possible: ") if observation.startswith("Not possible: ") else ""
    return Reading(
        things={match[1]: match[2] for match in _ITEM.finditer(things)},
        carried="" if carried.startswith("nothing") else carried.removeprefix("a ").rstrip("."),
        refused=refused.partition(".")[0],
    )


def _read_agentgym(observation: str) -> Reading:
    things = {}
    for label, straight, ahead, beside, side in _AGENTGYM_ITEM.findall(observation):
        parts = [f"{straight or ahead} ahead"] if (straight or ahead) != "0" else []
        things[label] = ", ".join(parts + ([f"{beside} {side}"] if side else []))
    carried = _AGENTGYM_CARRIED.search(observation)
    accepted = ("You are carrying", "You are not carrying", "You can take the following actions")
    return Reading(
        things=things,
        carried=carried[1] if carried else "",
        refused="" if any(words in observation for words in accepted) else observation.partition(".")[0],
    )


def split_action(action: str) -> tuple[str, str, str]:
    """(verb, name, number) of an action on a thing, by whichever rules; ("", "", "") of any other."""
    match = _MACRO.fullmatch(action)
    return (_VERBS.get(match[1], match[1]), match[2], match[3]) if match else ("", "", "")


def traits(name: str) -> tuple[str, str, str]:
    """(state, colour, kind) of a thing's name; the state is empty for what is no door."""
    words = name.split()
    state = next((word for word in words[:-1] if word in _DOOR_STATES), "")
    color = next((word for word in words[:-1] if word not in _DOOR_STATES), "")
    return state, color, words[-1]


def core(action: str, reading: Reading, target: str, in_sight: Sequence[str], lapse: str) -> str:
    """Why `action` is right: from what is in sight, and from what went wrong the turn before.

    `target` is what the mission asks for ("red ball"), `in_sight` the labels that may be it,
    `lapse` the wrong thing the agent just turned to ("grey key"), or empty.
    """
    verb, name, number = split_action(action)
    label = f"{name} {number}"
    wrong = "That failed" if reading.refused else f"Not the {lapse}" if lapse not in ("", name) else ""
    if verb in ("pick up", "open") or label in in_sight:
        if wrong:
            return f"{wrong}; {verb} the {name}."
        return f"The {name} is {reading.things[label]}."
    missing = wrong or f"No {target} in sight"
    if verb == "go through":
        return f"{missing}; try the {' '.join(traits(name)[1:])}."
    if verb:
        return f"{missing}; try {label}." if wrong or not in_sight else f"First to {label}."
    return _core_of_primitive(action, reading, missing, in_sight, bool(wrong))


def _core_of_primitive(
    action: str, reading: Reading, missing: str, in_sight: Sequence[str], wrong: bool
) -> str:
    if action == "drop":
        return f"{missing}; drop it." if wrong else f"I put the {reading.carried} down here."
    front = next((label for label, place in reading.things.items() if place == "1 ahead"), "")
    if action == "toggle" and front:
        return f"The {front.rpartition(' ')[0]} is 1 ahead; toggle it."
    near = in_sight[0] if in_sight and not wrong else ""
    ending = "walk on" if action == "move forward" else action
    if near and reading.carried and "door" not in near:
        return f"I need room near the {near.rpartition(' ')[0]}; {ending}."
    if near:
        return f"The {near.rpartition(' ')[0]} is {reading.things[near]}; {ending}."
    look = "walk on" if action == "move forward" else action.replace("turn", "look")
    return f"{missing}; {look}."


def filler(rng: random.Random, goal: str, reading: Reading) -> tuple[list[str], list[str]]:
    """One to three sentences that justify nothing: those before the core, and those after it."""
    names = [label.rpartition(" ")[0] for label in reading.things][:2]
    seen = " and a ".join(names)
    sentences = [
        f"My goal is to {goal}, so let me think first.",
        f"From where I stand I can now see {f'a {seen}' if seen else 'no object at all'} around me.",
        "I could also look around more, but that would take some time.",
        "There may be other ways to do this, but none seems any better.",
        "I want to stay calm and do this with care, step by step.",
        "After that I will see if this step was of any use here.",
    ]
    return some(rng, sentences)


def some(rng: random.Random, sentences: list[str]) -> tuple[list[str], list[str]]:
    """One to three of six sentences in their order: those before a thought's core, and those after it.

    The first two stand before it, the last after it, the others either way.
    """
    count = rng.choices((1, 2, 3), weights=(12, 7, 1))[0]
    picked = sorted(rng.sample(range(len(sentences)), count))
    before = [sentences[i] for i in picked if i < 2 or (i < 5 and rng.random() < 0.5)]
    return before, [sentences[i] for i in picked if sentences[i] not in before]


def count_words(text: str) -> int:
    """Words and punctuation marks."""
    return len(_WORDS.findall(text))
