"""Limits a minute, on a clock that jumps from one event to the next."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depo.policies.limits import Limiter, TokenBucket
from depo.policies.openai_wire import retry_after


class Jumping(asyncio.SelectorEventLoop):
    """An event loop on which sleeping takes no time: its clock jumps to the next event."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


def on_jumping_clock(main: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(main())


def admissions(requests: float | None, tokens: float | None, sizes: list[float]) -> list[float]:
    """When requests of these sizes, all there from the start, are let through, in seconds."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        limiter = Limiter(requests, tokens, clock=loop.time)
        times = []

        async def go(size: float) -> None:
            await limiter.admit(size)
            times.append(loop.time())

        await asyncio.gather(*(go(size) for size in sizes))
        return times

    return on_jumping_clock(main)


@settings(max_examples=40, deadline=None)
@given(limit=st.floats(0.5, 400), count=st.integers(1, 120))
def test_no_minute_sees_more_requests_than_the_limit(limit: float, count: int) -> None:
    times = admissions(limit, None, [1.0] * count)
    assert len(times) == count
    for start in times:
        within = sum(start <= time < start + 60 - 1e-6 for time in times)
        assert within <= math.ceil(limit)


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(100, 5000), sizes=st.lists(st.integers(1, 200), min_size=1, max_size=80))
def test_no_minute_sees_more_tokens_than_the_limit(limit: int, sizes: list[int]) -> None:
    times = admissions(None, limit, sizes)
    assert times == sorted(times)
    for start in times:
        within = sum(size for time, size in zip(times, sizes, strict=True) if start <= time < start + 60)
        # The last request admitted may leave the bucket in debt.
        assert within <= limit + max(sizes) + 1


def test_a_limit_is_made_use_of() -> None:
    times = admissions(600, None, [1.0] * 1200)
    assert times[-1] < 130  # two minutes' worth


def test_the_stricter_limit_decides() -> None:
    # 60 tokens a minute, in requests of 6: the first at once, each later one when its tokens are there.
    times = admissions(6000, 60, [6.0] * 4)
    assert times == pytest.approx([0.0, 0.0, 6 * 60 / 55, 12 * 60 / 55], abs=8)
    assert admissions(None, None, [10.0**9] * 3) == [0.0] * 3


def test_tokens_that_were_not_needed_let_the_next_request_through_at_once() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        limiter = Limiter(None, 600, clock=loop.time)
        await limiter.admit(6000)  # a debt of some ten minutes
        loop.call_later(5, limiter.correct, 6000, 10)
        await limiter.admit(10)
        return loop.time()

    assert on_jumping_clock(main) == pytest.approx(5, abs=0.1)


def test_a_pause_that_the_endpoint_asks_for_holds_for_every_request() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        limiter = Limiter(None, None, clock=loop.time)
        await limiter.admit(1)
        limiter.pause(30)
        limiter.pause(10)
        await limiter.admit(1)
        return loop.time()

    assert on_jumping_clock(main) == pytest.approx(30)


def test_a_request_given_up_while_it_waits_costs_nothing() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        limiter = Limiter(1, None, clock=loop.time)
        await limiter.admit(1)
        waiting = [asyncio.ensure_future(limiter.admit(1)) for _ in range(3)]
        await asyncio.sleep(1)
        for task in waiting[:2]:
            task.cancel()
        await waiting[2]
        return loop.time()

    assert on_jumping_clock(main) == pytest.approx(60)


def test_the_wait_for_an_amount_is_a_bucket_refilled() -> None:
    bucket = TokenBucket(600)  # holds 60, fills at 541 a minute
    bucket.take(60, now=0)
    assert bucket.wait(10, now=0) == pytest.approx(10 * 60 / 541)
    assert bucket.wait(10**6, now=0) == pytest.approx(60 * 60 / 541)  # a full bucket is all there can be
    assert bucket.wait(10, now=2) == 0


NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 0.25 "}, 0.25),
        ({"Retry-After": "86400"}, 600),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=9), usegmt=True), "Date": "x"}, 0),
        ({"Retry-After": format_datetime(NOW + timedelta(seconds=9)), "Date": format_datetime(NOW)}, 9),
        ({"Retry-After": format_datetime(NOW), "Date": format_datetime(NOW + timedelta(seconds=9))}, 0),
        ({"Retry-After": "Mon, 04 May 2026 12:00:30 -0000", "Date": format_datetime(NOW)}, 30),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_endpoints_clock(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds
