"""Policies that the generation benchmark runs: vLLM on random weights, and an engine that only takes time."""

from __future__ import annotations

import copy
import heapq
import json
import os
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from depo.config.runtime import VllmConfig
from depo.config.schema import TinyConfig
from depo.envs.base import TextEnv
from depo.policies.base import Answer, Reply, Request, Usage, format_reply
from depo.policies.chat import ChatRenderer
from depo.policies.vllm import VllmPolicy
from depo.records import Task

MAX_MODEL_LEN = 2048
_MEETING_S = 600
MEAN_TOKENS = 24
ACTIONS = (
    "check available actions",
    "turn left",
    "turn right",
    "move forward",
    "go to red ball 1",
    "go to blue key 1",
    "go to green box 1",
)


def make_random_model(config: TinyConfig, env: TextEnv, tasks: Sequence[Task], folder: Path) -> Path:
    """Save a random Llama, whose tokenizer knows the words of `env`.

    Every `MEAN_TOKENS`-th id ends a reply, so that with near-uniform logits the lengths are near
    exponential, `MEAN_TOKENS` in the mean before the cut by `max_tokens`.
    """
    from transformers import GenerationConfig

    from depo.training.tiny import make_tiny

    texts = [env.system, *(env.reset(task) for task in tasks), *ACTIONS]
    tokenizer = make_tiny(config, texts, MAX_MODEL_LEN, seed=0, out_dir=folder)
    ends = {tokenizer.eos_token_id, *range(MEAN_TOKENS - 1, len(tokenizer), MEAN_TOKENS)}
    GenerationConfig(eos_token_id=sorted(ends)).save_pretrained(folder)
    return folder


class Dice(ChatRenderer):
    """Reads any reply as well-formed: its ids pick one of `ACTIONS`, which a random model never writes."""

    def read(self, reply_ids: tuple[int, ...], input_tokens: int, logprob: float | None = None) -> Reply:
        reply = super().read(reply_ids, input_tokens, logprob)
        action = ACTIONS[sum(reply_ids) % len(ACTIONS)]
        return replace(reply, thought=reply.text, action=action, malformed=False)


class RandomVllm(VllmPolicy):
    """vLLM on the random model; remembers what it answered, and can do it again as one offline batch.

    With `log` it writes down, whenever nothing is in flight, how much of its time the engine took.
    """

    def __init__(self, model_dir: str, vllm: Mapping[str, Any], log: str = "") -> None:
        super().__init__(model_dir, "random", VllmConfig(**vllm), MAX_MODEL_LEN)
        self.renderer = Dice(self.renderer.tokenizer)
        self.answered: list[Request] = []
        self._asked: dict[Hashable, Request] = {}
        self._log, self._first = log, 0.0

    def submit(self, key: Hashable, request: Request) -> None:
        self._first = self._first or time.perf_counter()
        self._asked[key] = request
        super().submit(key, request)

    def collect(self) -> list[Answer]:
        answers = super().collect()
        asked = [self._asked.pop(answer.key) for answer in answers]
        if not self._log:
            self.answered += asked
        elif not self._asked:
            taken = time.perf_counter() - self._first
            text = json.dumps({"seconds": taken, "engine": self.usage.seconds, "tokens": self.usage.tokens})
            Path(self._log).write_text(text)
        return answers

    def withdraw(self, key: Hashable) -> None:
        self._asked.pop(key, None)
        super().withdraw(key)

    def unfinished(self) -> int:
        """Tokens generated so far for what is in flight."""
        states = self._engine.output_processor.request_states
        return sum(state.detokenizer.num_output_tokens() for state in states.values())

    def forget(self) -> None:
        """Empty the prefix cache and the memory of what was answered."""
        self.answered = []
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache")

    def offline(self, requests: Sequence[Request]) -> int:
        """Generated tokens of all `requests`, done in one `LLM.generate` from an empty prefix cache."""
        prompts, params = [], []
        for request in requests:
            context = self.renderer.context(request.system, request.history, request.observation)
            prompts.append({"prompt_token_ids": list(context)})
            params.append(copy.copy(self._params(request.sampling, request.n)))
            params[-1].seed = request.seed
        self.forget()
        outputs: list[Any] = self._llm.generate(prompts, params, use_tqdm=False)
        end = self.renderer.end_of_turn
        replies = [one.token_ids for output in outputs for one in output.outputs]
        return sum(len(ids) - (ids[-1] == end) for ids in replies)


class FixedLatency:
    """Answers every request `latency` seconds after it came, without computing anything.

    It begins once `actors` of its kind are there, each announced by a file in `meeting`, and writes
    down when that was. Raises `TimeoutError` where they do not come.
    """

    name = "fixed"
    tokenizer_fingerprint = ""

    def __init__(self, latency: float, actors: int, meeting: str) -> None:
        self.usage = Usage()
        self._latency = latency
        self._due: list[tuple[float, int, Hashable]] = []
        self._requests: dict[int, Request] = {}
        self._count = 0
        import_module("depo.envs.babyai.env")  # an actor's start, not its work
        folder = Path(meeting)
        (folder / f"{os.getpid()}.here").touch()
        patience = time.monotonic() + _MEETING_S
        while len(list(folder.glob("*.here"))) < actors:
            time.sleep(0.05)
            if time.monotonic() > patience:
                raise TimeoutError(f"{actors} engines did not come together in {_MEETING_S} s")
        (folder / f"{os.getpid()}.began").write_text(str(time.time()))

    def submit(self, key: Hashable, request: Request) -> None:
        self._count += 1
        self._requests[self._count] = request
        heapq.heappush(self._due, (time.monotonic() + self._latency, self._count, key))

    def collect(self) -> list[Answer]:
        while self._due and self._due[0][1] not in self._requests:
            heapq.heappop(self._due)
        if not self._due:
            return []
        wait = self._due[0][0] - time.monotonic()
        if wait > 0:
            time.sleep(wait)
            self.usage.seconds += wait
        answers: list[Answer] = []
        while self._due and self._due[0][0] <= time.monotonic():
            _, number, key = heapq.heappop(self._due)
            request = self._requests.pop(number, None)
            if request is not None:
                answers.append(Answer(key, _steps(request)))
                self.usage.count(answers[-1].replies)
        return answers

    def withdraw(self, key: Hashable) -> None:
        for _, number, asked in self._due:
            if asked == key:
                self._requests.pop(number, None)

    def close(self) -> None:
        self._requests.clear()
        self._due.clear()


def _steps(request: Request) -> list[Reply]:
    """An action that never ends an episode, with thoughts of their own: all trees take equally long."""
    action, thoughts = ACTIONS[0], [f"{request.seed + i}" for i in range(request.n)]
    return [Reply(format_reply(t, action), t, action, malformed=False, num_tokens=8) for t in thoughts]
