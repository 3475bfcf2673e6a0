"""The contract between search and whatever proposes the agent's next step."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 64
    structured: bool = False
    """Only replies of the form `Thought: ...`, `Action: ...` can be drawn; for vLLM and the teacher."""


@dataclass(frozen=True)
class Reply:
    """One Thought + Action proposed by a policy."""

    text: str
    thought: str
    action: str
    malformed: bool
    num_tokens: int
    """Generated tokens, end-of-turn excluded."""
    token_ids: tuple[int, ...] = ()
    """Generated ids, end-of-turn included; empty where the policy has no tokenizer."""
    logprob: float | None = None
    input_tokens: int = 0
    money: float = 0.0
    """What the reply cost, by the configured prices."""


@dataclass(frozen=True)
class Exchange:
    """A past turn: the observation and the reply given to it."""

    observation: str
    reply: Reply


@dataclass(frozen=True)
class Request:
    """One agent context for which `n` replies are wanted."""

    system: str
    history: tuple[Exchange, ...]
    observation: str
    n: int
    sampling: Sampling
    seed: int
    """Equal requests with equal seeds get equal replies from a deterministic policy."""
    env: Any = None
    """The live `TextEnv` of the search. Scripted policies read it and leave it as it was; engines
    ignore it."""
    state: Any = None
    """The snapshot of `env` that is asked about; None where `env` is in that state."""
    id: int = 0
    """Which request of its search this is."""


@dataclass(frozen=True)
class Answer:
    """What came of one submitted request: its `n` replies, or the error that it alone met."""

    key: Hashable
    replies: list[Reply] = field(default_factory=list)
    error: Exception | None = None


@dataclass
class Usage:
    """What a policy has done since it was made."""

    requests: int = 0
    prompt_tokens: int = 0
    tokens: int = 0
    """Generated ones."""
    money: float = 0.0
    seconds: float = 0.0
    """Spent in the engine itself, or waiting for it."""

    def count(self, replies: Sequence[Reply]) -> None:
        """Add one answered request; its context is counted once, for all its replies."""
        self.requests += 1
        self.prompt_tokens += max((reply.input_tokens for reply in replies), default=0)
        self.tokens += sum(reply.num_tokens for reply in replies)
        self.money += sum(reply.money for reply in replies)


class EngineDead(RuntimeError):
    """The engine behind a policy is gone. Make a new one, and ask again what was in flight."""


class BudgetSpent(RuntimeError):
    """A hard limit on tokens or money is reached: nothing more is asked, what is finished is kept."""


class Policy(Protocol):
    """Proposes replies, with as many requests in flight as its caller likes.

    The caller submits requests as they arise and collects answers as they come, in any order. What
    a reply is never depends on the other requests in flight. `submit` and `collect` raise
    `EngineDead` and `BudgetSpent`; what one request alone meets is its `Answer.error`.
    """

    name: str
    tokenizer_fingerprint: str
    """Identifies the tokenizer behind `Reply.token_ids`; empty where there is none."""
    usage: Usage

    def submit(self, key: Hashable, request: Request) -> None:
        """Take up `request`, to be answered under `key`. Does not wait for the answer."""
        ...

    def collect(self) -> list[Answer]:
        """What is answered by now. Waits for the first answer; empty only where nothing is in flight."""
        ...

    def withdraw(self, key: Hashable) -> None:
        """Forget a request in flight: its answer is not wanted any more."""
        ...

    def close(self) -> None: ...


def answer_all(policy: Policy, requests: Sequence[Request]) -> list[list[Reply]]:
    """The replies to each of `requests`, in order; raises what any of them met."""
    for key, request in enumerate(requests):
        policy.submit(key, request)
    replies: dict[Hashable, list[Reply]] = {}
    while len(replies) < len(requests):
        for answer in policy.collect():
            if answer.error is not None:
                raise answer.error
            replies[answer.key] = answer.replies
    return [replies[key] for key in range(len(requests))]


class Immediate:
    """The waiting list of a policy that answers at once: subclasses say how, in `reply`."""

    def __init__(self) -> None:
        self.usage = Usage()
        self._answers: dict[Hashable, Answer] = {}

    def reply(self, request: Request) -> list[Reply]:
        raise NotImplementedError

    def submit(self, key: Hashable, request: Request) -> None:
        try:
            self._answers[key] = Answer(key, self.reply(request))
        except (EngineDead, BudgetSpent):
            raise
        except Exception as error:
            self._answers[key] = Answer(key, error=error)
        self.usage.count(self._answers[key].replies)

    def collect(self) -> list[Answer]:
        answers = list(self._answers.values())
        self._answers.clear()
        return answers

    def withdraw(self, key: Hashable) -> None:
        self._answers.pop(key, None)

    def close(self) -> None:
        self._answers.clear()


_BLANK = r"[^\S\n]"
_LABEL = rf"(?:{_BLANK}*+\d++)?[*_`]*+{_BLANK}*+[:\uff1a]"
_ACTION = re.compile(
    rf"^(?P<marks>(?:{_BLANK}|[>#*_`~-])*+)action(?P<label>{_LABEL})(?P<rest>[^\n]*+)",
    re.IGNORECASE | re.MULTILINE,
)
_THOUGHT = re.compile(
    rf"\s*+(?:(?:```|~~~)\w*+{_BLANK}*+\n\s*+)?(?:(?P<marks>[>#*_`~-]*+{_BLANK}*+[*_`]*+)thought(?P<label>{_LABEL}[*_]*+))?",
    re.IGNORECASE,
)
_OPENS = re.compile(r"\s*+(<(?:think|thinking|thought|reasoning)>|\[THINK\])", re.IGNORECASE)
_CLOSES = re.compile(r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]", re.IGNORECASE)
_END = r"(?:<[|｜][^<>|｜\s]{1,64}[|｜]>|</s>|<eos>|<end_of_turn>)\s*+"
_ENDS = re.compile(rf"{_END}(?:{_END})?\Z")
_FENCE = re.compile(rf"^{_BLANK}*+(?:`{{3,}}+|~{{3,}}+)\w*+{_BLANK}*+$", re.MULTILINE)
_INPUT = re.compile(rf"^(?:{_BLANK}|[>#*_`~-])*+action{_BLANK}++input{_LABEL}", re.IGNORECASE | re.MULTILINE)
_AGAIN = re.compile(rf"action{_LABEL}\s*+(?=\S)", re.IGNORECASE)

Span = tuple[int, int]
"""Where something begins and ends in a text, in characters."""


@dataclass(frozen=True)
class ReplyParts:
    """Where the parts of a ReAct reply stand in its text."""

    thoughts: tuple[Span, ...]
    """The thought's own characters: of a `<think>` block, of what stands before the action, or of both.
    Of a malformed reply, what is not the beginning of an action."""
    line: int | None = None
    """Where the line of the action's label begins, with what marks it; None for a malformed reply."""
    action: Span = (0, 0)
    """The action's own characters, without a code fence or other marks around them."""
    marks: tuple[Span, ...] = ()
    """Where a well-formed reply's own `<think>` blocks are opened and closed."""


