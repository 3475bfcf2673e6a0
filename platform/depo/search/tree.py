"""The search tree: nodes are agent states, edges the distinct actions proposed in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from depo.policies.base import Reply
from depo.search.episode import Outcome, Turn


@dataclass(eq=False)
class Node:
    """One agent state, reached by an action; the root is the start of the task.

    Several replies with one action are one node. Its `outcome` is known from its first visit on,
    its `children` from its second (the root's from the first).
    """

    id: int
    parent: Node | None = None
    replies: tuple[Reply, ...] = ()
    """Everything proposed with this node's action, in the order drawn; empty at the root."""
    used: int = 0
    """How many of `replies` stand in a trajectory, or in one under way."""
    outcome: Outcome | None = None
    state: Any = None
    """The environment's snapshot; None where it has none, and where the episode ended."""
    children: list[Node] | None = None
    expanding: bool = False
    """Its children are asked for."""
    context: tuple[Reply, ...] = ()
    """The path's replies that the children are proposed after, known once they are asked for."""
    visits: int = 0
    total: float = 0.0
    """Sum of the returns of the rollouts through this node."""
    tokens: int = 0
    """Sum of the tokens generated in the rollouts through this node."""
    pending: int = 0
    """Simulations through this node that are under way."""
    undecided: int = 0
    """Those of them that have not gone on from this node so far."""
    closed: bool = False
    """No further visit can bring a new trajectory, as far as the visits backed up tell."""

    @property
    def value(self) -> float:
        """Mean return of the rollouts through this node; 0 before the first."""
        return self.total / self.visits if self.visits else 0.0

    @property
    def ended(self) -> bool:
        """The episode is over in this state."""
        return self.outcome is not None and self.outcome.stop is not None

    @property
    def exhausted(self) -> bool:
        """All that can follow is closed. Simulations under way count for nothing here: how far each
        of them has come depends on the order of the answers.
        """
        if self.ended:
            return self.visits >= len(self.replies)
        return self.children is not None and all(child.closed for child in self.children)


def merge(replies: Iterable[Reply]) -> list[tuple[Reply, ...]]:
    """Replies grouped by equal action, case and spacing aside, in the order first drawn.

    Malformed replies form one group: all of them leave the environment as it is.
    """
    groups: dict[str, list[Reply]] = {}
    for reply in replies:
        groups.setdefault("" if reply.malformed else _normal(reply.action), []).append(reply)
    return [tuple(group) for group in groups.values()]


def _normal(action: str) -> str:
    return " ".join(action.lower().split())


def path_to(node: Node) -> list[Node]:
    """The nodes from below the root down to `node`."""
    path: list[Node] = []
    while node.parent is not None:
        path.append(node)
        node = node.parent
    return path[::-1]


def speak(node: Node, turns: Sequence[Turn]) -> Reply:
    """The reply that stands for `node` in a trajectory going on from `turns`: its next unused one.

    A node whose replies are all used repeats the one that its children were proposed after. A
    reply proposed after other words than now stand before it keeps its text, but not its log-prob.
    """
    assert node.parent is not None
    if node.used < len(node.replies):
        reply = node.replies[node.used]
        node.used += 1
    else:
        reply = node.context[-1] if node.context else node.replies[-1]
    said = tuple(turn.reply for turn in turns)
    drawn_after = node.parent.context
    if said == drawn_after:
        return reply
    longer = sum(r.num_tokens for r in said) - sum(r.num_tokens for r in drawn_after)
    return replace(reply, logprob=None, input_tokens=max(0, reply.input_tokens + longer))
