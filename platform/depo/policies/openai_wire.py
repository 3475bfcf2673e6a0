"""What goes over the wire to an OpenAI-compatible endpoint, and what its answers mean; no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from depo.config.endpoint import PriceConfig
from depo.policies.base import Exchange, Reply, Request, parse_reply, without_reasoning
from depo.policies.chat import ChatRenderer
from depo.policies.prices import Cost, estimated_tokens, money

_RETRIED = {408, 409, 429}
_ONE_REQUEST = {400, 413, 422}
_LONGEST_WAIT_S = 600.0
_UNANSWERABLE = {"context_length_exceeded", "string_above_max_length"}
_TOO_LONG = re.compile(
    r"(maximum|max\w*) (context|model|input) length|context (length|window|size)|too many tokens"
)
_FILTERED = "content_filter"
_NO_MODEL = re.compile(r"model\b.{0,80}\b(not exist|does not exist|not found|not supported)", re.IGNORECASE)
_HOPELESS = {"insufficient_quota", "billing_hard_limit_reached", "model_not_found"}
_LONGEST_MESSAGE = 10_000
_TOO_MANY = 2**31
_TURN_BYTES = 64
"""Room for the tokens that a chat template puts around a message."""


@dataclass(frozen=True)
class Completed:
    """A completion with at least one choice."""

    body: dict[str, Any]


@dataclass(frozen=True)
class Failed:
    """A try that may do better next time."""

    problem: str
    pause_s: float | None = None
    """What the endpoint asks to be left alone for."""
    lost: bool = False
    """The endpoint may have done, and billed, the work."""
    unreachable: bool = False


@dataclass(frozen=True)
class Unanswerable:
    """This one context is too long."""

    problem: str


@dataclass(frozen=True)
class Filtered:
    """The endpoint holds this one back; others may well pass."""

    problem: str


@dataclass(frozen=True)
class Refused:
    """An answer that no retry mends."""

    problem: str
    final: bool
    """It would be the same for every other request."""


Outcome = Completed | Failed | Unanswerable | Filtered | Refused


@dataclass(frozen=True)
class Ask:
    """One HTTP request for `n` replies."""

    path: str
    body: bytes
    n: int
    prompt_tokens: int
    """An estimate, unless the prompt is token ids."""
    most_prompt_tokens: int
    """As many as there can be: a token has at least one byte."""
    most_tokens: int
    """Generated, all replies together."""


def chat_ask(request: Request, model: str, options: Mapping[str, Any]) -> Ask:
    """The request as chat messages."""
    said = messages(request)
    size = sum(len(message["content"].encode()) for message in said)
    size += _TURN_BYTES * (len(said) + 1)
    body = {"model": model, "messages": said, **_drawn(request)}
    most = request.n * request.sampling.max_tokens
    return Ask("chat/completions", _encoded(body, options), request.n, estimated_tokens(size), size, most)


def ids_ask(request: Request, model: str, options: Mapping[str, Any], renderer: ChatRenderer) -> Ask:
    """The request as token ids, for a vLLM server: what was generated is what goes in again."""
    history = tuple(_sendable(exchange) for exchange in request.history)
    ids = renderer.context(_valid(request.system), history, _valid(request.observation))
    body = {
        "model": model,
        "prompt": list(ids),
        **_drawn(request),
        "stop_token_ids": sorted(renderer.ends),
        "return_token_ids": True,
    }
    most = request.n * request.sampling.max_tokens
    return Ask("completions", _encoded(body, options), request.n, len(ids), len(ids), most)


def messages(request: Request) -> list[dict[str, str]]:
    """The conversation of `request` as chat messages."""
    said = [("system", request.system)] if request.system else []
    for exchange in request.history:
        said += [("user", exchange.observation), ("assistant", without_reasoning(exchange.reply.text))]
    said.append(("user", request.observation))
    return [{"role": role, "content": _valid(content)} for role, content in said]


def outcome(status: int, headers: Mapping[str, str], data: bytes, with_ids: bool) -> Outcome:
    """What an HTTP answer means. `headers` find a name whatever its case; `with_ids`: token ids are due."""
    body = _decoded(data)
    if 200 <= status < 300:
        if not _has_choices(body):
            return Failed("the answer is not a completion", lost=True)
        if with_ids and not all(_are_ids(choice.get("token_ids")) for choice in body["choices"]):
            return Refused("no token ids come back, as from vLLM; leave `tokenizer` out", final=True)
        if with_ids or all(isinstance(choice.get("message"), dict) for choice in body["choices"]):
            return Completed(body)
        return Failed("the answer is not a chat completion", lost=True)
    code, message = _error(body)
    problem = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if status < 500 and (code in _HOPELESS or _NO_MODEL.search(message)):
        return Refused(problem, final=True)
    if status in _RETRIED or status >= 500:
        return Failed(problem, retry_after(headers))
    if code in _UNANSWERABLE or (status in _ONE_REQUEST and _TOO_LONG.search(message.lower())):
        return Unanswerable(problem)
    if code == _FILTERED:
        return Filtered(problem)
    return Refused(problem, final=status not in _ONE_REQUEST)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait, ten minutes at the most; a date is read by its clock."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return min(float(text), _LONGEST_WAIT_S)
    wanted = _date(text)
    if wanted is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return min(max(0.0, (wanted - now).total_seconds()), _LONGEST_WAIT_S)


def filtered(body: Mapping[str, Any]) -> bool:
    """Whether the endpoint held back, or cut, a reply of a completion by its own rules."""
    return any(choice.get("finish_reason") == _FILTERED for choice in body["choices"])


def cost(body: Mapping[str, Any], ask: Ask, price: PriceConfig | None) -> Cost:
    """What a completion came to: the endpoint's own counts, else one token every four bytes."""
    usage = body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    prompt, tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    estimated = prompt is None or tokens is None
    if prompt is None:
        prompt = ask.prompt_tokens
    if tokens is None:
        tokens = sum(_generated(choice) for choice in body["choices"])
    tokens += _uncounted_reasoning(usage, prompt, tokens)
    cached = (
        _detail(usage, "prompt_tokens_details", "cached_tokens")
        or _count(usage.get("prompt_cache_hit_tokens"))
        or 0
    )
    cached = min(cached, prompt)
    return Cost(prompt, tokens, money(price, prompt, cached, tokens), cached, estimated)