def reply_parts(text: str) -> ReplyParts:
    """Find thought and action in a reply, in time linear in its length.

    Well-formed is a thought followed by exactly one label `Action:` at the beginning of a line, with an
    action behind it or on the lines below. The labels may be emphasised or numbered, the action may
    stand in a code fence, and go on over several lines until its brackets close. A `<think>` block is
    thought, whatever it holds. An end-of-turn that was written out at the end is no part of it. Whatever
    could be read in two ways is malformed.
    """
    text = _ENDS.sub("", text)
    thoughts: list[Span] = []
    marks: list[Span] = []
    label = _THOUGHT.match(text)
    begin = _end(label)
    while opened := _OPENS.match(text, begin):
        closed = _CLOSES.search(text, opened.end())
        if closed is None:
            return ReplyParts(_filled(text, [*thoughts, (opened.end(), len(text))]))
        thoughts.append((opened.end(), closed.start()))
        marks += [opened.span(1), closed.span()]
        begin = closed.end()
    closed = _CLOSES.search(text, begin)
    if closed is not None and not thoughts:  # the prompt held the opening mark
        thoughts, begin = [(begin, closed.start())], closed.end()
        closed = _CLOSES.search(text, begin)
    start = begin if thoughts else 0
    labels = list(_ACTION.finditer(text[start:]))
    line = start + labels[0].start() if labels else len(text)
    if thoughts:
        label = _THOUGHT.match(text[start:])
        begin = min(line, start + _end(label))
    before = list(_FENCE.finditer(text, begin, line))
    if len(before) % 2 and not text[before[-1].end() : line].strip():
        line = before[-1].start()  # the fence that opens there holds the action's line
    spans = _filled(text, [*thoughts, _within(text, begin, line, label)])
    clear = len(labels) == 1 and closed is None and not _INPUT.search(text, line)
    action = _action(text, start, labels[0]) if clear else None
    if action is None:
        return ReplyParts(spans)
    return ReplyParts(spans, _trimmed(text, line, len(text))[0], action, tuple(marks))


def parse_reply(text: str) -> tuple[str, str, bool]:
    """Split a reply into (thought, action, malformed), as `reply_parts` finds them.

    An action over several lines is put on one. A malformed reply keeps its text as the thought and has
    an empty action.
    """
    parts = reply_parts(text)
    thought = "\n\n".join(text[start:end] for start, end in parts.thoughts)
    return thought, _on_one_line(text[slice(*parts.action)]), parts.line is None


