"""Text as token ids: what comes from outside is text, whatever it spells."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tokenizers import AddedToken, Tokenizer

_MARKER = re.compile(r"<[|｜].*[|｜]>|<unused\d+>|\[@.*@\]", re.DOTALL)
_THINK = re.compile(r"</?(?:think|thinking|thought|reasoning)>|\[/?THINK\]", re.IGNORECASE)


class TextEncoder:
    """A tokenizer that knows its control tokens by secret names, so that no text spells one.

    Control tokens are the special ones, and added ones that the chat template writes, that look like
    `<|this|>` or that enclose thoughts; other added tokens (runs of blanks, tags) are ordinary text. A text
    with the secret names is made for each rendering, and read by a copy of the tokenizer that shares its
    model: ids, merges and the trimming around control tokens are the tokenizer's own.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        core = tokenizer.backend_tokenizer
        added: dict[int, AddedToken] = core.get_added_tokens_decoder()
        self.control = {
            token.content: number
            for number, token in added.items()
            if token.content.strip()
            and (
                token.special
                or _THINK.fullmatch(token.content)
                or token.content in tokenizer.all_special_tokens
                or token.content in template
                or _MARKER.fullmatch(token.content)
            )
        }
        """Text of each control token to its id."""
        self.think_marks = frozenset(i for text, i in self.control.items() if _THINK.fullmatch(text))
        """Ids of control tokens that enclose a thought: they may stand inside a reply."""
        self.decode = partial(core.decode, skip_special_tokens=False)
        key = secrets.token_hex(8)  # nobody who writes an observation can know it
        names = {text: f"\ue000{key}{number:x}\ue001" for text, number in self.control.items()}
        hidden = {text: f"\ue002{key}{number:x}\ue001" for text, number in self.control.items()}
        shown = {name: text for text, name in hidden.items()}
        any_control = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or r"(?!)"
        self._names, self._key, self._anchor = names, f"\ue002{key}", next(iter(names.values()), "")
        self._hide = partial(re.compile(any_control).sub, lambda found: hidden[found[0]])
        self._name = partial(re.compile(any_control).sub, lambda found: names[found[0]])
        self._show = partial(re.compile(f"{self._key}[0-9a-f]+\ue001").sub, lambda found: shown[found[0]])
        self._core = Tokenizer(core.model)
        _take_parts(self._core, core)
        if any(number in self._core.encode(text).ids for text, number in self.control.items()):
            self._core = _renamed(core, names)
        self._core.add_tokens([_named(token, names) for _, token in sorted(added.items())])
        self._theirs = {
            self._core.token_to_id(names.get(token.content, token.content)): number
            for number, token in added.items()
        }

    def hide(self, text: str) -> str:
        """`text` from outside, to be put into a template: nothing in it is taken for the template's own."""
        return self._hide(text)

    def rendered(self, text: str) -> tuple[int, ...]:
        """Ids of a rendered template whose contents were hidden."""
        named = self._name(text)
        return self._ids(self._show(named) if self._key in named else named)

    def reply(
        self, text: str, before: str = "", marks: Sequence[tuple[int, int]] = (), lead: str = ""
    ) -> tuple[int, ...]:
        """Ids of a reply's text behind the end of its prompt and the blanks `lead`; what stands at `marks`,
        of a think block, is a token where there is such."""
        for start, end in reversed(marks):
            text = text[:start] + self._names.get(text[start:end], text[start:end]) + text[end:]
        text, context = lead + text, self._name(before)
        opening, whole = self._ids(context), self._ids(context + text)
        if whole[: len(opening)] == opening:
            return whole[len(opening) :]
        # A token holds the prompt's end and the reply's beginning. Some tokenizers put a blank before a word
        # that begins a text, but not behind a control token.
        alone = self._ids(text)
        behind = self._ids(self._anchor + text)[1:]
        spelt = self.decode(list(whole))
        return (
            behind if self.decode([*opening, *alone]) != spelt == self.decode([*opening, *behind]) else alone
        )

    def _ids(self, text: str) -> tuple[int, ...]:
        theirs = self._theirs
        try:
            found = self._core.encode(text, add_special_tokens=False)
        except TypeError:  # a lone surrogate, which no tokenizer takes
            text = text.encode(errors="replace").decode()
            found = self._core.encode(text, add_special_tokens=False)
        return tuple(theirs.get(i, i) for i in found.ids)


def _take_parts(copy: Tokenizer, core: Tokenizer) -> None:
    for part in ("normalizer", "pre_tokenizer"):
        if getattr(core, part) is not None:
            setattr(copy, part, getattr(core, part))


def _renamed(core: Tokenizer, names: Mapping[str, str]) -> Tokenizer:
    """A copy whose model knows control tokens by their secret names only; added ones are still to come.

    For models that make them of text themselves, as SentencePiece's unigram, in whose vocabulary they are.
    """
    state = json.loads(core.to_str())
    model = state["model"]
    if isinstance(model["vocab"], list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    if model.get("unk_token"):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
        model["merges"] = [list(p) for p in pairs if not names.keys() & {*p, "".join(p)}]
    return Tokenizer.from_str(
        json.dumps(state | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None})
    )


def _named(token: AddedToken, names: dict[str, str]) -> AddedToken:
    if token.content not in names:
        return AddedToken(
            token.content, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
            normalized=token.normalized,
        )  # fmt: skip
    return AddedToken(names[token.content], lstrip=token.lstrip, rstrip=token.rstrip, normalized=False)
