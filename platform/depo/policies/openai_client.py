"""Completions from an OpenAI-compatible endpoint over HTTP, with retries, limits and a bill."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from pydantic import SecretStr

from depo.config.base import ConfigError
from depo.config.endpoint import OpenAIConfig
from depo.policies.base import Reply, Request
from depo.policies.chat import ChatRenderer, no_room
from depo.policies.limits import Limiter
from depo.policies.openai_wire import (
    Ask,
    Completed,
    Failed,
    Filtered,
    Outcome,
    Refused,
    Unanswerable,
    chat_ask,
    cost,
    filtered,
    ids_ask,
    outcome,
    read,
)
from depo.policies.prices import Budget, Cost, EndpointUsage, dearest

_LONGEST_BACKOFF_S = 60.0
_LONGEST_CONNECT_S = 30.0
_LARGEST_ANSWER = 16 * 2**20
_LONGEST_PROBLEM = 300
_FAILURES_IN_A_ROW = 3
_FORBIDDEN = ("HTTP 401", "HTTP 403")

log = logging.getLogger(__name__)


class EndpointError(RuntimeError):
    """The endpoint is of no use any more: it refuses, cannot be reached, or fails again and again."""


class RequestFailed(EndpointError):
    """The endpoint did not answer this one request."""


@dataclass(eq=False)
class Call:
    """One request under way, and whether it may be given up without losing what may be billed."""

    request: Request
    wanted: bool = True
    on_wire: bool = field(default=False, init=False)


def require_key(config: OpenAIConfig) -> str:
    """The endpoint's key from the environment; empty where none is set and the endpoint is local.

    Raises `ConfigError` naming the variable where a key is missing or cannot be one.
    """
    key = os.environ.get(config.api_key_env, "").strip()
    if not key and not on_this_machine(config.base_url):
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


def on_this_machine(base_url: str) -> bool:
    """Whether the URL's host is the loopback interface."""
    host = httpx.URL(base_url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Client:
    """Answers requests, many at a time, on one event loop; `usage` is what it adds to."""

    def __init__(
        self,
        config: OpenAIConfig,
        key: SecretStr,
        share: float,
        usage: EndpointUsage,
        renderer: ChatRenderer | None,
        backoff_s: float,
    ) -> None:
        """`share` of the job's limits and budgets is this client's; `usage` counts against them."""
        self._config, self._key, self._usage, self._renderer = config, key, usage, renderer
        self._backoff_s = backoff_s
        self._price = config.prices.get(config.model)
        self._slots = asyncio.Semaphore(config.concurrency)
        self._limiter = Limiter(
            config.requests_per_minute and config.requests_per_minute * share,
            config.tokens_per_minute and config.tokens_per_minute * share,
        )
        self._budget = Budget(
            config.max_money and config.max_money * share,
            config.max_tokens_total and config.max_tokens_total * share,
        )
        self._budget.spend(Cost(usage.prompt_tokens, usage.tokens, usage.money))
        self._answered = self._failed_in_a_row = 0
        self._on_wire, self._counted_at = 0, 0.0
        self._http = httpx.AsyncClient(
            trust_env=not on_this_machine(config.base_url),
            timeout=httpx.Timeout(None, connect=min(_LONGEST_CONNECT_S, config.timeout_s / 2)),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=config.concurrency),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def answer(self, call: Call) -> list[Reply]:
        """The request's `n` replies; endpoints that answer with fewer choices are asked again.

        A context that the turns so far made too long gets malformed, empty replies; one that is too long
        from the start, or filtered, is no failure of the policy and raises. Fewer than `n` come back only
        where the call is not wanted any more. Greedy siblings are equal: one is
        asked for, and bears the cost of all. Raises `RequestFailed` where this request alone fails,
        `EndpointError` where no other would do better, and `BudgetSpent`.
        """
        request = call.request
        if request.sampling.temperature == 0:
            request = replace(request, n=1)
        replies: list[Reply] = []
        async with self._slots:
            while len(replies) < request.n and call.wanted:
                missing = replace(request, n=request.n - len(replies), seed=request.seed + len(replies))
                replies += await self._complete(call, missing)
        self._usage.requests += call.wanted
        return replies + [replace(reply, money=0.0) for reply in replies] * (call.request.n - request.n)

    async def _complete(self, call: Call, request: Request) -> list[Reply]:
        """The replies of one completion: at most `request.n`, none only where the call is not wanted."""
        ask, answered = self._ask(request), self._answered
        last = Failed("not tried")
        for attempt in range(self._config.retries + 1):
            found, spent = await self._try(call, ask)
            if isinstance(found, Unanswerable) and not request.history:
                # Nothing that the policy did made it too long.
                raise self._error(found.problem, final=False)
            if isinstance(found, Completed | Unanswerable | Filtered):
                self._failed_in_a_row = 0
                self._answered += 1
                if isinstance(found, Unanswerable):
                    return [no_room(ask.prompt_tokens)] * request.n
                if isinstance(found, Filtered) or filtered(found.body):
                    problem = found.problem if isinstance(found, Filtered) else "finish_reason"
                    raise RequestFailed(self._told(f"held back by the endpoint's filter ({problem})"))
                return read(found.body, request.n, spent, self._renderer)
            if isinstance(found, Refused):
                raise self._error(found.problem, found.final)
            last = found
            if last.pause_s is not None:
                self._limiter.pause(last.pause_s)
            if not call.wanted:
                return []
            if attempt < self._config.retries:
                self._usage.retried += 1
                await asyncio.sleep(self._pause(attempt))
        problem = f"no answer after {self._config.retries + 1} tries; the last: {last.problem}"
        raise self._error(problem, final=last.unreachable and answered == self._answered)

    def _ask(self, request: Request) -> Ask:
        if self._renderer is not None:
            return ids_ask(request, self._config.model, self._config.options, self._renderer)
        return chat_ask(request, self._config.model, self._config.options)

    async def _try(self, call: Call, ask: Ask) -> tuple[Outcome, Cost]:
        """One try within the limits and the budget, and what it came to."""
        expected = ask.prompt_tokens + ask.most_tokens
        most = dearest(self._price, ask.most_prompt_tokens, ask.most_tokens)
        await self._limiter.admit(expected)
        try:
            ticket = await self._budget.hold(most)
        except BaseException:
            self._limiter.correct(expected, 0)
            raise
        # Until the endpoint has said otherwise, the try may be billed in full.
        spent, lost = most, True
        try:
            with self._wire(call):
                found = await self._post(ask)
            lost = isinstance(found, Failed) and found.lost
            if not lost:
                spent = self._bill(found, ask)
        finally:
            self._usage.lost += lost
            self._budget.settle(ticket, spent)
            self._limiter.correct(expected, expected if lost else spent.all_tokens)
        return found, spent

    def _bill(self, found: Outcome, ask: Ask) -> Cost:
        """What a try came to: nothing, unless it is completed; then it goes into the usage."""
        if not isinstance(found, Completed):
            return Cost()
        spent = cost(found.body, ask, self._price)
        usage = self._usage
        if spent.estimated and not usage.estimated:
            log.warning(
                "%s reports no token counts; they are estimated by one token every four bytes",
                self._config.base_url,
            )
        usage.estimated += spent.estimated
        usage.prompt_tokens += spent.prompt_tokens
        usage.cached_tokens += spent.cached_tokens
        usage.tokens += spent.tokens
        usage.money += spent.money
        return spent

    async def _post(self, ask: Ask) -> Outcome:
        """Send `ask` once. What httpx raises ends here: its errors hold the request, and so the key."""
        url = f"{self._config.base_url.rstrip('/')}/{ask.path}"
        try:
            async with (
                asyncio.timeout(self._config.timeout_s),
                self._http.stream("POST", url, content=ask.body, headers=self._headers()) as response,
            ):
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > _LARGEST_ANSWER:
                        return Failed(f"the answer is larger than {_LARGEST_ANSWER >> 20} MiB", lost=True)
        except TimeoutError:
            return Failed(f"no answer within {self._config.timeout_s:g} s", lost=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            return Failed(_named(error), unreachable=True)
        except httpx.RequestError as error:
            return Failed(_named(error), lost=True)
        return outcome(response.status_code, response.headers, bytes(data), self._renderer is not None)

    def _headers(self) -> dict[str, str]:
        key = self._key.get_secret_value()
        return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def _error(self, problem: str, final: bool) -> EndpointError:
        """The error of a request, or of the endpoint where it fails for all or too often in a row."""
        self._failed_in_a_row += 1
        text = self._told(problem)
        if final or self._failed_in_a_row > _FAILURES_IN_A_ROW:
            return EndpointError(text)
        return RequestFailed(text)

    def _told(self, problem: str) -> str:
        """A problem as it may be shown, on one line."""
        key = self._key.get_secret_value()
        # The endpoint, or a library, may quote the key; so it is masked before the text is cut.
        text = " ".join((problem.replace(key, "***") if key else problem).split())[:_LONGEST_PROBLEM]
        if problem.startswith(_FORBIDDEN):
            text += f" (check the key in {self._config.api_key_env})"
        return f"{self._config.base_url} ({self._config.model}): {text}"

    def _pause(self, attempt: int) -> float:
        return random.uniform(0.5, 1.0) * min(self._backoff_s * 2**attempt, _LONGEST_BACKOFF_S)

    @contextmanager
    def _wire(self, call: Call) -> Iterator[None]:
        """Mark the call as on its way, and count the seconds in which any is."""
        call.on_wire = True
        self._count_seconds(+1)
        try:
            yield
        finally:
            call.on_wire = False
            self._count_seconds(-1)

    def _count_seconds(self, change: int) -> None:
        now = time.monotonic()
        if self._on_wire:
            self._usage.seconds += now - self._counted_at
        self._on_wire, self._counted_at = self._on_wire + change, now


def _named(error: Any) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
