"""Writes the published task lists; run it again where minigrid's levels change.

    python -m depo.envs.babyai.publish [--out FOLDER] [--levels L ...] [--tasks TRAIN VALIDATION TEST]

Takes some minutes on one core. A start state goes to the lowest-numbered level that has it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import minigrid

from depo.envs.babyai.levels import AGENTGYM_LEVELS, PINNED_LEVELS, make_world
from depo.envs.babyai.solvable import unsolvable
from depo.envs.babyai.tasks import FIRST_SEED, MOST_MISSES, SPLITS, Listed, digest, fingerprint, split_of

TASKS = {"train": 1000, "validation": 200, "test": 200}
"""Tasks of a level, by split; fewer where the level has no more."""

LEVELS = tuple(dict.fromkeys((*AGENTGYM_LEVELS, *PINNED_LEVELS)))
"""AgentGym's levels as minigrid has them today, then the one that its pinned minigrid has otherwise."""


@dataclass
class Draft:
    """What was found of one level in one split's range of seeds."""

    seeds: list[int] = field(default_factory=list)
    fingerprints: list[bytes] = field(default_factory=list)
    drawn_otherwise: list[int] = field(default_factory=list)
    unsolvable: dict[int, str] = field(default_factory=dict)
    """Seed to reason, for the seeds up to the last one kept."""
    complete: bool = False

    def listed(self) -> Listed:
        return Listed(
            tuple(self.seeds),
            tuple(self.drawn_otherwise),
            self.complete,
            digest(self.fingerprints[:1]),
            digest(self.fingerprints),
        )


def draft(level: str, split: str, count: int, taken: set[bytes]) -> Draft:
    """The first `count` tasks of a level that are not in `taken`, which they are added to."""
    pinned = make_world(level, pinned=True)
    world, found = make_world(level) if level in AGENTGYM_LEVELS else pinned, Draft()
    seed = last = FIRST_SEED[split]
    while len(found.seeds) < count and not found.complete:
        world.reset(seed=seed)
        start, reason = fingerprint(world), unsolvable(world)
        if reason:
            found.unsolvable[seed] = reason
        elif split_of(start) == split and start not in taken:
            taken.add(start)
            found.seeds.append(seed)
            found.fingerprints.append(start)
            pinned.reset(seed=seed)
            if fingerprint(pinned) != start:
                found.drawn_otherwise.append(seed)
            last = seed
        seed += 1
        found.complete = seed - last > MOST_MISSES
    found.unsolvable = {seed: reason for seed, reason in found.unsolvable.items() if seed <= last}
    return found


def publish(levels: Sequence[str], counts: Mapping[str, int], folder: Path) -> None:
    """Writes `train.json`, `validation.json`, `test.json` and `unsolvable.json` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    left_out: dict[str, dict[str, dict[str, list[int]]]] = {}
    for split, count in counts.items():
        taken: set[bytes] = set()
        rows = {}
        for level in levels:
            found = draft(level, split, count, taken)
            listed = found.listed()
            rows[level] = {
                "count": len(listed.seeds),
                "complete": listed.complete,
                "first": listed.first,
                "all": listed.all,
                "drawn_otherwise": listed.drawn_otherwise,
                "seeds": listed.seeds,
            }
            for seed, reason in found.unsolvable.items():
                left_out.setdefault(level, {}).setdefault(reason, {}).setdefault(split, []).append(seed)
            print(
                f"{split:10} {level:24} {len(listed.seeds):5} tasks, {len(found.unsolvable)} unsolvable",
                flush=True,
            )
        _write(folder / f"{split}.json", {"minigrid": minigrid.__version__, "split": split}, rows)
    _write(folder / "unsolvable.json", {"minigrid": minigrid.__version__}, left_out)


def _write(path: Path, head: Mapping[str, str], levels: Mapping[str, Any]) -> None:
    """JSON with a line for each level, so that a difference names its level."""
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    rows = [f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in levels.items()]
    text = "{\n" + ",\n".join(lines) + ',\n"levels": {\n' + ",\n".join(rows) + "\n}\n}\n"
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=SPLITS, help="folder to write to")
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS), help="in order")
    parser.add_argument(
        "--tasks", nargs=3, type=int, default=list(TASKS.values()), help="of a level, by split"
    )
    options = parser.parse_args()
    counts = dict(zip(TASKS, options.tasks, strict=True))
    publish(options.levels, counts, options.out)


if __name__ == "__main__":
    main()
