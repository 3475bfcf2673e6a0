"""Conversations as token ids, built turn by turn from a tokenizer's chat template.

What a policy generated is kept as ids and never tokenised again, so a conversation's ids are the
template's own ids around them: `first`, a reply, `following`, a reply, ... . That needs a template
whose rendering of the past never changes as the conversation grows; others are refused here. System
prompts, observations and replies given as text are text: no control token comes of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from depo.config.base import ConfigError
from depo.policies.base import Exchange, Reply, Request, parse_reply, reply_parts
from depo.policies.tokens import TextEncoder
from depo.records import content_hash

TODAY = date(2024, 7, 26)
"""What a template that asks for today's date is told, so that ids are the same on every day."""

_SEEN = tuple(f"probe {number}" for number in range(6))
_SAID = (
    "Thought: a probe.\nAction: go",
    "Thought: It is b.\n\nSo c.\n\nAction:\n```\nturn left\n```",
    "**Thought:** d \u00e9\n**Action:** search[e]",
    "f",
    "Thought: g\nAction: h",
)
_REASONED = tuple(f"<think>\nprobe\n</think>\n\n{said}" for said in _SAID)

Messages = list[dict[str, str]]


class ChatRenderer:
    """Renders agent contexts for one tokenizer.

    Raises `ValueError`, with the reason in one line, where the tokenizer has no chat template, or one
    whose prefix changes as the conversation grows (for instance one that drops earlier thoughts), or
    whose end of a turn is ordinary text.
    """

    def __init__(
        self, tokenizer: Any, ends: Iterable[int] = (), options: Mapping[str, Any] | None = None
    ) -> None:
        """`ends` are ids that end a reply beside the template's end of a turn and the tokenizer's end of
        text; `options` are variables for the template."""
        if not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"{_name(tokenizer)}: the tokenizer has no chat template; use a chat model or set "
                "student.chat_template"
            )
        if not tokenizer.is_fast:
            raise ValueError(
                f"{_name(tokenizer)}: the tokenizer has no tokenizer.json, by which text can be told from "
                "control tokens; convert it"
            )
        self.tokenizer = tokenizer
        self.ends: frozenset[int] = frozenset()
        self._end_texts: tuple[str, ...] = ()
        self._template, self._options = _chosen_template(tokenizer), dict(options or {})
        self._encoder = TextEncoder(tokenizer, self._template)
        self._settle()
        if (spelt := self.text(self.reply(_SAID[0])[:-1])) != _SAID[0]:
            raise ValueError(
                f"{_name(tokenizer)}: the tokenizer gives {_SAID[0]!r} back as {spelt!r}; set "
                "tokenizer_class in its tokenizer_config.json to PreTrainedTokenizerFast"
            )
        own = {tokenizer.eos_token_id, *ends} - {None}
        self.ends = frozenset({self.end_of_turn, *own})
        """Ids that end a reply; in a conversation the template's end of a turn stands for each."""
        self._end_texts = tuple(text for text, i in self._encoder.control.items() if i in self.ends)
        harmless = {*self._encoder.think_marks, tokenizer.unk_token_id} - self.ends
        self.misplaced = frozenset(self._encoder.control.values()) - harmless
        """Ids that make a reply malformed where they stand inside it; a character unknown to the tokenizer
        is none."""
        dated = [TODAY.isoformat()] if "strftime_now" in self._template else []
        self.date: str = "".join(dated)
        """The date that the template is told; empty where it does not ask."""
        known = [tokenizer.chat_template, sorted(tokenizer.get_vocab().items()), *dated]
        self.fingerprint: str = content_hash([*known, self._options] if self._options else known)
        self.first = lru_cache(maxsize=4096)(self._first)
        self.following = lru_cache(maxsize=65536)(self._following)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ChatRenderer, (self.tokenizer, self.ends, self._options))

    def _first(self, system: str, observation: str) -> tuple[int, ...]:
        """Ids up to where the agent's first reply begins."""
        hide = self._encoder.hide
        asked = self._render(self._opening(hide(system), hide(observation)))
        return self._encoder.rendered(asked + self._prompt_end)

    def _following(self, observation: str) -> tuple[int, ...]:
        """Ids between a reply's end-of-turn and the beginning of the next reply."""
        after = self._after_reply(self._encoder.hide(observation)) + self._prompt_end
        return self._encoder.rendered(after)[1:]

    def reply(self, text: str) -> tuple[int, ...]:
        """Ids of a reply given as text, end-of-turn included; one that its text ends with is the same."""
        ended = True
        while ended:
            bare = text.rstrip()
            ended = bare.endswith(self._end_texts)
            if ended:
                text = bare.removesuffix(next(end for end in self._end_texts if bare.endswith(end)))
        text = text.strip() if self._trims else text
        # The marks of its own think block are what a model generates, and no others.
        marks = reply_parts(text).marks if self._encoder.think_marks else ()
        lead = self._lead if text and not self._prompt_end else ""
        return (*self._encoder.reply(text, self._before_reply, marks, lead), self.end_of_turn)

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

    def ended(self, reply_ids: Sequence[int]) -> bool:
        """Whether a reply's ids end with an end-of-turn; one cut by the token limit lacks it."""
        return bool(reply_ids) and reply_ids[-1] in self.ends

    def closed(self, reply_ids: tuple[int, ...]) -> tuple[int, ...]:
        """A reply's ids with the template's end-of-turn."""
        return (*(reply_ids[:-1] if self.ended(reply_ids) else reply_ids), self.end_of_turn)

    def text(self, reply_ids: tuple[int, ...]) -> str:
        """The text of a reply, without end-of-turn; control tokens inside it are seen."""
        ids = list(reply_ids[:-1] if self.ended(reply_ids) else reply_ids)
        text: str = self._encoder.decode(ids)
        return text if self._prompt_end else text.removeprefix(self._lead)

    def holds_control(self, reply_ids: tuple[int, ...]) -> bool:
        """Whether a control token stands inside a reply, which makes it malformed."""
        return not self.misplaced.isdisjoint(reply_ids[:-1] if self.ended(reply_ids) else reply_ids)

    def read(self, reply_ids: tuple[int, ...], input_tokens: int, logprob: float | None = None) -> Reply:
        """The reply that generated ids spell."""
        text = self.text(reply_ids)
        thought, action, malformed = parse_reply(text)
        if self.holds_control(reply_ids):
            thought, action, malformed = text.strip(), "", True
        return Reply(
            text=text,
            thought=thought,
            action=action,
            malformed=malformed,
            num_tokens=len(reply_ids) - self.ended(reply_ids),
            token_ids=reply_ids,
            logprob=logprob,
            input_tokens=input_tokens,
        )

    def _opening(self, system: str, observation: str) -> Messages:
        if self._system_role and system:
            return [{"role": "system", "content": system}, {"role": "user", "content": observation}]
        content = f"{system}\n\n{observation}" if system else observation
        return [{"role": "user", "content": content}]

    def _after_reply(self, observation: str) -> str:
        """What the template puts after a reply's text, up to the next reply."""
        begun = [*self._opening("", _SEEN[0]), {"role": "assistant", "content": _SAID[0]}]
        after = self._render([*begun, {"role": "user", "content": observation}])
        return after[len(self._past) :]

    def _settle(self) -> None:
        """Find out how the template lays out turns; raises `ValueError` where it cannot serve."""
        problem = ""
        for takes_system in [True, False] if self._takes_system() else [False]:
            self._system_role = takes_system
            try:
                problem = self._layout() or self._changes_the_past()
            except Exception as error:  # a template is a program of somebody else's
                first = (str(error).splitlines() or [""])[0]
                problem = f"fails on a plain conversation ({type(error).__name__}: {first})"
            if not problem:
                return
        raise ValueError(
            f"{_name(self.tokenizer)}: the chat template {problem}; set another by student.chat_template"
        )

    def _layout(self) -> str:
        """Find where replies begin and end; what is wrong with it, or nothing."""
        opening = self._opening("", _SEEN[0])
        asked, said = self._render(opening), {"role": "assistant", "content": _SAID[0]}
        whole = self._render([*opening, said, {"role": "user", "content": _SEEN[1]}])
        same = next((i for i, (a, b) in enumerate(zip(asked, whole, strict=False)) if a != b), len(asked))
        lead, found, after = whole[len(asked) :].partition(_SAID[0])
        if _SEEN[0] not in asked:
            return "leaves out or changes what a user says; it may want contents in parts"
        if same < asked.index(_SEEN[0]) + len(_SEEN[0]):
            return "renders a past turn differently once the conversation goes on"
        if same < len(asked):
            return f"ends a prompt with {asked[same:]!r}, which does not stand before a past reply"
        if not found:
            return "renders a past turn differently once the conversation goes on"
        if lead.strip():
            return f"puts {lead!r} before a past reply, which is no part of the prompt for a new one"
        self._lead, self._past = lead, asked + lead + _SAID[0]
        self.end_of_turn: int = self._encoder.rendered(after)[0]
        """Id with which the agent ends a turn."""
        if self.end_of_turn not in self._encoder.control.values():
            blanks = after[: len(after) - len(after.lstrip())]
            opens = after.partition(_SEEN[1])[0].lstrip()  # the next turn: then nothing ends this one
            if self._encoder.rendered(after.lstrip())[0] in self._encoder.control.values() and not (
                asked.partition(_SEEN[0])[0].endswith(opens)
            ):
                return f"puts {blanks!r} between a reply and the end of its turn, which replies lack"
            end = self.tokenizer.convert_ids_to_tokens(self.end_of_turn)
            return f"ends a turn with {end!r}, which is ordinary text and may stand inside a reply"
        padded = f" {_SAID[0]} \n"
        past = [*opening, {"role": "assistant", "content": padded}, {"role": "user", "content": _SEEN[1]}]
        self._trims = padded not in self._render(past)
        return self._place_lead(asked, after)

    def _place_lead(self, asked: str, after: str) -> str:
        """Give the blanks before a reply to the prompt, or, where the tokenizer itself puts them before a
        word, to the reply; what is wrong with both, or nothing."""
        encode, decode = self._encoder.rendered, self._encoder.decode
        whole = list(encode(self._past + after))
        cut = max((asked.rfind(text) for text in self._encoder.control), default=0)
        for alike in (list, decode):  # the template's own ids, or at least its text
            for prompt_end in dict.fromkeys([self._lead, ""]):
                self._prompt_end = prompt_end
                self._before_reply = asked[max(cut, 0) :] + self._prompt_end
                lead = "" if self._prompt_end else self._lead
                said = self._encoder.reply(_SAID[0], self._before_reply, lead=lead)
                if alike([*encode(asked + self._prompt_end), *said, *encode(after)]) == alike(whole):
                    return ""
        return "makes other text of turns tokenised one by one than of the whole"

    def _changes_the_past(self) -> str:
        """How the rendering of earlier turns changes as a conversation grows, or nothing."""
        for said in (_SAID, _REASONED):
            for system in ("", "a system"):
                messages = self._opening(system, _SEEN[0])
                pieces = self._render(messages)
                for seen, reply in zip(_SEEN[1:], said, strict=True):
                    messages = [*messages, {"role": "assistant", "content": reply}]
                    messages.append({"role": "user", "content": seen})
                    pieces += self._lead + reply + self._after_reply(seen)
                whole = self._render(messages)
                if pieces != whole:
                    if said is _REASONED:
                        return "drops or changes <think> blocks of past turns"
                    if _SEEN[0] not in whole:
                        return "leaves out earlier turns once the conversation is long"
                    if lost := [reply for reply in said if reply in pieces and reply not in whole]:
                        return f"cuts or changes the past reply {lost[0]!r}"
                    return "renders a past turn differently once the conversation goes on"
        return ""

    def _takes_system(self) -> bool:
        user = {"role": "user", "content": _SEEN[1]}
        text = ""
        try:
            text = self._render([{"role": "system", "content": _SEEN[0]}, user])
            if _SEEN[0] not in text:  # some drop it in silence
                return False
            return text != self._render([{"role": "assistant", "content": _SEEN[0]}, user])
        except Exception:
            return _SEEN[0] in text

    def _render(self, messages: Messages) -> str:
        options = {"strftime_now": TODAY.strftime, **self._options}
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **options
        )
        return text


