"""A server that speaks AgentGym's protocol about a small game, and fails as told.

`python agentgym_server.py DIALECT PORT SHIFT` prints its port; SHIFT is added to every task number. `POST
/fault {"path", "kind", "count"}` makes the next calls of a path go wrong; `POST /forget` drops all
environments, as a restart does; `GET /calls` counts the calls of each path.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Lighthouse:
    """Climb to the lamp, with the oil that stands on some floor; `number` sets the building."""

    def __init__(self, number: int) -> None:
        self.number, self.top, self.oil = number, 2 + number % 3, 1 + number % 2
        self.floor, self.carrying, self.done = 0, False, False

    def actions(self) -> list[str]:
        options = [("up", self.floor < self.top), ("down", self.floor > 0)]
        options += [("take oil", self.floor == self.oil and not self.carrying)]
        options += [("light the lamp", self.floor == self.top)]
        return [name for name, possible in options if possible]

    def look(self) -> str:
        has = "You carry oil." if self.carrying else ""
        here = f"You are on floor {self.floor} of {self.top}."
        return f"Lighthouse {self.number} needs light. {here} {has}".strip()

    def play(self, action: str) -> tuple[str, float]:
        """Observation and reward; the lamp lit with oil pays 1, without it ends the game for nothing."""
        if action not in self.actions():
            return "Nothing happens.", 0.0
        self.floor += {"up": 1, "down": -1}.get(action, 0)
        self.carrying = self.carrying or action == "take oil"
        self.done = action == "light the lamp"
        if self.done:
            return ("The light goes far." if self.carrying else "It stays dark."), float(self.carrying)
        return self.look(), 0.0


class World(ThreadingHTTPServer):
    """The running environments, the faults to come, and the calls so far."""

    daemon_threads = True

    def __init__(self, dialect: str, port: int, shift: int) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.dialect, self.shift = dialect, shift
        self.games: dict[int, Any] = {}
        self.faults: dict[str, list[str]] = {}
        self.calls: Counter[str] = Counter()
        self.made = 0


class Handler(BaseHTTPRequestHandler):
    server: World

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self._answer(url.path, {name: int(value[0]) for name, value in parse_qs(url.query).items()})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self._answer(urlsplit(self.path).path, json.loads(self.rfile.read(length) or b"{}"))

    def log_message(self, *_: Any) -> None:
        """Says nothing; the tests ask for `/calls`."""

    def _answer(self, path: str, body: dict[str, Any]) -> None:
        world = self.server
        waiting = world.faults.get(path, [])
        fault = waiting.pop(0) if waiting else ""
        if fault != "500" and path != "/calls":
            world.calls[path] += 1
        if fault == "slow":
            time.sleep(0.8)
        answer = {"/fault": self._fault, "/forget": self._forget, "/calls": self._calls}.get(path, self._play)
        if fault == "500":
            self._send(500, b"Internal Server Error")
        elif fault == "error":
            self._send(200, b'{"error": "the kettle is on fire"}')
        elif fault == "html":
            self._send(200, b"<html>It works!</html>")
        elif fault == "drop":
            self._send(200, json.dumps(answer(path, body)).encode(), cut=True)
        else:
            self._send(200, json.dumps(answer(path, body)).encode())

    def _send(self, status: int, text: bytes, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text) + (20 if cut else 0)))
        self.end_headers()
        self.wfile.write(text)

    def _fault(self, path: str, body: dict[str, Any]) -> Any:
        self.server.faults.setdefault(body["path"], []).extend([body["kind"]] * body["count"])

    def _forget(self, path: str, body: dict[str, Any]) -> Any:
        self.server.games.clear()

    def _calls(self, path: str, body: dict[str, Any]) -> Any:
        return {**self.server.calls, "alive": len(self.server.games)}

    def _play(self, path: str, body: dict[str, Any]) -> Any:
        world, shop = self.server, self.server.dialect == "webshop"
        if path == "/create":
            world.made += 1
            world.games[world.made] = None
            return world.made if shop else {"id": world.made}
        key = body.get("env_idx" if shop else "id")
        if key not in world.games:
            return {"error": f"The id {key} is not valid."}
        if path == "/close":
            return {"closed": world.games.pop(key) is not None}
        if path == "/reset":
            number = body["session_id" if shop else "data_idx"] + world.shift
            game = world.games[key] = Lighthouse(number)
            return (
                [game.look(), None] if shop else {"observation": self._look(game), "reward": 0, "done": False}
            )
        game = world.games[key]
        if path == "/available_actions":
            return {"has_search_bar": False, "clickables": [] if game.done else game.actions()}
        if game.done:
            return {"error": f"The task with environment {key} has finished."}
        text, reward = game.play(body["action"].removeprefix("click[").removesuffix("]"))
        if shop:
            return {"state": text, "reward": reward, "done": game.done, "info": None}
        return {"observation": self._look(game, text), "reward": reward, "score": reward, "done": game.done}

    def _look(self, game: Lighthouse, text: str = "") -> str:
        text = text or game.look()
        if self.server.dialect == "babyai":
            return f"{text}\nAvailable actions: {json.dumps(game.actions())}"
        return text


if __name__ == "__main__":
    running = World(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    print(running.server_address[1], flush=True)
    running.serve_forever()