def with_thought(text: str, thought: str) -> str:
    """The reply with another thought: its own characters are exchanged, all else stays as it was.

    A malformed reply, and one without a thought, come back unchanged.
    """
    parts = reply_parts(text)
    if parts.line is None:
        return text
    for number, (start, end) in reversed(list(enumerate(parts.thoughts))):
        text = text[:start] + ("" if number else thought) + text[end:]
    return text


def without_reasoning(text: str) -> str:
    """What a reply says behind its `<think>` blocks; all of it where none of them is closed."""
    closed = list(_CLOSES.finditer(text))
    return text[closed[-1].end() :].lstrip() if closed else text


def action_start(text: str) -> int | None:
    """Where the line of a well-formed reply's action begins (index in `text`); None for a malformed one."""
    return reply_parts(text).line


def format_reply(thought: str, action: str) -> str:
    """The ReAct text of a thought and an action, as `parse_reply` reads it."""
    return f"Thought: {thought}\nAction: {action}"


def _action(text: str, offset: int, label: re.Match[str]) -> Span | None:
    """The characters of the action behind a label found in `text[offset:]`; None where it is not clear."""
    start, end = _trimmed(text, offset + label.start("rest"), offset + label.end("rest"))
    marks = label["marks"].split()[-1:] if label["marks"][-1:].strip() else []
    mark = marks[0].lstrip(">#-") if marks else ""
    if mark and not any(c in label["label"] for c in mark):  # opened before the label and not closed there
        if text.startswith(mark, start):
            start = _trimmed(text, start + len(mark), end)[0]
        elif text.endswith(mark, start, end):
            start, end = _trimmed(text, start, end - len(mark))
    if start == end:
        start = _trimmed(text, offset + label.end(), len(text))[0]
        end = _trimmed(text, start, _line_end(text, start))[1]
    if again := _AGAIN.match(text, start, end):
        start = again.end()
    fenced = text.startswith(("```", "~~~"), start)
    if fenced:
        start, end = _fenced(text, start)
    last = _closing_line(text, start, end if fenced else len(text))
    if fenced and last < end:
        return None
    if not fenced and last > _line_end(text, start):
        end = last
    start, end = _trimmed(text, start, end)
    for mark in ("**", "`", "**"):
        inner = text[start:end].removeprefix(mark).removesuffix(mark)
        if end - start - len(inner) == 2 * len(mark) and mark not in inner:
            start, end = _trimmed(text, start + len(mark), end - len(mark))
    return (start, end) if start < end else None


def _within(text: str, start: int, end: int, label: re.Match[str] | None) -> Span:
    """A thought without the mark at its end that its label opened: "**Thought: near.**"."""
    start, end = _trimmed(text, start, end)
    opened = ((label["marks"] if label else None) or "").lstrip(">#~- \t")
    if (
        opened
        and not any(c in (label["label"] if label else "") for c in opened)
        and text.endswith(opened, start, end)
    ):
        end -= len(opened)
    return start, end


def _fenced(text: str, start: int) -> Span:
    """What stands in the code fence that begins at `start`; nothing where the fence is not closed."""
    mark = text[start : start + 3]
    start += len(text) - start - len(text[start:].lstrip(mark[0]))
    line_end = _line_end(text, start)
    if text.find(mark, start, line_end) < 0:  # the word behind the mark names a language
        start = line_end
    return _trimmed(text, start, max(start, text.find(mark, start)))


def _closing_line(text: str, start: int, end: int) -> int:
    """Where the line ends on which all brackets opened from `start` on are closed; else the first line."""
    first = at = min(_line_end(text, start), end)
    begin, depth = start, 0
    while True:
        line = text[begin:at]
        depth += sum(map(line.count, "([{")) - sum(map(line.count, ")]}"))
        if depth <= 0:
            return at
        if at >= end or not line.strip():
            return first
        begin, at = at + 1, min(_line_end(text, at + 1), end)


def _on_one_line(action: str) -> str:
    lines = [line.strip() for line in action.split("\n")]
    joined = " ".join(line for line in lines if line)
    return joined if len(lines) == 1 else re.sub(r"(?<=[(\[{]) | (?=[)\]}])", "", joined)


def _line_end(text: str, start: int) -> int:
    found = text.find("\n", start)
    return len(text) if found < 0 else found


def _trimmed(text: str, start: int, end: int) -> Span:
    """The part without the whitespace around it; where all is whitespace, nothing at its end."""
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return start, start + len(part.strip())


def _filled(text: str, spans: list[Span]) -> tuple[Span, ...]:
    """The spans that hold more than whitespace, without that around them."""
    trimmed = (_trimmed(text, *span) for span in spans)
    return tuple((start, end) for start, end in trimmed if start < end)


def _end(found: re.Match[str] | None) -> int:
    return found.end() if found else 0