def read(body: Mapping[str, Any], n: int, spent: Cost, renderer: ChatRenderer | None) -> list[Reply]:
    """The first `n` replies of a completion, or fewer; what all of it cost is shared out among them."""
    choices = sorted(body["choices"], key=lambda choice: _count(choice.get("index")) or 0)[:n]
    share, rest = divmod(spent.tokens, len(choices))
    replies = []
    for i, choice in enumerate(choices):
        if renderer is not None:
            reply = renderer.read(tuple(choice["token_ids"]), spent.prompt_tokens)
        else:
            text = _text(choice)
            tokens = share + (i < rest)
            reply = Reply(text, *parse_reply(text), num_tokens=tokens, input_tokens=spent.prompt_tokens)
        replies.append(replace(reply, money=spent.money / len(choices)))
    return replies


def _drawn(request: Request) -> dict[str, Any]:
    return {
        "n": request.n,
        "temperature": request.sampling.temperature,
        "top_p": request.sampling.top_p,
        "max_tokens": request.sampling.max_tokens,
        "seed": request.seed,
    }


def _sendable(exchange: Exchange) -> Exchange:
    reply = replace(exchange.reply, text=_valid(exchange.reply.text))
    return Exchange(_valid(exchange.observation), reply)


def _valid(text: str) -> str:
    """`text` with a question mark for each lone surrogate, which no request or file can hold."""
    return text.encode(errors="replace").decode()


def _encoded(body: Mapping[str, Any], options: Mapping[str, Any]) -> bytes:
    return json.dumps({k: v for k, v in {**body, **options}.items() if v is not None}).encode()


def _decoded(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _has_choices(body: Any) -> bool:
    choices = body.get("choices") if isinstance(body, dict) else None
    return isinstance(choices, list) and bool(choices) and all(isinstance(c, dict) for c in choices)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(_count(i) is not None for i in value)


def _text(choice: Mapping[str, Any]) -> str:
    """What a choice says, its reasoning before it in a `<think>` block, which stays open where the reply was
    cut in it; nothing where that is no text."""
    message = choice["message"]
    content, reasoning = (
        _plain(next((message[key] for key in keys if message.get(key)), ""))
        for keys in (("content",), ("reasoning_content", "reasoning"))
    )
    if not reasoning.strip() or without_reasoning(content) != content:
        return content
    return f"<think>\n{reasoning}\n</think>\n\n{content}" if content.strip() else f"<think>\n{reasoning}"


def _plain(content: Any) -> str:
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return _valid(content) if isinstance(content, str) else ""


def _uncounted_reasoning(usage: Mapping[str, Any], prompt: int, tokens: int) -> int:
    """Reasoning tokens that an endpoint reports beside its completion tokens, not among them."""
    reasoning = _detail(usage, "completion_tokens_details", "reasoning_tokens") or 0
    total = _count(usage.get("total_tokens"))
    apart = reasoning > tokens if total is None else total >= prompt + tokens + reasoning
    return reasoning if apart else 0


def _detail(usage: Mapping[str, Any], group: str, name: str) -> int | None:
    details = usage.get(group)
    return _count(details.get(name)) if isinstance(details, dict) else None


def _generated(choice: Mapping[str, Any]) -> int:
    """Tokens of a choice, for an endpoint that does not report them; never none at all."""
    if _are_ids(choice.get("token_ids")):
        return len(choice["token_ids"])
    return max(1, estimated_tokens(len(_text(choice).encode())))


def _count(value: Any) -> int | None:
    """A whole number that can be a count or an id; None for anything else, as NaN or what no table holds."""
    return value if type(value) is int and 0 <= value < _TOO_MANY else None


def _error(body: Any) -> tuple[str, str]:
    """Code and message of an error, wherever the endpoint puts them; empty where it has none."""
    if not isinstance(body, dict):
        return "", ""
    error = body.get("error", body)
    if not isinstance(error, dict):
        return "", str(error)[:_LONGEST_MESSAGE]
    message = error.get("message") or error.get("detail") or ""
    text = message if isinstance(message, str) else json.dumps(message)
    return str(error.get("code") or ""), text[:_LONGEST_MESSAGE]


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
