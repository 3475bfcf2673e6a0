"""What a thought is worth to the action behind it: the action's log-prob with the thought less without it.

With the thought, the policy reads its own reply up to the action, token for token as it was generated.
Without it, it reads the same reply with nothing between the label (`Thought:`) and the action's line.
The line stays because a policy that always thinks has never seen a reply without one: leaving the line
out would measure how odd that is, not what the thought tells. For the same reason the word `Action:` is
read, not scored: behind an empty thought its surprise is that of having thought nothing. Scored are the
tokens of the action itself, the same ids both times, with the end-of-turn where it was generated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from depo.data.samples import reply_mask, tokens_before
from depo.policies.base import Exchange, Reply, reply_parts
from depo.policies.chat import ChatRenderer
from depo.records import Step, Trajectory
from depo.training.reference import Conversation, ReferenceScorer


@dataclass(frozen=True)
class ThoughtTurn:
    """One turn with a thought and a readable action, as the two sequences to score."""

    task_id: str
    step: int
    """Number of the turn, from 0."""
    with_thought: Conversation
    """Ids of context and reply, and 1 on the tokens that are scored; both `[length]`."""
    without: Conversation
    """The same with an empty thought; as many tokens are scored."""
    thought_tokens: int
    """Tokens before the action's line, the word `Thought:` among them."""
    valid: bool
    """The environment could carry the action out."""
    success: bool
    """The episode ended in success."""

    @property
    def action_tokens(self) -> int:
        """Tokens that are scored."""
        return int(self.with_thought[1].sum())


@dataclass(frozen=True)
class TurnUtility:
    """A scored turn: log-probs (nats) of the action's tokens, summed."""

    task_id: str
    step: int
    logp_with: float
    logp_without: float
    action_tokens: int
    thought_tokens: int
    valid: bool
    success: bool

    @property
    def utility(self) -> float:
        """By how many nats the thought makes the action likelier."""
        return self.logp_with - self.logp_without


def thought_turns(trajectory: Trajectory, renderer: ChatRenderer) -> list[ThoughtTurn]:
    """The turns of an episode that have a thought and a readable action.

    The context is what the policy read at that turn, earlier thoughts included; a step's own ids are
    used where the renderer's tokenizer made them, other steps are tokenised from their text.
    """
    own = trajectory.tokenizer == renderer.fingerprint
    replies = [_reply(step, own) for step in trajectory.steps]
    past: list[Exchange] = []
    turns = []
    for number, (step, reply) in enumerate(zip(trajectory.steps, replies, strict=True)):
        past += [Exchange(c.observation, Reply(c.text, "", "", True, 0)) for c in step.context]
        before = tuple(past)
        past.append(Exchange(step.observation, reply))
        ids = renderer.reply_ids(reply)
        parts = _parts(ids, renderer)
        if parts is None:
            continue
        action, empty = parts
        context = renderer.context(trajectory.system, before, step.observation)
        turns.append(
            ThoughtTurn(
                task_id=trajectory.task.id,
                step=number,
                with_thought=_scored(context + ids[:action], ids[action:]),
                without=_scored(context + empty, ids[action:]),
                thought_tokens=reply_mask(ids, renderer).count(1),
                valid=step.valid,
                success=trajectory.success,
            )
        )
    return turns


def utilities(turns: Sequence[ThoughtTurn], scorer: ReferenceScorer) -> list[TurnUtility]:
    """Score turns, in order; what a turn gets does not depend on the others beyond float32's rounding."""
    logps = scorer.score([turn.with_thought for turn in turns] + [turn.without for turn in turns])
    sums = [float(values.sum(dtype=np.float64)) for values in logps]
    return [
        TurnUtility(
            task_id=turn.task_id,
            step=turn.step,
            logp_with=with_thought,
            logp_without=without,
            action_tokens=turn.action_tokens,
            thought_tokens=turn.thought_tokens,
            valid=turn.valid,
            success=turn.success,
        )
        for turn, with_thought, without in zip(turns, sums[: len(turns)], sums[len(turns) :], strict=True)
    ]


def _reply(step: Step, own: bool) -> Reply:
    """The reply of a step, its ids only where they are this tokenizer's own."""
    reply = Reply(step.text, step.thought, step.action, step.malformed, step.num_tokens)
    return replace(reply, token_ids=step.token_ids) if own else reply


def _parts(ids: tuple[int, ...], renderer: ChatRenderer) -> tuple[int, tuple[int, ...]] | None:
    """(place of the action's first id, ids of the reply up to it with an empty thought).

    None for a reply without a thought or a readable action.
    """
    text = renderer.text(ids)
    parts = reply_parts(text)
    if parts.line is None or not parts.thoughts or renderer.holds_control(ids):
        return None
    place = tokens_before(ids, parts.action[0], renderer)
    empty = renderer.text(ids[:place])
    for start, end in reversed(parts.thoughts):
        label = empty[:start].rstrip()
        empty = label + empty[end:] if label else empty[end:].lstrip()
    return place, renderer.reply(empty)[:-1]


def _scored(read: Iterable[int], scored: Sequence[int]) -> Conversation:
    """What is read and then scored, as ids and a mask of the latter, both `[length]`."""
    read = tuple(read)
    mask = np.concatenate([np.zeros(len(read), np.int32), np.ones(len(scored), np.int32)])
    return np.array([*read, *scored], dtype=np.int32), mask
