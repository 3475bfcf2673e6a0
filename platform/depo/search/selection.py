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


def score(child: Node, parent: Node, root: Node, exploration: float, cost_weight: float) -> float:
    """UCT of `child`, simulations in flight counted as visits that return 0 (virtual loss; Chaslot et
    al., 2008), less `cost_weight` times its mean tokens over the root's.
    """
    visits = child.visits + child.pending
    value = child.total / visits if visits else 0.0
    if cost_weight and child.visits and root.tokens:
        value -= cost_weight * (child.tokens / child.visits) / (root.tokens / root.visits)
    return uct(value, visits, parent.visits + parent.pending - parent.undecided, exploration)


def best_child(node: Node, root: Node, exploration: float, cost_weight: float = 0.0) -> Node:
    """The child with the highest score that can still bring something new; of equals the first."""
    open_children = [child for child in node.children or () if not child.closed]
    return max(open_children, key=lambda child: score(child, node, root, exploration, cost_weight))
