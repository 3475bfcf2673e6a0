"""Text as token ids: what comes from outside is text, whatever it spells."""

from __future__ import annotations

import re
import secrets
from functools import partial
from typing import Any

from tokenizers import AddedToken, Tokenizer

_MARKER = re.compile(r"<[|｜].*[|｜]>|<unused\d+>|\[@.*@\]", re.DOTALL)
_THINK = re.compile(r"</?(?:think|thinking|thought|reasoning)>|\[/?THINK\]", re.IGNORECASE)


class TextEncoder:
    """A tokenizer that knows its control tokens by secret names, so that no text spells one.

    Control tokens are the special ones, and added ones that the chat template writes or that look like
    `<|this|>`; other added tokens (runs of blanks, tags) are ordinary text. A text with the secret names
    is made for each rendering, and read by a copy of the tokenizer that shares its model: ids, merges and
    the trimming around control tokens are the tokenizer's own.
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
        self._names, self._key = names, f"\ue002{key}"
        self._hide = partial(re.compile(any_control).sub, lambda found: hidden[found[0]])
        self._name = partial(re.compile(any_control).sub, lambda found: names[found[0]])
        self._show = partial(re.compile(f"{self._key}[0-9a-f]+\ue001").sub, lambda found: shown[found[0]])
        self._core = Tokenizer(core.model)
        for part in ("normalizer", "pre_tokenizer"):
            if getattr(core, part) is not None:
                setattr(self._core, part, getattr(core, part))
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

    def reply(self, text: str, before: str = "", marked: int = 0) -> tuple[int, ...]:
        """Ids of a reply's text behind the end of its prompt; marks of a think block in its first `marked`
        characters are tokens where there are such."""
        marks = _THINK.sub(lambda found: self._names.get(found[0], found[0]), text[:marked])
        text = marks + text[marked:]
        context = self._name(before)
        opening, ids = self._ids(context), self._ids(context + text)
        return ids[len(opening) :] if ids[: len(opening)] == opening else self._ids(text)

    def _ids(self, text: str) -> tuple[int, ...]:
        theirs = self._theirs
        try:
            found = self._core.encode(text, add_special_tokens=False)
        except TypeError:  # a lone surrogate, which no tokenizer takes
            text = text.encode(errors="replace").decode()
            found = self._core.encode(text, add_special_tokens=False)
        return tuple(theirs.get(i, i) for i in found.ids)


def _named(token: AddedToken, names: dict[str, str]) -> AddedToken:
    if token.content not in names:
        return AddedToken(
            token.content, single_word=token.single_word, lstrip=token.lstrip, rstrip=token.rstrip,
            normalized=token.normalized,
        )  # fmt: skip
    return AddedToken(names[token.content], lstrip=token.lstrip, rstrip=token.rstrip, normalized=False)
