"""TRL's unpaired-preference rows as samples: whose each token is, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from depo.config.base import ConfigError
from depo.data.samples import name_kl_partners, reply_mask
from depo.policies.chat import ChatRenderer
from depo.records import Sample, content_hash

VIEW = "raw"

Row = Mapping[str, Any]
Encoded = tuple[list[int], list[int], int]
"""Ids, agent mask as `Sample.agent_mask` has it, number of trained turns."""


def samples_of(rows: Sequence[Row], tokenizer: Any, name: str, seed: int) -> list[Sample]:
    """One sample a row, KL partners named within them.

    A row has `prompt`, `completion` and `label`, the first two as text or as messages. Of messages, the
    assistant's in the completion are trained on, however many there are; the others, and the
    assistant's in the prompt, are read only. `tools` and `chat_template_kwargs` go to the template. A row of
    `prompt_ids` and `completion_ids` is taken as it is, where `completion_mask` (all of it without) is not 0.
    `name` says in errors which data set it is.

    Raises `ConfigError` naming the row that cannot be read.
    """
    renderers = _Renderers(tokenizer)
    samples = []
    for number, row in enumerate(rows):
        where = f"{name}, row {number}"
        told = row.get("prompt_ids") is not None
        given = ("prompt_ids", "completion_ids") if told else ("prompt", "completion")
        missing = [key for key in (*given, "label") if row.get(key) is None]
        if missing:
            raise ConfigError(f"{where}: has no {missing[0]}; a row holds prompt, completion and label")
        prompt, completion = (row[key] for key in given)
        if told:
            encoded = _encode_ids(prompt, completion, row, where)
        elif isinstance(prompt, str) and isinstance(completion, str):
            encoded = encode_text(prompt, completion, tokenizer)
        else:
            _require_turns(prompt, completion, where)
            both = [[_message(m, where) for m in part] for part in (prompt, completion)]
            encoded = encode_messages(both[0], both[1], renderers.of(row, where))
        samples.append(_sample(str(number), row, prompt, encoded, name, _label(row["label"], where)))
    # Named apart only now, so that the same rows have the same partners in every data set.
    named = [(s, f"{name}/{s.id}", f"{name}/{s.kl_partner}") for s in name_kl_partners(samples, seed)]
    return [replace(s, id=own, trajectory_id=own, kl_partner=other) for s, own, other in named]


class _Renderers:
    """A renderer for each set of arguments that rows give to the chat template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self._made = tokenizer, dict[str, ChatRenderer]()

    def of(self, row: Row, where: str) -> ChatRenderer:
        """The renderer of a row. Raises `ConfigError` where its template does not serve."""
        tools = row.get("tools")
        try:
            extra = {"tools": json.loads(tools) if isinstance(tools, str) else tools}
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: tools is no JSON ({error})") from None
        # A data set fills up what a row leaves out.
        extra = {k: v for k, v in (extra | (row.get("chat_template_kwargs") or {})).items() if v is not None}
        key = content_hash(json.dumps(extra, sort_keys=True, default=str))
        if key not in self._made:
            try:
                self._made[key] = ChatRenderer(self._tokenizer, options=extra)
            except ValueError as error:
                raise ConfigError(" ".join(str(error).split())) from None
        return self._made[key]


