"""What the kinds of AgentGym servers call things, what their clients make of actions, how answers are read.

The clients' half is that of AgentGym's `agentenv` package, so that a policy meets the same environment here.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from depo.config.base import ConfigError
from depo.envs.base import finite_number, received_text

_LISTED = "Available actions:"
_DROPPED = re.compile(r"[^A-Za-z0-9, ]+")
_SHOP_ACTION = re.compile(r"(search|click)\[(.+)\]", re.DOTALL)
_TOOL_CALL = "Action: "


class Unreadable(ValueError):
    """An answer without what the dialect expects in it; the message names the field."""


class Reading(NamedTuple):
    """An answer: the observation, the reward as the server gives it, the end, and the actions it lists."""

    observation: str
    reward: float = 0.0
    done: bool = False
    actions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """Field names and conventions of one kind of server; the defaults are what most of them share."""

    id_field: str = "id"
    """Names the environment in requests and, where it is not the whole answer, in that of `/create`."""
    task_field: str = "data_idx"
    """Names the task in `/reset`."""
    observation_field: str = "observation"
    reward_field: str = "reward"
    done_field: str = "done"
    intro_field: str = ""
    """Field of the `/reset` answer that goes before the first observation."""
    create: Mapping[str, Any] = field(default_factory=dict)
    """Body of `/create`."""
    reset: Mapping[str, Any] = field(default_factory=dict)
    """What `/reset` wants besides environment and task."""
    actions: Literal["field", "text", "pages"] = "field"
    """Where the available actions are: "field" `available_actions` of an answer, a list at the end of the
    observation's "text", or a shop's "pages", asked for at `/available_actions`."""
    cleaning: Literal["strip", "words", "sql", "call"] = "strip"
    """What is sent of an action: "strip" all but the blanks around it; "words" of its first line the letters,
    digits, commas and single blanks; "sql" what stands in its Markdown block; "call" a tool's call, with the
    "Action: " that the server looks for."""
    send_empty: bool = True
    """An action of which nothing is left is sent all the same; the server's answer says what can be done."""
    first_list: str = ""
    """What goes between the first observation and its available actions, joined by commas; "" for no list."""
    cumulative: bool = False
    """The reward is the return so far, not what this action earned."""
    reward_scale: float = 1.0
    success_at: float = 1.0
    """Return, after scaling, from which a finished episode is a success; 0 takes any positive return."""
    invalid: tuple[str, ...] = ("Nothing happen", "Invalid action", "No known action", "Unknown action")
    """An observation that contains one of these, in any case, answers an invalid action."""
    understood: tuple[str, ...] = ()
    """An action that contains one of these is valid even where it is not among the available ones."""


DIALECTS: dict[str, Dialect] = {
    "generic": Dialect(send_empty=False),
    # Each answer lists the actions, so what is invalid is known by them; "check" asks for the list.
    "babyai": Dialect(actions="text", cleaning="words", success_at=0.0, invalid=(), understood=("check",)),
    "alfworld": Dialect(task_field="game", reset={"world_type": "Text"}, first_list="\nAVAILABLE ACTIONS: "),
    "sciworld": Dialect(intro_field="task_description", reward_scale=0.01),
    "textcraft": Dialect(
        create={"commands": None, "goal": None}, cleaning="words", invalid=("Could not", "Wrong item format")
    ),
    "webshop": Dialect(
        id_field="env_idx", task_field="session_id", observation_field="state", actions="pages"
    ),
    "sqlgym": Dialect(id_field="env_idx", task_field="item_id", observation_field="state", cleaning="sql"),
    "tool": Dialect(
        id_field="env_idx",
        task_field="id",
        create={"id": 0},
        cumulative=True,
        cleaning="call",
        invalid=("Format error, please response", "ERROR |"),
    ),
}


def cleaned(names: Dialect, action: str) -> str:
    """What AgentGym's client sends of an action."""
    action = action.strip()
    match names.cleaning:
        case "words":
            return " ".join(_DROPPED.sub("", action.split("\n", 1)[0]).split())
        case "sql":
            return action.rpartition("```sql")[2].partition("```")[0].strip()
        case "call" if not action.startswith(_TOOL_CALL.strip()):
            return _TOOL_CALL + action
    return action


