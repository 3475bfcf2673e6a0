"""A real HTTP server on this machine that answers chat completions, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEXT = "Thought: near.\nAction: go to ball"
PROMPT_TOKENS = 11

Fault = Callable[["Handler"], None]


class Endpoint(ThreadingHTTPServer):
    """Answers chat completions; each queued fault replaces one answer."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[Fault] = []
        self.lasting: Fault | None = None
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most_choices = 100
        self.usage: Callable[[int], Any] = lambda n: {
            "prompt_tokens": PROMPT_TOKENS,
            "completion_tokens": 5 * n + 1,
        }
        self.gate = threading.Event()
        """While it is not set, requests are taken up and not answered."""
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.active = self.most_active = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def serve(self) -> threading.Thread:
        thread = threading.Thread(target=lambda: self.serve_forever(poll_interval=0.01), daemon=True)
        thread.start()
        return thread

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        endpoint = self.server
        with endpoint.lock:
            endpoint.bodies.append({"path": self.path, **body})
            endpoint.keys.append(self.headers.get("Authorization"))
            endpoint.active += 1
            endpoint.most_active = max(endpoint.most_active, endpoint.active)
            fault = endpoint.faults.pop(0) if endpoint.faults else endpoint.lasting
        endpoint.arrived.release()
        endpoint.gate.wait()
        with endpoint.lock:
            endpoint.active -= 1
        if fault is not None:
            fault(self)
        else:
            self.send(200, self.completion(body))

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        n = min(body["n"], self.server.most_choices)
        said = body["messages"][-1]["content"]
        choices = [
            {"index": i, "message": {"role": "assistant", "content": f"{TEXT} {said} {body['seed'] + i}"}}
            for i in range(n)
        ]
        return {"choices": choices, "usage": self.server.usage(n)}

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


def status(number: int, headers: dict[str, str] | None = None, **error: Any) -> Fault:
    return lambda handler: handler.send(number, {"error": {"message": "no", **error}}, headers)


def says(*contents: Any) -> Fault:
    """An answer whose choices say `contents`."""
    choices = [{"message": {"role": "assistant", "content": content}} for content in contents]
    return lambda handler: handler.send(
        200, {"choices": choices, "usage": handler.server.usage(len(contents))}
    )


def after(event: threading.Event, fault: Fault) -> Fault:
    """`fault`, once `event` is set."""

    def wait(handler: Handler) -> None:
        event.wait(30)
        fault(handler)

    return wait


def garbage(handler: Handler) -> None:
    handler.send(200, b"<html>busy</html>")


def not_unicode(handler: Handler) -> None:
    handler.send(200, b'{"choices": [{"message": {"content": "\xff\xfe"}}]}')


def nested(handler: Handler) -> None:
    handler.send(200, b"[" * 100_000)


def empty(handler: Handler) -> None:
    handler.send(200, {"choices": []})


def no_message(handler: Handler) -> None:
    handler.send(200, {"choices": [{"text": "Action: go"}]})


def drop(handler: Handler) -> None:
    handler.close_connection = True
    handler.connection.close()


def drop_in_body(handler: Handler) -> None:
    handler.close_connection = True
    handler.send(200, b'{"choices": [', {"Content-Length": "1000"})


def hang(handler: Handler) -> None:
    """Answers byte by byte, so that no single wait is long, and never ends."""
    handler.close_connection = True
    handler.send(200, b"{", {"Content-Length": "1000000"})
    pause = threading.Event()
    try:
        while not pause.wait(0.02):
            handler.wfile.write(b" ")
    except OSError:
        return


def huge(handler: Handler) -> None:
    """Sends more than any completion can be, until the client hangs up."""
    handler.close_connection = True
    handler.send(200, b"{", {"Content-Length": str(10**12)})
    try:
        while True:
            handler.wfile.write(b" " * 2**20)
    except OSError:
        return
