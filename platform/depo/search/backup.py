"""What a simulation leaves in the nodes it goes through: while it is under way, and once it is over."""

from __future__ import annotations

from collections.abc import Iterator

from depo.search.tree import Node


def hold(leaf: Node) -> None:
    """Count a simulation through `leaf` as under way there and in everything above it."""
    for node in _upwards(leaf):
        node.pending += 1


def release(leaf: Node) -> None:
    """Undo one `hold`."""
    for node in _upwards(leaf):
        node.pending -= 1


def back_up(leaf: Node, reward: float, tokens: int = 0) -> None:
    """Count one visit with return `reward` (undiscounted) and `tokens` generated for `leaf` and all above."""
    for node in _upwards(leaf):
        node.visits += 1
        node.total += reward
        node.tokens += tokens


def _upwards(node: Node | None) -> Iterator[Node]:
    while node is not None:
        yield node
        node = node.parent
