"""Rows of other tools as conversations: TRL, LLaMA-Factory, AgentGym, ETO, OpenAI, Hugging Face datasets.

Messages are read alike whatever the format: `role` and `content`, or `from` and `value`; content as text or
in parts; calls of tools and what these gave back. A format says where a row holds them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from depo.data.rows import BadRow, shown
from depo.policies.base import format_reply, parse_reply
from depo.records import Label

_ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "function_call": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool",
}  # fmt: skip
_MARKS = ("loss", "weight", "loss_weight", "loss_mask", "train")
"""Keys by which files say whether an assistant's message is trained on; one that is not is context."""
_UNREAD = ("tools", "functions", "images", "videos", "audios")
_ASSENT = re.compile(
    r"\W*(?:ok(?:ay)?|sure|understood|got it|certainly|of course|alright|all right|yes|i understand|"
    r"i(?:'m| am) ready|i(?:'ll| will))\b",
    re.IGNORECASE,
)
_AGENTGYM = re.compile(r"ok\W+i(?:'ll| will) follow your instructions?\b", re.IGNORECASE)
_JUDGES = re.compile(
    r"(?<![a-z])(?:labels?|kto|good|bad|scores?|ratings?|rank|chosen|rejected|preferred|preference|(?:un)?desirable|"
    r"(?:in)?correct|right|wrong|success(?:ful)?|succeeded|pass(?:ed)?|accepted|approved|quality|outcome|win|winner|"
    r"grade|feedback|thumbs?|(?:up)?votes?|upvoted|liked|positive|negative|solved|resolved|fail(?:ed|ure)?|verdict|"
    r"return|valid|(?P<may>rewards?|passes|acc|accuracy|judge?ments?|helpful|completed?|done|finished|ok|results?|"
    r"status|eval|evaluation|annotations?|sentiment))(?![a-z])"
)
"""Names of columns that judge an episode; `may` where nothing else in the row does."""


@dataclass(frozen=True)
class Message:
    """A message of a conversation."""

    role: str
    """"system", "user", "assistant", or "tool" for what a tool gave back."""
    text: str
    own: bool = True
    """Of an assistant's: it is the agent's own, not context."""


@dataclass(frozen=True)
class Conversation:
    """A row as every format has it, or one side of a pair."""

    messages: tuple[Message, ...]
    task: str = ""
    reward: float | None = None
    success: bool | None = None
    label: Label | None = None
    steps: float | None = None
    """As the row counts them, as are the next two."""
    total_tokens: float | None = None
    avg_tokens_per_step: float | None = None
    unread: tuple[str, ...] = ()
    """What belongs to the conversation and is not read: tools that are described, pictures."""
    paired: bool = False
    """It is a side of a pair."""
    acknowledged: bool = False
    """The opening answer is context by its form: nothing in the row says so."""

    @property
    def told(self) -> bool:
        """The row tells how the episode went."""
        return (self.reward, self.success, self.label) != (None, None, None)


def conversations_of(row: Any, format_: str, label: str) -> list[Conversation]:
    """The conversation of a row of one of `FORMATS`, or the chosen and the rejected one of a pair.

    `label` is the column that holds the label, "" for `label` or `kto_tag`, "none" for no column. Raises
    `BadRow`.
    """
    if not isinstance(row, dict):
        raise BadRow(f"is {type(row).__name__}, not an object; check --format")
    row = {name: value for name, value in row.items() if value is not None}  # a table fills up with null
    told = _told(row, label)
    if format_ == "trl-kto" and told["label"] is None and label != "none":
        raise BadRow(f"has no `{label or 'label'}`; check --format, or add it")
    sides = [isinstance(row.get(name), list | dict | str) for name in ("chosen", "rejected")]
    if all(sides):
        return _pair(row, told)
    if any(sides) or format_ == "trl-dpo":
        raise BadRow("has no pair of `chosen` and `rejected`; check --format, or complete the row")
    messages, acknowledged = _chat(row, FORMATS[format_])
    messages = _with_system(row, messages)
    if format_ == "agentgym":
        told["task"] = _clean(str(_field(row, "item_id", (str, int))), "item_id")
        first, second = messages[:2] if len(messages) > 3 and "system" not in row else (None, None)
        if first and second and first.role == "user" and second.role == "assistant" and not second.own:
            messages = [Message("system", first.text), *messages[2:]]
    return [Conversation(tuple(messages), acknowledged=acknowledged, **told)]


