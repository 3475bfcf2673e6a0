"""Which way a simulation goes down the tree."""

from __future__ import annotations

import math

from depo.search.tree import Node


def uct(value: float, visits: int, parent_visits: int, exploration: float) -> float:
    """Upper confidence bound of a child, `Q + w*sqrt(ln N(parent)/N)` (Kocsis & Szepesvári, 2006).

    Infinite for a child that was never visited.
    """
    if visits == 0:
        return math.inf
    return value + exploration * math.sqrt(math.log(parent_visits) / visits)


def best_child(node: Node, exploration: float) -> Node:
    """The child with the highest UCT that can still bring something new; of equals the first."""
    open_children = [child for child in node.children or () if not child.exhausted]
    return max(open_children, key=lambda c: uct(c.value, c.visits, node.visits, exploration))


def descend(root: Node, exploration: float) -> Node:
    """The node at which a simulation leaves the tree: one without children as yet."""
    node = root
    while node.children is not None:
        node = best_child(node, exploration)
    return node
