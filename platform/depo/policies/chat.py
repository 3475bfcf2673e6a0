"""Conversations as token ids, built turn by turn from a tokenizer's chat template.

What a policy generated is kept as ids and never tokenised again, so a conversation's ids are the
template's own ids around them: `first`, a reply, `following`, a reply, ... . That needs a template
whose rendering of the past never changes as the conversation grows; others are refused here.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

from jinja2.exceptions import TemplateError

from depo.policies.base import Exchange, Reply, parse_reply
from depo.records import content_hash

_PROBES = ("first probe", "Thought: a probe.\nAction: probe", "second probe", "Thought: b.\nAction: c")


class ChatRenderer:
    """Renders agent contexts for one tokenizer.

    Raises `ValueError` where the tokenizer has no chat template, or one whose prefix changes as
    the conversation grows (for instance one that drops earlier thoughts).
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"{_name(tokenizer)}: the tokenizer has no chat template; use a chat model or set one"
            )
        self.tokenizer = tokenizer
        self._system_role = self._takes_system()
        self._check_prefix_stable()
        self._core = self._find_core()
        self.end_of_turn: int = self._ids(self._after_reply("probe"))[0]
        """Id with which the agent ends a turn."""
        self.fingerprint: str = content_hash([tokenizer.chat_template, sorted(tokenizer.get_vocab().items())])
        self.first = lru_cache(maxsize=4096)(self._first)
        self.following = lru_cache(maxsize=65536)(self._following)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ChatRenderer, (self.tokenizer,))

    def _first(self, system: str, observation: str) -> tuple[int, ...]:
        """Ids up to where the agent's first reply begins."""
        return self._ids(self._render(self._opening(system, observation), generate=True))

    def _following(self, observation: str) -> tuple[int, ...]:
        """Ids between a reply's end-of-turn and the beginning of the next reply."""
        return self._ids(self._after_reply(observation))[1:]

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of a reply given as text, end-of-turn included."""
        return (*self._ids(text), self.end_of_turn)

    def reply_ids(self, reply: Reply) -> tuple[int, ...]:
        """Ids of a reply as the policy made them, or of its text where it has none."""
        return reply.token_ids or self.reply(reply.text)

    def context(self, system: str, history: tuple[Exchange, ...], observation: str) -> tuple[int, ...]:
        """Ids up to where the agent's next reply begins."""
        if not history:
            return self.first(system, observation)
        ids = list(self.first(system, history[0].observation))
        for exchange, seen in zip(history, [*(e.observation for e in history[1:]), observation], strict=True):
            ids += self.closed(self.reply_ids(exchange.reply))
            ids += self.following(seen)
        return tuple(ids)

    def closed(self, reply_ids: tuple[int, ...]) -> tuple[int, ...]:
        """A reply's ids with end-of-turn; one cut by the token limit lacks it."""
        if reply_ids and reply_ids[-1] == self.end_of_turn:
            return reply_ids
        return (*reply_ids, self.end_of_turn)

    def text(self, reply_ids: tuple[int, ...]) -> str:
        """The text of a reply, without end-of-turn."""
        if reply_ids and reply_ids[-1] == self.end_of_turn:
            reply_ids = reply_ids[:-1]
        return self.tokenizer.decode(list(reply_ids), skip_special_tokens=True)

    def read(self, reply_ids: tuple[int, ...], input_tokens: int, logprob: float | None = None) -> Reply:
        """The reply that generated ids spell."""
        text = self.text(reply_ids)
        thought, action, malformed = parse_reply(text)
        closing = bool(reply_ids) and reply_ids[-1] == self.end_of_turn
        return Reply(
            text=text,
            thought=thought,
            action=action,
            malformed=malformed,
            num_tokens=len(reply_ids) - closing,
            token_ids=reply_ids,
            logprob=logprob,
            input_tokens=input_tokens,
        )

    def _opening(self, system: str, observation: str) -> list[dict[str, str]]:
        if self._system_role and system:
            return [{"role": "system", "content": system}, {"role": "user", "content": observation}]
        content = f"{system}\n\n{observation}" if system else observation
        return [{"role": "user", "content": content}]

    def _after_reply(self, observation: str) -> str:
        """What the template puts after a reply's text, up to the next reply."""
        messages, before = self._before
        after = self._render([*messages, {"role": "user", "content": observation}], generate=True)
        if not after.startswith(before):
            raise ValueError(self._unstable())
        return after[len(before) :]

    @cached_property
    def _before(self) -> tuple[list[dict[str, str]], str]:
        """A conversation up to and with a reply, and how the template renders it."""
        messages = [*self._opening("", _PROBES[0]), {"role": "assistant", "content": _PROBES[1]}]
        return messages, self.tokenizer.apply_chat_template(
            messages, tokenize=False, continue_final_message=True
        )

    def _check_prefix_stable(self) -> None:
        opening = self._opening("a system", _PROBES[0])
        pieces = self._render(opening, generate=True) + _PROBES[1] + self._after_reply(_PROBES[2])
        pieces += _PROBES[3] + self._after_reply("end")
        whole = [
            *opening,
            {"role": "assistant", "content": _PROBES[1]},
            {"role": "user", "content": _PROBES[2]},
            {"role": "assistant", "content": _PROBES[3]},
            {"role": "user", "content": "end"},
        ]
        if pieces != self._render(whole, generate=True):
            raise ValueError(self._unstable())

    def _unstable(self) -> str:
        return (
            f"{_name(self.tokenizer)}: the chat template renders a past turn differently once the "
            "conversation goes on; set a template that leaves earlier turns as they were"
        )

    def _takes_system(self) -> bool:
        messages = [{"role": "system", "content": _PROBES[0]}, {"role": "user", "content": _PROBES[2]}]
        try:
            return _PROBES[0] in self._render(messages, generate=True)  # some drop it in silence
        except TemplateError:
            return False

    def _render(self, messages: list[dict[str, str]], generate: bool) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)

    def _ids(self, text: str) -> tuple[int, ...]:
        # The tokenizer's own core takes half the time, and is what most of a context's time goes to.
        core = self._core
        if core is not None and core.truncation is None and core.padding is None:
            return tuple(core.encode(text, add_special_tokens=False).ids)
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _find_core(self) -> Any:
        """The tokenizer's core, where it is one in Rust and adds nothing to it; else None."""
        if not self.tokenizer.is_fast:
            return None
        core, probe = self.tokenizer.backend_tokenizer, "".join(_PROBES) + self._after_reply(_PROBES[2])
        same = (
            core.encode(probe, add_special_tokens=False).ids
            == self.tokenizer(probe, add_special_tokens=False)["input_ids"]
        )
        return core if same else None


def no_room(input_tokens: int) -> Reply:
    """What stands for a reply where the context leaves no room for one: nothing, malformed."""
    return Reply("", "", "", malformed=True, num_tokens=0, input_tokens=input_tokens)


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or "tokenizer"
