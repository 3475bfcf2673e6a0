"""What a finished rollout teaches the nodes it went through."""

from __future__ import annotations

from depo.search.tree import Node


def back_up(leaf: Node, reward: float) -> None:
    """Count one visit with return `reward` (undiscounted) for `leaf` and everything above it."""
    node: Node | None = leaf
    while node is not None:
        node.visits += 1
        node.total += reward
        node = node.parent
