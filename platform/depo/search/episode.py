"""One turn of an episode and the turns that follow it: what search and evaluation share."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from depo.envs.base import BrokenContract, finite_number, received, received_text
from depo.policies.base import Exchange, Reply, Request, Sampling
from depo.records import Step, StopReason, Task, Trajectory, content_hash
from depo.search.seat import Seat

T = TypeVar("T")

MALFORMED_OBSERVATION = "Your reply needs one Thought line and one Action line."
"""What the agent sees after a reply without a readable action."""
TURNS_LEFT = "Turns left: {left}."
REMINDER = "Finish the task now: {turns} left."

Asking = Generator[Request, list[Reply], T]
"""Work on one path: yields a request at a time and is sent the replies to it."""


@dataclass(frozen=True)
class TurnControl:
    """How an agent is held to fewer turns or tokens while it acts, beside the limit of turns."""

    note: str = ""
    """What it is told beside the environment's system prompt."""
    show_turns: bool = False
    """Every observation ends with the number of turns that are left."""
    remind_at: int | None = None
    """With so many turns left, the observation ends with a reminder to finish."""
    stop_after_repeats: int | None = None
    """The episode ends after so many turns running that did a turn again or could not be carried out."""

    def ending(self, left: int) -> str:
        """What is added to an observation for an agent with `left` turns left, the coming one included."""
        said = [TURNS_LEFT.format(left=left)] if self.show_turns else []
        if left == self.remind_at:
            said.append(REMINDER.format(turns=f"{left} turns are" if left > 1 else "one turn is"))
        return "\n" + " ".join(said) if said else ""

    def plain(self, observations: Iterable[str], max_steps: int) -> list[str]:
        """What the environment said, of the observations that an agent saw from its first turn on."""
        return [
            observation.removesuffix(self.ending(max_steps - turn))
            for turn, observation in enumerate(observations)
        ]


UNCONTROLLED = TurnControl()


@dataclass(frozen=True)
class Outcome:
    """What came of one turn; `stop` is set where it ended the episode."""

    observation: str
    reward: float = 0.0
    valid: bool = False
    stop: StopReason | None = None
    success: bool = False
    error: str = ""


@dataclass(frozen=True)
class Turn:
    """What the agent saw, what it replied, what came of it."""

    observation: str
    reply: Reply
    outcome: Outcome


@dataclass(frozen=True)
class Setting:
    """What stays the same over all episodes of one task."""

    task: Task
    seat: Seat
    sampling: Sampling
    max_steps: int
    seed: int
    policy: str
    tokenizer: str
    control: TurnControl = UNCONTROLLED
    shared: bool = False
    """Several simulations take turns in the one environment, so each brings it back to its own state."""
    ids: Iterator[int] = field(default_factory=itertools.count)
    """Of the requests."""

    @property
    def system(self) -> str:
        """The system prompt."""
        return received_text("\n\n".join(part for part in (self.seat.env.system, self.control.note) if part))


def act(setting: Setting, turns: list[Turn], reply: Reply, state: Any = None) -> Outcome:
    """Carry out `reply` after `turns`; `state` is a snapshot of where they led, None where there is none.

    A failure of the environment is an outcome too: it ends this episode and no other.
    """
    cut: StopReason | None = "max_steps" if len(turns) + 1 >= setting.max_steps else None
    if reply.malformed:
        return Outcome(MALFORMED_OBSERVATION, stop=cut)
    seat = setting.seat
    try:
        seat.go([turn.reply for turn in turns], state)
        result = received(seat.env.step(reply.action))
        if not finite_number(result.reward + sum(turn.outcome.reward for turn in turns)):
            raise BrokenContract("the sum of the environment's rewards is no finite number")
    except Exception as error:
        seat.lost()
        return failure(error)
    seat.moved(reply)
    stop: StopReason | None = "terminated" if result.terminated else cut
    if result.truncated:
        stop = stop or "max_steps"
    return Outcome(
        observation=result.observation,
        reward=result.reward,
        valid=bool(result.info.get("valid", True)),
        stop=stop,
        success=bool(result.info.get("success", False)),
    )


def failure(error: Exception) -> Outcome:
    """The outcome of a turn in which the environment raised `error`."""
    return Outcome("", stop="error", error=received_text(f"{type(error).__name__}: {error}"))