def encode_text(prompt: str, completion: str, tokenizer: Any) -> Encoded:
    """Text as TRL encodes it: the completion begins where its ids part from the prompt's; EOS ends it."""
    if tokenizer.eos_token is None:
        raise ConfigError("processing_class: has no eos_token, which ends each completion; set it")
    end = "" if completion.endswith(tokenizer.eos_token) else tokenizer.eos_token
    before = tokenizer(prompt)["input_ids"]
    ids = tokenizer(prompt + completion + end)["input_ids"]
    same = next((i for i, pair in enumerate(zip(before, ids, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(before), len(ids)) if same is None else same
    return ids, [0] * start + [1] * (len(ids) - start - 1) + [2], 1


def encode_messages(
    prompt: Sequence[Mapping[str, str]], completion: Sequence[Mapping[str, str]], renderer: ChatRenderer
) -> Encoded:
    """A conversation, whose turns alternate, in the chat template."""
    chat = [*prompt, *completion]
    system = chat[0]["content"] if chat[0]["role"] == "system" else ""
    turns = chat[1:] if chat[0]["role"] == "system" else chat
    trained_from = len(turns) - len(completion)
    ids, mask, count = list(renderer.first(system, turns[0]["content"])), [], 0
    mask += [0] * len(ids)
    for place, turn in enumerate(turns[1:], start=1):
        if turn["role"] == "user":
            more = renderer.following(turn["content"])
            own: Sequence[int] = [0] * len(more)
        else:
            more = renderer.reply(turn["content"])
            trained = place >= trained_from
            own = reply_mask(more, renderer) if trained else [0] * len(more)
            count += trained
        ids += more
        mask += own
    return ids, mask, count


def _require_turns(
    prompt: Sequence[Mapping[str, str]], completion: Sequence[Mapping[str, str]], where: str
) -> None:
    if not prompt or not completion or isinstance(prompt, str) or isinstance(completion, str):
        raise ConfigError(
            f"{where}: prompt and completion must both be text or both be messages, and not empty"
        )
    for message in (*prompt, *completion):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ConfigError(f"{where}: a message has no role; each is {{role: ..., content: ...}}")
        if message.get("tool_calls"):
            raise ConfigError(f"{where}: tool_calls are not read; write the call into the message's content")
    roles = [message["role"] for message in (*prompt, *completion)]
    turns = roles[1:] if roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(turns) // 2 + 1)
    if turns != expected[: len(turns)] or not turns:
        raise ConfigError(
            f"{where}: roles are {', '.join(roles)}; after an optional system message user and assistant "
            "take turns"
        )
    if completion[0]["role"] != "assistant" or roles[-1] != "assistant":
        raise ConfigError(f"{where}: the completion must begin and end with an assistant message")


def _message(message: Mapping[str, Any], where: str) -> dict[str, str]:
    """Role and text of a message, whose content may stand in parts."""
    role, content = message["role"], message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        other = [
            p
            for p in content
            if not isinstance(p, Mapping) or p.get("type") != "text" or not isinstance(p.get("text"), str)
        ]
        if other:
            kind = other[0].get("type") if isinstance(other[0], Mapping) else type(other[0]).__name__
            raise ConfigError(
                f"{where}: a message of role {role!r} has a part of type {kind!r}; only text is read"
            )
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ConfigError(
            f"{where}: a message of role {role!r} has {type(content).__name__} as content; it holds text"
        )
    return {"role": role, "content": content}


def _label(value: Any, where: str) -> bool:
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | np.integer) and value in (0, 1)):
        return bool(value)
    raise ConfigError(
        f"{where}: label is {value!r}; the column holds true (desirable) and false, or 1 and 0, so that no "
        "word or score is taken for desirable"
    )


def _encode_ids(prompt: Sequence[int], completion: Sequence[int], row: Row, where: str) -> Encoded:
    mask = row.get("completion_mask")
    mask = [1] * len(completion) if mask is None else [int(mark) for mark in mask]
    if len(mask) != len(completion):
        raise ConfigError(
            f"{where}: completion_mask has {len(mask)} values for {len(completion)} completion_ids"
        )
    return [*prompt, *completion], [0] * len(prompt) + mask, int(row.get("num_steps") or 1)


def _sample(number: str, row: Row, prompt: Any, encoded: Encoded, name: str, desirable: bool) -> Sample:
    ids, mask, turns = encoded
    mask[:1] = [0] * len(mask[:1])  # nothing stands before the first token, so nothing predicts it
    own = sum(1 for mark in mask if mark)
    return Sample(
        id=number,
        trajectory_id=number,
        task_id=content_hash(prompt),
        env=name,
        level=str(row.get("level") or ""),
        policy="",
        label="D" if desirable else "U",
        view=VIEW,
        reward=float(desirable),
        success=desirable,
        num_steps=turns,
        num_tokens=own - turns,
        token_ids=tuple(ids),
        agent_mask=tuple(mask),
        prompt_length=mask.index(next(mark for mark in mask if mark)) if own else len(ids),
        kl_partner="",
    )
