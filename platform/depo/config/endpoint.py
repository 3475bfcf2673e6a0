"""A model behind an OpenAI-compatible endpoint: what is asked, how fast, and for how much."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from depo.config.base import Count, NonNegative, Options, Positive, Strict


class PriceConfig(Strict):
    """What a model costs, in one currency, per million tokens."""

    input: NonNegative
    cached_input: NonNegative | None = None
    """Prompt tokens that the endpoint had in its cache; None: as `input`."""
    output: NonNegative


class OpenAIConfig(Strict):
    """Any OpenAI-compatible endpoint."""

    RUNNING: ClassVar[frozenset[str]] = frozenset({
        "api_key_env", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout_s", "retries",
        "prices", "max_money", "max_tokens_total",
    })  # fmt: skip
    """Fields that say how fast, and at what cost, answers come: no part of a result's identity, so that
    a run goes on when they change."""

    kind: Literal["openai"] = "openai"
    base_url: str
    """Such as `http://127.0.0.1:8000/v1`."""
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself is never configured."""
    tokenizer: str | None = None
    """Hugging Face id or path of the served model's tokenizer, for a vLLM server: contexts are then sent,
    and replies kept, as token ids. None sends chat messages and keeps text."""
    options: Options = {}
    """Further fields of every request's body; null takes one out that is sent otherwise."""
    concurrency: Count = 16
    """Requests in flight from one worker."""
    requests_per_minute: Positive | None = None
    """Over the whole job: every worker keeps to its share."""
    tokens_per_minute: Positive | None = None
    """Prompt and generated tokens, over the whole job: every worker keeps to its share."""
    timeout_s: Positive = 120
    """Seconds that one try may take, from connecting to the last byte."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Tries after the first on 408, 409, 429, 5xx and broken connections, with backoff."""
    prices: dict[str, PriceConfig] = {}
    """Model to price; one that is not listed costs nothing, and is warned of."""
    max_money: Positive | None = None
    """Hard budget of the job, in the currency of `prices`: nothing is asked that might exceed it."""
    max_tokens_total: Count | None = None
    """Hard budget of the job in tokens, prompt and generated: nothing is asked that might exceed it."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> OpenAIConfig:
        try:
            url = urlsplit(self.base_url)
            known = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            known = False
        if not known:
            raise ValueError("base_url: not a URL; write it like http://127.0.0.1:8000/v1")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError(
                "base_url: holds a user, a query or a fragment; a key belongs in the environment variable "
                "that api_key_env names"
            )
        if self.max_money is not None and self.model not in self.prices:
            raise ValueError(f"max_money: the price of {self.model} is unknown; add it to prices")
        return self