def request(
    setting: Setting, turns: list[Turn], observation: str, n: int, seeds: Iterator[int], state: Any
) -> Request:
    """Ask for `n` replies to `observation` after `turns`, in `state`."""
    if setting.shared:
        # Whether others move the environment before the answer comes must not show, not even in what
        # a failing `restore` does: it is called again in any case.
        setting.seat.lost()
    return Request(
        system=setting.system,
        history=tuple(Exchange(turn.observation, turn.reply) for turn in turns),
        observation=observation,
        n=n,
        sampling=setting.sampling,
        seed=next(seeds),
        env=setting.seat.env,
        state=state if setting.shared else None,
        id=next(setting.ids),
    )


def roll_out(
    setting: Setting, turns: list[Turn], observation: str, seeds: Iterator[int], state: Any = None
) -> Asking[list[Turn]]:
    """Go on from `observation` to the end of the episode; `turns` and those that followed.

    `state` is a snapshot of where `turns` led, None where there is none. The observations of the
    turns are what the agent saw, with what `setting.control` adds to what the environment says.
    """
    turns = list(turns)
    while not turns or turns[-1].outcome.stop is None:
        observation += setting.control.ending(setting.max_steps - len(turns))
        (reply,) = yield request(setting, turns, observation, 1, seeds, state)
        outcome = act(setting, turns, reply, state)
        turns.append(Turn(observation, reply, outcome))
        if outcome.stop is None and _stuck(setting, turns):
            outcome = replace(outcome, stop="early_stop")
            turns[-1] = replace(turns[-1], outcome=outcome)
        observation = outcome.observation
        if outcome.stop is None and not reply.malformed:
            try:
                state = setting.seat.save() if setting.shared else None
            except Exception as error:
                setting.seat.lost()
                broken = replace(outcome, stop="error", error=failure(error).error)
                turns[-1] = replace(turns[-1], outcome=broken)
    return turns


def repeats(turns: Iterable[tuple[str, str]]) -> list[bool]:
    """Of each (observation, action) of an episode, in order: whether it was there before."""
    seen: set[tuple[str, str]] = set()
    found = []
    for turn in turns:
        found.append(turn in seen)
        seen.add(turn)
    return found


def _stuck(setting: Setting, turns: list[Turn]) -> bool:
    """Whether the last turns, as many as the control allows, all led nowhere."""
    most = setting.control.stop_after_repeats
    if most is None or len(turns) < most:
        return False
    seen = setting.control.plain((turn.observation for turn in turns), setting.max_steps)
    again = repeats((o, turn.reply.action or turn.reply.text) for o, turn in zip(seen, turns, strict=True))
    return all(old or not turn.outcome.valid for old, turn in [*zip(again, turns, strict=True)][-most:])


def request_seeds(seed: int, task: Task, stride: int, before: int = 0) -> Iterator[int]:
    """Seeds of one task's requests, `stride` apart and below 2**31; the first `before` are passed over.

    An engine gives the i-th reply to a request the seed `s + i`, so no two replies of one task
    share a seed as long as no request asks for more than `stride`.
    """
    start = int(content_hash([seed, task.id], length=7), 16) + before * stride
    while True:
        yield start % 2**31
        start += stride


def trajectory(setting: Setting, turns: list[Turn], index: int = 0, end: Outcome | None = None) -> Trajectory:
    """The record of a finished episode; `end` is how it ended, where not with its last turn."""
    last = end or turns[-1].outcome
    assert last.stop is not None, "the episode is not over"
    return Trajectory(
        task=setting.task,
        policy=setting.policy,
        tokenizer=setting.tokenizer,
        system=setting.system,
        steps=tuple(_step(turn) for turn in turns),
        reward=sum(turn.outcome.reward for turn in turns),
        success=last.success,
        stop_reason=last.stop,
        error=last.error,
        final_observation=last.observation,
        index=index,
        seed=setting.seed,
    )


def _step(turn: Turn) -> Step:
    reply, outcome = turn.reply, turn.outcome
    return Step(
        observation=turn.observation,
        text=reply.text,
        thought=reply.thought,
        action=reply.action,
        reward=outcome.reward,
        valid=outcome.valid,
        malformed=reply.malformed,
        num_tokens=reply.num_tokens,
        input_tokens=reply.input_tokens,
        token_ids=reply.token_ids,
        logprob=reply.logprob,
    )
