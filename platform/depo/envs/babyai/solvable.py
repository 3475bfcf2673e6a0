"""Start states that cannot be solved, told from what minigrid drew and how it verifies.

Some levels draw the key of a locked door into the room behind that door, or shut the agent in
among things that it must not pick up. What is told here is proved: everything that could move or
open is taken to do so, and still the mission is out of reach.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from minigrid.envs.babyai.core.verifier import (
    AfterInstr,
    BeforeInstr,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
    SeqInstr,
)

STRICT_ORDER = "the toggle that opens the first door is held against the second"
SHUT_IN = "things that must not be picked up stand in every way"
OUT_OF_REACH = "no way leads to what it takes, with all the keys that can be had"

Place = tuple[int, int]


def unsolvable(world: Any) -> str:
    """Why the task that a minigrid level was just reset to has no solution; empty if it may have one.

    An empty answer is no proof that there is one.
    """
    if _strict_order(world.instrs):
        return STRICT_ORDER
    shut_in = isinstance(world.instrs, PickupInstr) and world.instrs.strict
    reach = _explore(world, solid=("key", "ball") if shut_in else ())
    if _attainable(world.instrs, world.carrying, reach):
        return ""
    return SHUT_IN if shut_in else OUT_OF_REACH


def _strict_order(instr: Any) -> bool:
    """Two doors to be opened in order, the second strictly.

    minigrid verifies the second clause on the very toggle that fulfils the first, and calls it
    failed, since that toggle was not at the second's door.
    """
    if not isinstance(instr, BeforeInstr | AfterInstr):
        return False
    first, second = instr.instr_a, instr.instr_b
    if isinstance(instr, AfterInstr):
        first, second = second, first
    if not (isinstance(first, OpenInstr) and isinstance(second, OpenInstr) and second.strict):
        return False
    return not any(door is other for door in first.desc.obj_set for other in second.desc.obj_set)


@dataclass
class _Reach:
    """Where an agent could get that walks through whatever can be moved or opened."""

    faced: set[Place] = field(default_factory=set)
    """Cells that it could stand on or right before."""
    keys: set[str] = field(default_factory=set)
    """Colours of the keys that it could get hold of."""


def _explore(world: Any, solid: tuple[str, ...]) -> _Reach:
    """`solid` are the types of things that cannot be moved."""
    reach = _Reach()
    locked: dict[str, list[Place]] = defaultdict(list)
    entered: set[Place] = set()
    ways = [(int(world.agent_pos[0]), int(world.agent_pos[1]))]
    if world.carrying is not None and world.carrying.type == "key":
        reach.keys.add(world.carrying.color)
    while ways:
        x, y = ways.pop()
        if (x, y) in entered:
            continue
        entered.add((x, y))
        reach.faced.add((x, y))
        for place in ((x + 1, y), (x, y + 1), (x - 1, y), (x, y - 1)):
            reach.faced.add(place)
            thing = world.grid.get(*place)
            if thing is None:
                ways.append(place)
                continue
            for key in (thing, thing.contains):
                if key is not None and key.type == "key" and key.color not in reach.keys:
                    reach.keys.add(key.color)
                    ways += locked.pop(key.color, [])
            if thing.type == "door" and thing.is_locked and thing.color not in reach.keys:
                locked[thing.color].append(place)
            elif thing.type != "wall" and thing.type not in solid:
                ways.append(place)
    return reach


def _attainable(instr: Any, carried: Any, reach: _Reach) -> bool:
    if isinstance(instr, SeqInstr):
        return all(_attainable(part, carried, reach) for part in (instr.instr_a, instr.instr_b))
    if isinstance(instr, PutNextInstr):
        return any(
            thing is carried or place in reach.faced for thing, place in _things(instr.desc_move)
        ) and any(thing is carried or _beside(place, reach) for thing, place in _things(instr.desc_fixed))
    if isinstance(instr, OpenInstr):
        return any(
            place in reach.faced and (not door.is_locked or door.color in reach.keys)
            for door, place in _things(instr.desc)
        )
    return any(thing is carried or place in reach.faced for thing, place in _things(instr.desc))


def _things(desc: Any) -> list[tuple[Any, Place]]:
    """What a description fits, and where it was when the verifier was reset."""
    return list(zip(desc.obj_set, desc.obj_poss, strict=True))


def _beside(place: Place, reach: _Reach) -> bool:
    x, y = place
    return any(near in reach.faced for near in ((x + 1, y), (x, y + 1), (x - 1, y), (x, y - 1)))
