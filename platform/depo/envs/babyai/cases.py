"""Recorded episodes of AgentGym's BabyAI, replayed and compared step by step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.envs.babyai.agentgym import text
from depo.envs.babyai.agentgym.actions import Offer, errors, moves
from depo.envs.babyai.agentgym.rules import clean, describe, scene_of, task_of
from depo.envs.babyai.env import COMPAT, BabyAIEnv
from depo.envs.babyai.episode import Episode
from depo.envs.babyai.layout import CODES
from depo.envs.babyai.levels import AGENTGYM_LEVELS
from depo.envs.cases import CaseReport, read_cases

_NUMBER = (int, float)
_HEAD: dict[str, type | tuple[type, ...]] = {
    "data_idx": int, "level": int, "seed": int, "mission": str, "goal": str, "max_steps": int,
    "init": dict, "steps": list,
}  # fmt: skip
_STATE: dict[str, type | tuple[type, ...]] = {
    "pos": list, "dir": int, "carry": (str, type(None)), "n": int, "acts": list, "plans": list, "obs": str,
    "err": str,
}  # fmt: skip
_STEP: dict[str, type | tuple[type, ...]] = {
    "a": str, "plan": (str, type(None)), "ran": int, "r": _NUMBER, "done": bool, "valid": bool, **_STATE,
}  # fmt: skip
_START = ("start", "init")
_DIGITS = 6
"""Decimals that rewards are recorded with."""


def check_cases(cases: Path, compat: str, catalogue: Path | None = None) -> CaseReport:
    """Replay recorded episodes and compare every field, up to the first that differs.

    A case is one JSON object: `data_idx, level, seed, mission, goal, max_steps, init, steps`. `init` and
    each step hold `pos, dir, carry, n` (low-level steps), `acts` (the sorted actions on offer), `plans`
    (their low-level moves as digits) and `obs` and `err`: the first 10 digits of the SHA-1 of the
    observation, and of the JSON of the sorted refusals. A step adds `a` (the action), `plan`, `ran`
    (moves taken), `r`, `done` and `valid`; `text`, the observation itself, may be there.

    Under "agentgym" a case starts as AgentGym's pinned minigrid has it; one that was recorded with a later
    release, and so starts otherwise, is replayed on the installed minigrid's start states instead
    ("agentgym-minigrid3"), and the report says how many were.

    Raises `ConfigError` for a malformed file, for other rules, and for a catalogue.
    """
    if compat not in COMPAT:
        raise ConfigError(
            f"compat: BabyAI's recorded cases are of {' or '.join(map(repr, COMPAT))}, not of {compat!r}"
        )
    if catalogue is not None:
        raise ConfigError("catalogue: BabyAI has none; leave it out")
    envs = [BabyAIEnv(show_actions=False, compat=rules) for rules in COMPAT[COMPAT.index(compat) :]]
    checked = later = 0
    for row, case in read_cases(cases):
        where = f"{cases}: row {row}"
        _demand(case, _HEAD, where)
        for env in envs:
            at, difference = _first_difference(env, case, where)
            if at not in _START:
                break
        if difference:
            task = f"level {case['level']} seed {case['seed']}"
            return CaseReport(checked, f"row {row} ({task}), {at}: {difference}")
        checked, later = checked + 1, later + (env is not envs[0])
    return CaseReport(checked, note=f"{later} of them start as minigrid 3 has it" if later else "")


def _first_difference(env: BabyAIEnv, case: dict[str, Any], where: str) -> tuple[str, str]:
    """Where in a case the replay first differs, and how; two empty texts where it does not."""
    for index, (recorded, replayed) in enumerate(_replay(env, case, where)):
        difference = _difference(recorded, replayed)
        if difference:
            return (_START[index] if index < len(_START) else f"step {index - 1}"), difference
    return "", ""


def _replay(
    env: BabyAIEnv, case: dict[str, Any], where: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What was recorded and what comes, at the start, in the first state and after each step."""
    if case["data_idx"] < 0:
        raise ConfigError(f"{where}: data_idx: {case['data_idx']} is negative")
    task = task_of(case["data_idx"], pinned=env.compat == "agentgym")
    env.reset(task)
    episode = env.episode
    yield (
        case,
        {
            "level": case["data_idx"] % len(AGENTGYM_LEVELS) + 1,
            "seed": task.seed,
            "mission": env.goal,
            "goal": text.goal(env.goal),
            "max_steps": episode.scenario.max_steps,
        },
    )
    _demand(case["init"], _STATE, f"{where}: init")
    yield case["init"], _state(episode, describe(episode))
    for number, step in enumerate(case["steps"], start=1):
        if not isinstance(step, dict):
            raise ConfigError(f"{where}: step {number}: expected an object, got {type(step).__name__}")
        _demand(step, _STEP, f"{where}: step {number}")
        offer = scene_of(episode).offers.get(clean(step["a"]))
        plan = None if offer is None else _digits(episode, offer)
        result = env.step(step["a"])
        came = {
            "plan": plan,
            "ran": result.info["low_level_steps"],
            "r": round(result.reward, _DIGITS),
            "done": result.terminated,
            "valid": result.info["action_is_valid"],
        }
        yield step, came | _state(episode, result.observation)


def _state(episode: Episode, seen: str) -> dict[str, Any]:
    scene, board = scene_of(episode), episode.scenario.terrain.board
    kind, color, _ = CODES[episode.carried]
    acts = sorted(scene.offers)
    return {
        "pos": list(board.position(episode.place)),
        "dir": episode.heading,
        "carry": None if episode.carried < 0 else f"{color} {kind}",
        "n": episode.steps,
        "acts": acts,
        "plans": [_digits(episode, scene.offers[act]) for act in acts],
        "text": seen,
        "obs": _hash(seen),
        "err": _hash(json.dumps(sorted(errors(scene, episode.carried, board).items()))),
    }


def _digits(episode: Episode, offer: Offer) -> str:
    board = episode.scenario.terrain.board
    return "".join(str(move) for move in moves(offer, scene_of(episode), board))


def _hash(words: str) -> str:
    return hashlib.sha1(words.encode()).hexdigest()[:10]


def _difference(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> str:
    for field, came in replayed.items():
        if field in recorded and recorded[field] != came:
            return f"{field}: recorded {recorded[field]!r}, got {came!r}"
    return ""


def _demand(record: Mapping[str, Any], fields: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Raises `ConfigError` for a field that is missing or of another type."""
    for field, kind in fields.items():
        if field not in record:
            raise ConfigError(f"{where}: no field {field!r}; record the case again")
        value = record[field]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"{where}: {field}: {type(value).__name__} {value!r:.60} does not belong there")