def _chosen_template(tokenizer: Any) -> str:
    """The template for plain conversations; some tokenizers have several."""
    try:
        template: str = tokenizer.get_chat_template()
    except ValueError as error:
        raise ValueError(f"{_name(tokenizer)}: {str(error).splitlines()[0]}") from None
    return template


def require_room(request: Request, input_tokens: int, limit: int) -> bool:
    """Whether a context of `limit` tokens holds these and a reply.

    False only where the policy has had a turn, so that it is its own doing. Raises `ConfigError` where no
    reply could ever be so long, and `ValueError` where the task's first observation is too long: then
    nobody has failed.
    """
    most = request.sampling.max_tokens
    if most >= limit:
        raise ConfigError(
            f"max_tokens: replies of {most} tokens leave no room in a context of {limit}; lower it, or raise "
            "student.max_length (runtime.generation.vllm.max_model_len)"
        )
    if input_tokens + most > limit and not request.history:
        raise ValueError(
            f"the task begins with {input_tokens} tokens, which leave no room for a reply of {most} in a "
            f"context of {limit}: raise student.max_length"
        )
    return input_tokens + most <= limit


def no_room(input_tokens: int) -> Reply:
    """What stands for a reply where the turns so far leave no room for one: nothing, malformed."""
    return Reply("", "", "", malformed=True, num_tokens=0, input_tokens=input_tokens)


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or "tokenizer"
