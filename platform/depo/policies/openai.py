"""Replies from an OpenAI-compatible endpoint: DeepSeek, a vLLM server, any other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from pydantic import SecretStr

from depo.config.endpoint import OpenAIConfig
from depo.policies.base import Answer, BudgetSpent, Request, Usage
from depo.policies.chat import ChatRenderer
from depo.policies.openai_client import (
    Call,
    Client,
    EndpointError,
    RequestFailed,
    on_this_machine,
    require_key,
)
from depo.policies.prices import EndpointUsage
from depo.threads import Background

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Job:
    key: Hashable
    call: Call
    task: asyncio.Task[None] | None = None


class OpenAIPolicy:
    """A model behind HTTP, with many requests in flight, each answered as soon as it can be.

    Without `config.tokenizer`, replies have a text and no token ids, and token counts are the
    endpoint's own; where one answer holds several replies their sum is shared out evenly. The key is
    read from the environment and appears in no message.

    `collect` raises `EndpointError` where the endpoint refuses (a wrong key, an unknown model), cannot
    be reached, or fails four requests in a row; a request that fails alone has a `RequestFailed` for
    its `Answer.error`. That, and `BudgetSpent`, come after all answers of what was in flight; from
    then on `submit` and `collect` raise it again.
    """

    usage: Usage
    """In fact an `EndpointUsage`."""

    def __init__(self, config: OpenAIConfig, name: str, share: float = 1.0, backoff_s: float = 1.0) -> None:
        """`share` of the job's limits and budgets is this worker's: 1 / workers.

        `backoff_s` is the first pause before a retry; it doubles each time.

        Raises `ConfigError` where the key's variable holds no key, unless, unset, the endpoint is on
        this machine, and where `config.tokenizer` cannot serve.
        """
        self.name = name
        self.config = config
        self.usage = self._usage = EndpointUsage()
        self._share, self._backoff_s = share, backoff_s
        self._key = SecretStr(require_key(config))
        self._renderer = _renderer(config)
        self.tokenizer_fingerprint = self._renderer.fingerprint if self._renderer else ""
        if config.model not in config.prices and (config.prices or not on_this_machine(config.base_url)):
            log.warning("prices: none for %s; its money is counted as 0", config.model)
        self._inbox: SimpleQueue[tuple[_Job, Answer] | Exception] = SimpleQueue()
        self._open: dict[Hashable, _Job] = {}
        self._stopped: Exception | None = None
        self._thread: _Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "config": self.config, "name": self.name, "share": self._share, "backoff_s": self._backoff_s
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def submit(self, key: Hashable, request: Request) -> None:
        """Take up `request`; it waits its turn elsewhere."""
        if self._stopped is not None:
            raise self._stopped
        if self._thread is None:
            self._thread = _Thread(self._make_client(), self._inbox)
        job = self._open[key] = _Job(key, Call(request))
        self._thread.call(self._thread.start_job, job)

    def collect(self) -> list[Answer]:
        """What is answered by now. Waits for the first answer; empty only where nothing is in flight."""
        answers: list[Answer] = []
        while self._stopped is None and self._open and not (answers and self._inbox.empty()):
            item = self._inbox.get()
            if isinstance(item, Exception):
                self._stopped = item
                continue
            job, answer = item
            if self._open.get(job.key) is job:
                del self._open[job.key]
                answers.append(answer)
        if self._stopped is not None and not answers:
            raise self._stopped
        return answers

    def withdraw(self, key: Hashable) -> None:
        """Forget a request. One that is on its way is let finish, since it is billed anyway."""
        job = self._open.pop(key, None)
        if job is not None and self._thread is not None:
            self._thread.call(self._thread.drop_job, job)

    def close(self) -> None:
        """Break off what is in flight; end the thread and its connections."""
        self._open.clear()
        if self._thread is not None:
            self._thread.close()
            self._thread = None

    def _make_client(self) -> Client:
        return Client(self.config, self._key, self._share, self._usage, self._renderer, self._backoff_s)


class _Thread:
    """An event loop in a thread of its own, on which jobs are answered into `inbox`.

    Everything but `call` and `close` runs on the loop, so that nothing there needs a lock.
    """

    def __init__(self, client: Client, inbox: SimpleQueue[tuple[_Job, Answer] | Exception]) -> None:
        self._inbox = inbox
        self._client = client
        self._jobs: set[_Job] = set()
        self._stopping: Exception | None = None
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._thread = Background(self._run, "openai", inbox.put)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have the loop call `function`, in order of the calls."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def close(self) -> None:
        """Cancel all jobs; returns once the thread has ended."""
        with suppress(RuntimeError):  # the loop is over already
            self.call(self._closing.set)
        self._thread.join()

    def start_job(self, job: _Job) -> None:
        self._jobs.add(job)
        if self._stopping is None:
            job.task = self._loop.create_task(self._answer(job))
            # Not the task's own `finally`: one cancelled before its first step never gets there.
            job.task.add_done_callback(lambda _: self._end(job))
        else:
            self._end(job)

    def drop_job(self, job: _Job) -> None:
        job.call.wanted = False
        if job.task is not None and not job.call.on_wire:
            job.task.cancel()

    async def _answer(self, job: _Job) -> None:
        try:
            replies = await self._client.answer(job.call)
            self._inbox.put((job, Answer(job.key, replies)))
        except RequestFailed as error:
            self._inbox.put((job, Answer(job.key, error=error)))
        except (EndpointError, BudgetSpent) as error:
            self._stop(error)
        except Exception as error:
            self._inbox.put((job, Answer(job.key, error=error)))

    def _stop(self, error: Exception) -> None:
        """Start nothing more; what is on its way is let finish."""
        if self._stopping is None:
            self._stopping = error
            for job in self._jobs:
                if job.task is not None and not job.call.on_wire:
                    job.task.cancel()

    def _end(self, job: _Job) -> None:
        self._jobs.discard(job)
        if self._stopping is not None and not self._jobs:
            self._inbox.put(self._stopping)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            await self._closing.wait()
        finally:
            tasks = [job.task for job in self._jobs if job.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.close()


def _renderer(config: OpenAIConfig) -> ChatRenderer | None:
    if config.tokenizer is None:
        return None
    from depo.policies.checkpoint import load_renderer

    return load_renderer(config.tokenizer)
