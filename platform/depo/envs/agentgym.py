"""Any AgentGym environment server as a text environment, over HTTP."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from depo.config.base import ConfigError
from depo.envs.agentgym_client import Lost, Server, ServerError
from depo.envs.agentgym_dialects import (
    Reading,
    Unreadable,
    cleaned,
    dialect,
    read_id,
    read_reset,
    read_step,
    shop_action,
)
from depo.envs.base import SnapshotUnsupported, StepResult, finite_number, received_text
from depo.envs.task_lists import TaskNumbers, task_numbers
from depo.records import Task

LONGEST_ACTION = 2_000
SYSTEM = (
    "You act in a text environment. Each turn you see an observation; the first one states the goal. "
    "Choose one action at a time, in the words that the environment uses.\n"
    "Reply with a line `Thought: ` and your reasoning, then a line `Action: ` and the action."
)


class AgentGymEnv:
    """Episodes on the AgentGym server at `url`; a task's seed is the server's task number.

    `splits` gives each split's task numbers as [first, end), as a list or as a file of ids (`TaskNumbers`);
    they may not overlap. `server` names the server's dialect, `protocol` replaces some of its fields
    (`Dialect`), `name` is the tasks' level (default: the dialect), `system` the system prompt.

    `/create`, `/reset` and questions are repeated where they fail, `/step` never: after a lost step, or where
    the server has forgotten the environment, the episode is built anew on a fresh one by its own actions,
    which must lead to the same observations. Of an action is sent what AgentGym's own client sends; where
    that is over 2,000 characters or holds control characters, it is invalid and not sent. Raises
    `ConfigError` for bad options, `ServerError` where the server cannot be brought to a usable answer; an
    `error` inside an answer of status 200 is none, nor is a reward that is no finite number.

    No snapshots: the server cannot make any, so search replays actions.
    """

    id: ClassVar[str] = "agentgym"

    def __init__(
        self,
        url: str,
        splits: Mapping[str, str | Sequence[int | str]] | TaskNumbers,
        server: str = "generic",
        name: str = "",
        protocol: Mapping[str, Any] | None = None,
        system: str = SYSTEM,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ConfigError(f"url: give http://host:port, not {url!r}")
        if not finite_number(timeout_s) or timeout_s <= 0:
            raise ConfigError(f"timeout_s: give seconds above 0, not {timeout_s!r}")
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigError(f"retries: give a whole number from 0, not {retries!r}")
        self._numbers = task_numbers(splits, server)
        self._options = (url, self._numbers, server, name, protocol, system, timeout_s, retries)
        self._names = dialect(server, protocol or {})
        self.system, self._level, self._retries = system, name or server, retries
        self._server = Server(url, timeout_s, retries)
        self._remote: Any = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        self._task: Task | None = None
        self._first = Reading("")
        self._turns: list[tuple[str, Reading]] = []
        self._return = 0.0
        self._success: bool | None = None

    def __getstate__(self) -> dict[str, Any]:
        episode = (self._task, self._first, list(self._turns), self._return, self._success)
        return {"options": self._options, "episode": episode}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # A copy has no remote environment yet; its first step builds one, in the same state.
        self.__init__(*saved["options"])  # type: ignore[misc]
        self._task, self._first, self._turns, self._return, self._success = saved["episode"]

    def reset(self, task: Task) -> str:
        """Start `task`; raises `ServerError` where the server does not."""
        self._task = task
        try:
            self._first = self._start(task)
        except Lost:
            self._forget()
            self._first = self._start(task)
        self._turns, self._return, self._success = [], 0.0, None
        return self._first.observation

    def step(self, action: str) -> StepResult:
        self._running()
        if self._success is not None:
            return self._result("The episode is over.", 0.0, valid=False)
        sent = cleaned(self._names, action)
        if not self._sendable(sent):
            return self._result("That is no action: give one line of printable text.", 0.0, valid=False)
        known = self._knows(sent)
        found = self._try(sent)
        self._turns.append((sent, found))
        earned = found.reward - (self._return if self._names.cumulative else 0.0)
        self._return += earned
        if found.done:
            self._success = self._return > 0 and self._return >= self._names.success_at
        said = found.observation.lower()
        refused = any(phrase.lower() in said for phrase in self._names.invalid)
        return self._result(found.observation, earned, known and not refused)

    def _sendable(self, action: str) -> bool:
        if not action:
            return self._names.send_empty
        printable = all(each.isprintable() or each in "\n\t" for each in action)
        return printable and len(action) <= LONGEST_ACTION

    def _knows(self, action: str) -> bool:
        """Whether the server offers `action`, as far as it tells; nothing is no action."""
        if not action or any(part in action.lower() for part in self._names.understood):
            return bool(action)
        if self._names.actions == "pages":
            asked = shop_action(action)
            return asked is not None and (asked[0] == "search" or asked[1] in self._clickable())
        offered = self._last().actions
        return not offered or action.lower() in {each.lower() for each in offered}

    def available_actions(self) -> list[str]:
        """What the server offers; empty where it does not tell, or any text will do."""
        self._running()
        if self._success is not None:
            return []
        if self._names.actions != "pages":
            return list(self._last().actions)
        return [f"click[{item}]" for item in self._clickable()]

    def _clickable(self) -> list[str]:
        """What a click does something on, on a shop's present page."""
        self._ensure()
        page = self._server.get("/available_actions", self._me())
        items = page.get("clickables", []) if isinstance(page, dict) else []
        return [received_text(item) for item in items if isinstance(item, str) and item != "search"]

    def snapshot(self) -> NoReturn:
        raise SnapshotUnsupported("AgentGym servers cannot save a state; actions are replayed")

    def restore(self, state: Any) -> NoReturn:
        raise SnapshotUnsupported("AgentGym servers cannot restore a state; actions are replayed")

    def tasks(self, split: str, count: int) -> list[Task]:
        """The first `count` task numbers of a split. Raises `ConfigError` where `splits` has fewer."""
        return [Task(self.id, self._level, number, split) for number in self._numbers.first(split, count)]

    def task_count(self, split: str) -> int:
        """Task numbers that `splits` gives a split."""
        return len(self._numbers.of(split))

    def close(self) -> None:
        """Give the remote environment back; also happens when this one is thrown away."""
        self._forget()
        self._server.close()

    def _running(self) -> Task:
        if self._task is None:
            raise RuntimeError("no task is running; call reset(task) first")
        return self._task

    def _last(self) -> Reading:
        return self._turns[-1][1] if self._turns else self._first

    def _me(self) -> dict[str, Any]:
        return {self._names.id_field: self._remote}

    def _forget(self) -> None:
        """Let go of the remote environment; the next call makes another."""
        if self._finalizer is not None:
            self._finalizer()
        self._remote = self._finalizer = None

    def _start(self, task: Task) -> Reading:
        """Reset the remote environment, made first where there is none, to `task`."""
        if self._remote is None:
            answer = self._server.post("/create", self._names.create)
            try:
                self._remote = read_id(self._names, answer)
            except Unreadable as error:
                self._complain("/create", str(error))
            self._finalizer = weakref.finalize(self, self._server.release, "/close", self._me())
        body = {**self._me(), self._names.task_field: task.seed, **self._names.reset}
        first = read_reset(self._names, self._server.post("/reset", body))
        if not first.observation:
            first = read_reset(self._names, self._server.get("/observation", self._me()))
        if not first.observation:
            self._complain("/reset", f"no usable {self._names.observation_field!r}; set server or protocol")
        return first

    def _ensure(self) -> None:
        """Have a remote environment in the present state: build it anew where there is none."""
        if self._remote is not None:
            return
        if self._start(self._running()).observation != self._first.observation:
            self._complain("/reset", "the task begins differently now; the server must give tasks by number")
        for action, seen in self._turns:
            if self._once(action).observation != seen.observation:
                self._complain(
                    "/step", f"{action!r} played again came out differently; nothing can be rebuilt"
                )

    def _once(self, action: str) -> Reading:
        answer = self._server.once("/step", {**self._me(), "action": action})
        try:
            return read_step(self._names, answer)
        except Unreadable as error:
            self._complain("/step", str(error))

    def _try(self, action: str) -> Reading:
        """Take one step; where it is lost, the episode is built anew without it and it is taken again."""
        for attempt in range(self._retries + 1):
            try:
                self._ensure()
                return self._once(action)
            except Lost:
                # What was lost may still arrive, so the rebuilt episode gets an environment of its own.
                self._forget()
                if attempt == self._retries:
                    raise
            except ServerError:
                self._forget()
                raise
        raise AssertionError("range(retries + 1) is never empty")

    def _complain(self, path: str, what: str) -> NoReturn:
        raise ServerError(f"AgentGym server, POST {self._server.url}{path}: {what}")

    def _result(self, text: str, reward: float, valid: bool) -> StepResult:
        info: dict[str, Any] = {"valid": valid}
        if self._success is not None:
            info["success"] = self._success
        return StepResult(text, reward, terminated=self._success is not None, truncated=False, info=info)
