"""TRL's unpaired-preference rows as samples: whose each token is, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
    assistant's in the prompt, are read only. `name` says in errors which data set it is.

    Raises `ConfigError` naming the row that cannot be read.
    """
    renderer = None
    samples = []
    for number, row in enumerate(rows):
        where = f"{name}, row {number}"
        missing = [key for key in ("prompt", "completion", "label") if row.get(key) is None]
        if missing:
            raise ConfigError(f"{where}: has no {missing[0]}; a row holds prompt, completion and label")
        if isinstance(row["prompt"], str) and isinstance(row["completion"], str):
            encoded = encode_text(row["prompt"], row["completion"], tokenizer)
        else:
            renderer = renderer or _renderer(tokenizer)
            encoded = encode_messages(row["prompt"], row["completion"], renderer, where)
        samples.append(_sample(number, row, encoded, name))
    return name_kl_partners(samples, seed)


def encode_text(prompt: str, completion: str, tokenizer: Any) -> Encoded:
    """Text as TRL encodes it: the completion begins where its ids part from the prompt's; EOS ends it."""
    end = "" if completion.endswith(tokenizer.eos_token) else tokenizer.eos_token
    before = tokenizer(prompt)["input_ids"]
    ids = tokenizer(prompt + completion + end)["input_ids"]
    same = next((i for i, pair in enumerate(zip(before, ids, strict=False)) if pair[0] != pair[1]), None)
    start = min(len(before), len(ids)) if same is None else same
    return ids, [0] * start + [1] * (len(ids) - start - 1) + [2], 1


def encode_messages(
    prompt: Sequence[Mapping[str, str]],
    completion: Sequence[Mapping[str, str]],
    renderer: ChatRenderer,
    where: str,
) -> Encoded:
    """A conversation in the chat template; raises `ConfigError` where its turns do not alternate."""
    _require_turns(prompt, completion, where)
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


def _renderer(tokenizer: Any) -> ChatRenderer:
    try:
        return ChatRenderer(tokenizer)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _sample(number: int, row: Row, encoded: Encoded, name: str) -> Sample:
    ids, mask, turns = encoded
    own = sum(1 for mark in mask if mark)
    return Sample(
        id=f"{name}/{number}",
        trajectory_id=f"{name}/{number}",
        task_id=content_hash(row["prompt"]),
        env=name,
        level=str(row.get("level") or ""),
        policy="",
        label="D" if row["label"] else "U",
        view=VIEW,
        reward=float(bool(row["label"])),
        success=bool(row["label"]),
        num_steps=turns,
        num_tokens=own - turns,
        token_ids=tuple(ids),
        agent_mask=tuple(mask),
        prompt_length=mask.index(next(mark for mark in mask if mark)) if own else len(ids),
        kl_partner="",
    )
