"""What a simulation leaves in the nodes it goes through: while it is under way, and once it is over."""

from __future__ import annotations

from collections.abc import Iterator

from depo.search.tree import Node


def enter(node: Node) -> None:
    """Count a simulation as under way through `node`, and as not having left it for a child so far."""
    node.pending += 1
    node.undecided += 1


def leave(node: Node) -> None:
    """The simulation that entered `node` goes on from it: to a child, or out of the tree."""
    node.undecided -= 1


def back_up(leaf: Node, reward: float, tokens: int = 0, dead: bool = False) -> None:
    """Turn a simulation under way through `leaf` and all above into a visit with return `reward`
    (undiscounted) and `tokens` generated, and close what can bring nothing new after it: a `dead`
    leaf, where the environment failed, at once.
    """
    leaf.closed = leaf.closed or dead
    for node in _upwards(leaf):
        node.pending -= 1
        node.visits += 1
        node.total += reward
        node.tokens += tokens
        node.closed = node.closed or node.exhausted


def _upwards(node: Node | None) -> Iterator[Node]:
    while node is not None:
        yield node
        node = node.parent
