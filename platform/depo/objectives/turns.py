"""Weights of the turns of a trajectory."""

from __future__ import annotations


def turn_discounts(num_turns: int, discount: float) -> tuple[float, ...]:
    """DMPO's weight of each turn (arXiv 2406.14868), `[num_turns]`, the first one 1 and falling to above 0.

    `phi(t, T) = gamma**t * (1 - gamma**(T - t)) / (1 - gamma**T)` with t from 0, and its limit
    `(T - t) / T` at `discount` 1. The weights hold for the turn's own tokens.
    """
    turns = range(num_turns)
    # (gamma**t - gamma**T) / (1 - gamma**T) as sums of powers, which do not cancel near gamma = 1.
    powers = [discount**turn for turn in turns]
    return tuple(sum(powers[turn:]) / sum(powers) for turn in turns)