def shop_action(action: str) -> tuple[str, str] | None:
    """What a shop's action does ("search" or "click") and with what; None for what is no action there."""
    found = _SHOP_ACTION.match(action)
    return None if found is None else (found[1], found[2].lower())


def dialect(name: str, overrides: Mapping[str, Any]) -> Dialect:
    """The dialect `name` with some fields replaced. Raises `ConfigError` for unknown names."""
    if name not in DIALECTS:
        raise ConfigError(f"server: unknown kind {name!r}; {_hint(name, list(DIALECTS))}")
    known = {f.name: f for f in dataclasses.fields(Dialect)}
    for key in overrides:
        if key not in known:
            raise ConfigError(f"protocol.{key}: unknown field; {_hint(str(key), list(known))}")
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in overrides.items()}
    changed = dataclasses.replace(DIALECTS[name], **values)
    for key in overrides:
        usual, given = getattr(Dialect(), key), getattr(changed, key)
        if not (finite_number(given) if isinstance(usual, float) else isinstance(given, type(usual))):
            raise ConfigError(f"protocol.{key}: expected {type(usual).__name__}, got {given!r}")
        if given not in (allowed := _CHOICES.get(key, (given,))):
            raise ConfigError(f"protocol.{key}: give one of {', '.join(allowed)}, not {given!r}")
    return changed


_CHOICES: dict[str, tuple[str, ...]] = {
    name: get_args(kind) for name, kind in get_type_hints(Dialect).items() if get_origin(kind) is Literal
}


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def read_id(names: Dialect, answer: Any) -> Any:
    """The environment's id in the answer of `/create`. Raises `Unreadable`."""
    found = answer.get(names.id_field) if isinstance(answer, dict) else answer
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise Unreadable(f"no {names.id_field!r} in {_short(answer)}; set server or protocol.id_field")
    return found


def read_reset(names: Dialect, answer: Any) -> Reading:
    """The first observation, or "": a field of `/reset`'s answer, a list's first entry, or all of it."""
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return _reading(names, {}, answer if isinstance(answer, str) else "")
    text = answer.get(names.observation_field)
    intro = answer.get(names.intro_field)
    text = text if isinstance(text, str) else ""
    first = _reading(names, answer, f"{intro}\n{text}" if isinstance(intro, str) and text else text)
    if names.first_list and text:
        first = first._replace(observation=first.observation + names.first_list + ",".join(first.actions))
    return first


def read_step(names: Dialect, answer: Any) -> Reading:
    """What a step came to. Raises `Unreadable`."""
    record = answer if isinstance(answer, dict) else {}
    fields = (names.observation_field, names.reward_field, names.done_field)
    text, reward, done = (record.get(name) for name in fields)
    right = (
        isinstance(text, str),
        # JSON as servers write it has NaN and Infinity, and the scale may make some.
        finite_number(reward) and finite_number(reward * names.reward_scale),
        isinstance(done, bool),
    )
    for name, fine in zip(fields, right, strict=True):
        if not fine:
            raise Unreadable(f"no usable {name!r} in {_short(answer)}; set server or protocol")
    earned = float(record[fields[1]]) * names.reward_scale
    return _reading(names, record, record[fields[0]], earned, record[fields[2]])


def _reading(
    names: Dialect, record: dict[str, Any], text: str, reward: float = 0.0, done: bool = False
) -> Reading:
    listed: Any = record.get("available_actions") if names.actions == "field" else None
    if names.actions == "text" and _LISTED in text:
        try:
            listed = json.loads(text.rpartition(_LISTED)[2])
        except (ValueError, RecursionError):
            listed = None  # a list in other words is no list to choose from
    if not isinstance(listed, list):
        listed = []
    actions = tuple(received_text(action) for action in listed if isinstance(action, str))
    return Reading(received_text(text), reward, done, actions)


def _short(answer: Any) -> str:
    return repr(answer)[:200]