def unread_labels(row: Mapping[str, Any], conversation: Conversation) -> list[str]:
    """Columns of a row that look like a label and are not read, where the row has no label."""
    if conversation.label is not None:
        return []
    silent, found = not conversation.told, []
    for name, value in row.items():
        named = _JUDGES.search(re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
        scalar = isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 20)
        judges = scalar and named is not None and (silent or not named["may"])
        if (judges or (silent and isinstance(value, bool))) and name not in ("reward", "success"):
            found.append(name)
    return found


def acknowledges(replies: Sequence[str]) -> bool:
    """The first of an episode's replies only takes note of the instructions, by its form.

    It says yes and has no action, where the next reply has one; or it has AgentGym's words.
    """
    first = replies[0]
    if not parse_reply(first)[2]:
        return False
    if _AGENTGYM.match(first):
        return True
    return len(replies) > 1 and bool(_ASSENT.match(first)) and not parse_reply(replies[1])[2]


def read_messages(chat: Sequence[Any], name: str) -> tuple[list[Message], bool]:
    """Messages of a list called `name`, and whether the row marks which of them are the agent's own."""
    messages: list[Message] = []
    marks: list[bool | None] = []
    default = True
    marked = [turn for turn in chat if isinstance(turn, Mapping) and turn.get("mask") in (0, 1)]
    said_by = [_ROLES.get(str(turn.get("from") or turn.get("role"))) for turn in marked]
    masks = {bool(turn["mask"]) for turn, who in zip(marked, said_by, strict=True) if who != "assistant"}
    for number, turn in enumerate(chat, 1):
        at = f"{name}[{number}]"
        if not isinstance(turn, Mapping):
            raise BadRow(f"{at}: is {type(turn).__name__}, not an object; check --format")
        who, what = ("from", "value") if turn.get("from") is not None else ("role", "content")
        said = _field(turn, who, str, at)
        if said not in _ROLES:
            raise BadRow(f"{at}: {who} {shown(said)} is not one of {', '.join(_ROLES)}; rename it")
        message = Message(_ROLES[said], _text(turn, what, said, at))
        if message.role == "tool" and messages and messages[-1].role == "tool":
            messages[-1] = Message("tool", f"{messages[-1].text}\n{message.text}")
            continue
        messages.append(message)
        key, mark = _mark(turn, masks, at) if message.role == "assistant" else ("", None)
        default = default and not (key == "loss" and mark)
        marks.append(mark)
    own = [default if mark is None else mark for mark in marks]
    messages = [replace(message, own=mine) for message, mine in zip(messages, own, strict=True)]
    return messages, any(mark is not None for mark in marks)


