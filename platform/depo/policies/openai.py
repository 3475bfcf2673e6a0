"""Replies from an OpenAI-compatible chat endpoint."""

from __future__ import annotations

import ipaddress
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx

from depo.config.base import ConfigError
from depo.config.schema import OpenAIConfig
from depo.policies.base import Reply, Request, parse_reply
from depo.policies.chat import no_room

_RETRIED = {408, 409, 429}
_FORBIDDEN = {401, 403}
_LONGEST_PAUSE_S = 60.0
_UNANSWERABLE = {"context_length_exceeded", "content_filter"}


class EndpointError(RuntimeError):
    """The endpoint did not answer, or not with a completion."""


def require_key(config: OpenAIConfig) -> str:
    """The endpoint's key from the environment; empty where none is set and the endpoint is local.

    Raises `ConfigError` naming the variable where a key is missing or cannot be one.
    """
    key = os.environ.get(config.api_key_env, "").strip()
    if not key and not _on_this_machine(config.base_url):
        raise ConfigError(
            f"api_key_env: the environment variable {config.api_key_env} is not set; "
            f"export it with the key for {config.base_url}"
        )
    if not key.isascii() or not all(character.isprintable() for character in key):
        raise ConfigError(
            f"api_key_env: the environment variable {config.api_key_env} holds a line break or a "
            "character that no key has; export it anew"
        )
    return key


class OpenAIPolicy:
    """A chat model behind HTTP; its replies have a text and no token ids.

    Token counts are the endpoint's own (`usage`); where one answer holds several replies their
    sum is shared out evenly. The key is read from the environment and appears in no message.
    """

    tokenizer_fingerprint = ""

    def __init__(self, config: OpenAIConfig, name: str, backoff_s: float = 0.5) -> None:
        """`backoff_s` is the first pause before a retry; it doubles each time.

        Raises `ConfigError` where the key's variable holds no key, unless, unset, the endpoint is
        on this machine.
        """
        self.name = name
        self.config = config
        self._backoff_s = backoff_s
        self._jitter = random.Random()
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "config": self.config, "backoff_s": self._backoff_s}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def sample(self, requests: Sequence[Request]) -> list[list[Reply]]:
        """Replies to a batch, asked for with up to `concurrency` connections.

        A context that the endpoint calls too long, or filters, gets malformed, empty replies.
        Raises `EndpointError` when retries are used up or the endpoint refuses the request.
        """
        return list(self._pool.map(self._answer, requests))

    def close(self) -> None:
        """Close connections and threads."""
        self._pool.shutdown()
        self._client.close()

    def _open(self) -> None:
        config = self.config
        self._key = key = require_key(config)
        local = _on_this_machine(config.base_url)
        self._client = httpx.Client(
            trust_env=not local,
            timeout=config.timeout_s,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=config.concurrency),
        )
        self._pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="openai")
        self._jitter_lock = threading.Lock()

    def _answer(self, request: Request) -> list[Reply]:
        """`request.n` replies; endpoints that answer with fewer choices are asked again."""
        replies: list[Reply] = []
        while len(replies) < request.n:
            missing = replace(request, n=request.n - len(replies), seed=request.seed + len(replies))
            replies += self._complete(missing)
        return replies[: request.n]

    def _complete(self, request: Request) -> list[Reply]:
        body = {
            "model": self.config.model,
            "messages": messages(request),
            "n": request.n,
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "max_tokens": request.sampling.max_tokens,
            "seed": request.seed,
        }
        answer = self._post(body)
        if answer is None:
            return [no_room(0)] * request.n
        return _read(answer)

    def _post(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """The endpoint's answer to `body`; None where this one context cannot be answered."""
        url = f"{self.config.base_url.rstrip('/')}/chat/completions"
        problem = ""
        for attempt in range(self.config.retries + 1):
            wanted_pause = 0.0
            try:
                response = self._client.post(url, json=body)
            except httpx.TransportError as error:
                problem = self._without_key(f"{type(error).__name__}: {error}")
            else:
                if response.is_success:
                    answer = _completion(response)
                    if answer is not None:
                        return answer
                    problem = "the answer is not a chat completion"
                elif response.status_code in _RETRIED or response.status_code >= 500:
                    problem = f"HTTP {response.status_code}"
                    wanted_pause = _retry_after(response)
                elif _error_code(response) in _UNANSWERABLE:
                    return None
                else:
                    refusal = self._without_key(_message(response))[:200]
                    if response.status_code in _FORBIDDEN:
                        refusal += f" (check the key in {self.config.api_key_env})"
                    raise EndpointError(f"{url}: HTTP {response.status_code}: {refusal}")
            if attempt < self.config.retries:
                self._pause(attempt, wanted_pause)
        raise EndpointError(f"{url}: no answer after {self.config.retries + 1} tries; the last: {problem}")

    def _without_key(self, text: str) -> str:
        """`text` without the key, which an endpoint or a library may quote."""
        return text.replace(self._key, "***") if self._key else text

    def _pause(self, attempt: int, at_least: float) -> None:
        with self._jitter_lock:
            spread = self._jitter.uniform(0.5, 1.0)
        longest = min(self._backoff_s * 2**attempt, _LONGEST_PAUSE_S)
        time.sleep(max(at_least, spread * longest))


def messages(request: Request) -> list[dict[str, str]]:
    """The conversation of `request` as chat messages."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    past = [
        message
        for exchange in request.history
        for message in (
            {"role": "user", "content": exchange.observation},
            {"role": "assistant", "content": exchange.reply.text},
        )
    ]
    return [*system, *past, {"role": "user", "content": request.observation}]


def _read(answer: dict[str, Any]) -> list[Reply]:
    usage = answer.get("usage") or {}
    choices = answer["choices"]
    total = int(usage.get("completion_tokens") or 0)
    replies = []
    for i, choice in enumerate(choices):
        text = choice["message"].get("content") or ""
        thought, action, malformed = parse_reply(text)
        share = total // len(choices) + (i < total % len(choices))
        replies.append(
            Reply(
                text=text,
                thought=thought,
                action=action,
                malformed=malformed,
                num_tokens=share,
                input_tokens=int(usage.get("prompt_tokens") or 0),
            )
        )
    return replies


def _completion(response: httpx.Response) -> dict[str, Any] | None:
    """The body of a chat completion with at least one choice; None for anything else."""
    try:
        answer = response.json()
    except ValueError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        return None
    choices = answer["choices"]
    if not choices or not all(isinstance(c, dict) and isinstance(c.get("message"), dict) for c in choices):
        return None
    return answer


def _error(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) else {}


def _error_code(response: httpx.Response) -> str:
    return str(_error(response).get("code") or "")


def _message(response: httpx.Response) -> str:
    return str(_error(response).get("message") or response.reason_phrase)


def _retry_after(response: httpx.Response) -> float:
    """Seconds that the endpoint asks to wait; dates are not read."""
    try:
        return min(max(0.0, float(response.headers.get("Retry-After", 0))), _LONGEST_PAUSE_S)
    except ValueError:
        return 0.0


def _on_this_machine(base_url: str) -> bool:
    host = httpx.URL(base_url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
