"""Calls to an AgentGym environment server."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from typing import Any

import httpx

from depo.config.base import ConfigError

_BACKOFF_S = 0.2
_CLOSING_S = 2.0
_SHOWN = 200
"""Characters of a server's answer that an error quotes."""
_GONE = re.compile(r"not valid|not found|deleted|unknown (?:id|env)|no such env|has finished", re.IGNORECASE)


class ServerError(RuntimeError):
    """The server failed or said so; the message names the call, the URL and the mend."""


class Lost(ServerError):
    """Whether the call did its work is unknown."""


class Gone(Lost):
    """The server does not know the environment, or not as one that goes on."""


class Server:
    """One HTTP connection to a server. Calls that may be repeated are, `retries` times, with back-off."""

    def __init__(self, url: str, timeout_s: float, retries: int) -> None:
        self.url, self._retries = url.rstrip("/"), retries
        try:
            local = httpx.URL(self.url).host in ("localhost", "127.0.0.1", "::1")
            # A proxy set for the outside world must not be asked for a server on this machine.
            self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=not local)
        except httpx.InvalidURL as error:
            raise ConfigError(f"url: {url!r} is no address ({error}); give http://host:port") from None

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a call that is safe to repeat; raises `Lost` where the last try failed too."""
        return self._again("POST", path, json=dict(body))

    def get(self, path: str, query: Mapping[str, Any]) -> Any:
        return self._again("GET", path, params=dict(query))

    def once(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a call that changes the state; raises `Lost` where it may or may not have done so."""
        return self._call("POST", path, json=dict(body))

    def release(self, path: str, body: Mapping[str, Any]) -> None:
        """Tell the server that an environment is done with; whether it heard is its own affair."""
        with contextlib.suppress(httpx.HTTPError):  # nothing depends on it, and the server may be gone
            self._http.post(path, json=dict(body), timeout=_CLOSING_S)

    def close(self) -> None:
        self._http.close()

    def _again(self, method: str, path: str, **arguments: Any) -> Any:
        for attempt in range(self._retries):
            try:
                return self._call(method, path, **arguments)
            except Gone:
                raise
            except Lost:
                time.sleep(_BACKOFF_S * 2**attempt)
        return self._call(method, path, **arguments)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Lost(self._says(method, path, _reason(error))) from None
        shown = response.text[:_SHOWN]
        if response.status_code >= 500:
            raise Lost(self._says(method, path, f"status {response.status_code}: {shown}"))
        if response.status_code >= 300:
            problem = f"status {response.status_code}: {shown}; is this the right kind of server?"
            raise ServerError(self._says(method, path, problem))
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            raise Lost(self._says(method, path, f"not JSON: {shown!r}; is this AgentGym's port?")) from None
        if isinstance(answer, dict) and answer.get("error"):
            kind = Gone if _GONE.search(str(answer["error"])) else ServerError
            raise kind(self._says(method, path, f"error: {str(answer['error'])[:_SHOWN]}"))
        return answer

    def _says(self, method: str, path: str, what: str) -> str:
        return f"AgentGym server, {method} {self.url}{path}: {what}"


def _reason(error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time; raise timeout_s, or look at the server"
    if isinstance(error, httpx.ConnectError):
        return f"no connection ({error}); start the server or mend url"
    return f"{type(error).__name__}: {error}; look at the server"