def _chat(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[list[Message], bool]:
    """A row's messages, and whether the first answer among them is context by its form alone."""
    if "messages" not in row and "prompt" in columns and ("prompt" in row or "completion" in row):
        prompt, completion = (_part(row, name) for name in ("prompt", "completion"))
        return [*_context(prompt), *completion], False
    if "instruction" in columns and "conversations" not in row and "instruction" in row:
        return [*_alpaca(row), *_part(row, "output")], False
    name = next((name for name in columns if name in row), columns[0])
    messages, marked = read_messages(_field(row, name, list), name)
    answers = [place for place, message in enumerate(messages) if message.role == "assistant"]
    if marked or not answers or not acknowledges([messages[place].text for place in answers]):
        return messages, False
    messages[answers[0]] = replace(messages[answers[0]], own=False)
    return messages, True


def _pair(row: Mapping[str, Any], told: Mapping[str, Any]) -> list[Conversation]:
    """The chosen and the rejected conversation behind one prompt, in which an assistant's message is context.

    Where both sides are whole conversations, the prompt is what they begin with alike (as TRL has it).
    """
    sides = [_part(row, name) for name in ("chosen", "rejected")]
    if sides[0] == sides[1]:
        raise BadRow("`chosen` and `rejected` are the same; leave the row out")
    whole = all(side[:1] and side[0].role != "assistant" for side in sides)
    if whole and not isinstance(row.get("prompt"), list):
        longest = min(map(len, sides)) - 1
        same = next((n for n in range(longest) if sides[0][n] != sides[1][n]), longest)
        prompt, sides = sides[0][:same], [side[same:] for side in sides]
    elif "instruction" in row and "prompt" not in row:
        prompt = _alpaca(row)
    else:
        named = next((n for n in ("prompt", "conversations", "messages") if n in row), "prompt")
        prompt = _part(row, named)
    conversations = []
    for name, label, side in zip(("chosen", "rejected"), ("D", "U"), sides, strict=True):
        reward, success = _number(row, f"{name}_reward"), _truth(row, f"{name}_success")
        messages = tuple(_with_system(row, [*_context(prompt), *side]))
        outcome: dict[str, Any] = {"label": label, "reward": reward, "success": success}
        outcome |= {"task": told["task"], "unread": told["unread"]}
        conversations.append(Conversation(messages, paired=True, **outcome))
    return conversations


def _part(row: Mapping[str, Any], name: str) -> list[Message]:
    """A column that holds messages, one message, or plain text."""
    value = _field(row, name, (list, dict, str))
    if isinstance(value, str):
        text = _clean(value, name)
        if name != "prompt" and not text.strip():
            raise BadRow(f"`{name}` is empty; complete it or leave the row out")
        return [Message("user" if name == "prompt" else "assistant", text)]
    messages, _ = read_messages([value] if isinstance(value, dict) else value, name)
    return messages


def _alpaca(row: Mapping[str, Any]) -> list[Message]:
    """What comes before the answer in LLaMA-Factory's form of instruction, input and history."""
    asked = [_field(row, name, str) for name in ("instruction", "input") if name in row]
    texts = ["\n".join(part for part in asked if part)]
    for pair in reversed(_field(row, "history", list) if "history" in row else []):
        said = pair if isinstance(pair, list) else []
        if len(said) != 2 or not all(isinstance(text, str) for text in said) or not said[1].strip():
            raise BadRow(f"`history` holds {shown(pair)}, not what was asked and answered; mend it")
        texts = [*said, *texts]
    roles = ("user", "assistant")
    return [Message(roles[n % 2], _clean(text, "instruction or history")) for n, text in enumerate(texts)]


def _context(messages: Sequence[Message]) -> list[Message]:
    return [replace(message, own=False) for message in messages]


def _with_system(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    system = _field(row, "system", str) if "system" in row else ""
    if not system:
        return messages
    if messages[:1] and messages[0].role == "system":
        raise BadRow("has a `system` and a system message; keep one of them")
    return [Message("system", _clean(system, "system")), *messages]


def _text(turn: Mapping[str, Any], key: str, said: str, at: str) -> str:
    """A message's text; a call of tools is an action, with the message's content as its thought."""
    value = turn.get(key)
    if isinstance(value, list):
        value = "".join(_text_part(part, key, at) for part in value)
    if value is not None and not isinstance(value, str):
        raise BadRow(f"{at}: `{key}` is {shown(value)}, not text; mend it")
    if _ROLES[said] != "assistant":
        if value is None:
            raise BadRow(f"{at}: has no `{key}`; check --format, or complete the message")
        return _clean(value, at)
    text = value or ""
    if isinstance(reasoning := turn.get("reasoning_content"), str) and reasoning.strip():
        text = f"<think>\n{reasoning}\n</think>\n\n{text}"
    calls = turn.get("tool_calls") or turn.get("function_call")
    if said == "function_call":
        text, calls = "", value
    if calls:
        text = _acting(text, calls, at)
    if not text.strip():
        has = f"`{key}` is {shown(value)}" if key in turn else f"has no `{key}`"
        raise BadRow(f"{at}: {has}: the assistant says nothing; complete it or leave the row out")
    return _clean(text, at)


def _text_part(part: Any, key: str, at: str) -> str:
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        kind = part.get("type") if isinstance(part, Mapping) else part
        raise BadRow(f"{at}: `{key}` holds a part {shown(kind)}, not text; only text is read")
    return text


def _acting(thought: str, calls: Any, at: str) -> str:
    """A reply that calls tools, in the form of every other reply: what is called, as JSON, is its action."""
    listed = calls if isinstance(calls, list) else [calls]
    read = [_call(call, at) for call in listed]
    action = json.dumps(read[0] if len(read) == 1 else read, ensure_ascii=False)
    thought = thought.strip()
    labelled = not thought or thought.lower().startswith(("thought", "<think"))
    text = f"{thought}\nAction: {action}".lstrip() if labelled else format_reply(thought, action)
    if parse_reply(text)[1:] != (action, False):
        raise BadRow(f"{at}: has an action in its text beside the calls of tools; keep one of them")
    return text


def _call(call: Any, at: str) -> Any:
    """A call as {"name", "arguments"}, whichever way a tool writes it."""
    call = _from_json(call)
    called = call.get("function", call) if isinstance(call, Mapping) else call
    if not isinstance(called, Mapping):
        raise BadRow(f"{at}: the call {shown(call)} is no object with a name; mend it")
    name = _field(called, "name", str, at)
    return {"name": name, "arguments": _from_json(called.get("arguments"))}


def _from_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _mark(turn: Mapping[str, Any], masks: set[bool], at: str) -> tuple[str, bool | None]:
    """By which key a turn says whether it is trained on, and what; None where it does not say.

    What `mask` means is seen from `masks`, what it is where nobody trains: on the user's messages.
    """
    mask = turn.get("mask")
    if mask is not None:
        if mask not in (0, 1) or len(masks) != 1:
            raise BadRow(f"{at}: `mask` may mean trained or not trained; rename it `loss` (true is trained)")
        return "mask", bool(mask) not in masks
    for key in _MARKS:
        value = turn.get(key)
        if value is not None:
            if not isinstance(value, bool | int | float) or value not in (0, 1):
                raise BadRow(f"{at}: `{key}` is {shown(value)}, not true, false, 1 or 0; mend it")
            return key, bool(value)
    return "", None


def _told(row: Mapping[str, Any], label: str) -> dict[str, Any]:
    """What a row tells of the episode, where it does."""
    columns = [] if label == "none" else [label] if label else ["label", "kto_tag"]
    labels = {name: _truth(row, name) for name in columns if name in row}
    if len(set(labels.values())) > 1:
        raise BadRow("`label` and `kto_tag` differ; keep one of them")
    task = str(_field(row, "task_id", (str, int))) if "task_id" in row else ""
    names = ("steps", "total_tokens", "avg_tokens_per_step")
    numbers = {n: _number(row, n) for n in names if not isinstance(row.get(n), list | dict | str)}
    if any(number is not None and not 0 <= number < 2**53 for number in numbers.values()):
        raise BadRow(f"one of {', '.join(names)} is no count; mend it")
    return {
        "task": _clean(task, "task_id"),
        "reward": _number(row, "reward"),
        "success": _truth(row, "success"),
        "label": ("D" if next(iter(labels.values())) else "U") if labels else None,
        "unread": tuple(name for name in _UNREAD if row.get(name)),
        **numbers,
    }


def _truth(row: Mapping[str, Any], name: str) -> bool | None:
    """True, false, 1 or 0, as `DEPOTrainer` reads labels; None where the row does not say."""
    value = row.get(name)
    if value is not None and not (isinstance(value, bool | int) and value in (0, 1)):
        raise BadRow(f"`{name}` is {shown(value)}, not true or false (1 or 0); mend it")
    return None if value is None else bool(value)


def _number(row: Mapping[str, Any], name: str) -> float | None:
    if name not in row:
        return None
    value = _field(row, name, (int, float))
    number = float(value) if abs(value) < 2**1023 else math.inf
    if not math.isfinite(number):
        raise BadRow(f"`{name}` is {shown(value)}, not a finite number; mend it")
    return number


_KINDS: dict[Any, str] = {
    list: "a list", str: "text", (int, float): "a number",
    (list, dict, str): "a list or text", (str, int): "text or a number",
}  # fmt: skip


def _field(row: Mapping[str, Any], name: str, kind: Any, where: str = "") -> Any:
    prefix = f"{where}: " if where else ""
    if name not in row:
        raise BadRow(f"{prefix}has no `{name}`; check --format, or add it")
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadRow(f"{prefix}`{name}` is {shown(value)}, not {_KINDS[kind]}; mend it")
    return value


def _clean(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{where}: holds half a surrogate pair, or bytes that are no text; mend it") from None
    return text


FORMATS: dict[str, tuple[str, ...]] = {
    "openai": ("messages",),
    **dict.fromkeys(("trl-kto", "trl-sft", "trl-dpo", "hf"), ("messages", "prompt")),
    "llama-factory": ("conversations", "messages", "instruction"),
    "agentgym": ("conversations",),
}
"""The columns in which a format's rows may hold their messages."""
