"""Which of the agent's own tokens are trained on, how much each weighs, and where a sequence may be cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from depo.objectives.turns import turn_discounts

IntArray = np.ndarray[tuple[int, ...], np.dtype[np.integer]]
FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.floating]]


@dataclass(frozen=True)
class Trained:
    """What a method trains on."""

    tokens: Literal["all", "last", "actions", "thoughts"] = "all"
    """All of the agent's own tokens, those of its last turn, of its actions, or of its thoughts."""
    turn_discount: float | None = None
    """gamma of DMPO, which weighs earlier turns more; None weighs all turns alike."""


def trained_weights(own: IntArray, offsets: IntArray, trained: Trained) -> FloatArray:
    """Weight of each token's log-prob, float32, as long as `own`.

    `own` is the agent mask of all sequences one after the other, sequence i at
    `own[offsets[i]:offsets[i + 1]]`. With a discount, a turn's tokens weigh what `turn_discounts` says.
    """
    wanted = {"actions": own == 2, "thoughts": own == 1}.get(trained.tokens, own != 0)
    if trained.tokens != "last" and trained.turn_discount is None:
        return wanted.astype(np.float32)
    turn, turns = turns_of(own, offsets)
    if trained.tokens == "last":
        wanted = wanted & (turn == turns - 1)
    weights = wanted.astype(np.float64)
    if trained.turn_discount is not None:
        weights *= _discounts(turn, turns, trained.turn_discount)
    return weights.astype(np.float32)


def _discounts(turn: IntArray, turns: IntArray, discount: float) -> FloatArray:
    """Weight of each token's turn; 0 before the first one, where nothing is trained."""
    weights = np.zeros(len(turn))
    for length in np.unique(turns):
        here = (turns == length) & (turn >= 0)
        weights[here] = np.array(turn_discounts(int(length), discount))[turn[here]] if length else 0.0
    return weights


def turns_of(own: IntArray, offsets: IntArray) -> tuple[IntArray, IntArray]:
    """Of each token the turn it belongs to (from 0, -1 before the first) and its sequence's number of turns.

    A turn is a run of own tokens: the template always puts tokens of its own between two of them.
    """
    mine = own != 0
    begins = mine & ~np.concatenate([[False], mine[:-1]])
    begins[offsets[:-1][offsets[:-1] < len(own)]] = mine[offsets[:-1][offsets[:-1] < len(own)]]
    count = np.concatenate([[0], np.cumsum(begins)])
    lengths = np.diff(offsets)
    turn = count[1:] - 1 - np.repeat(count[offsets[:-1]], lengths)
    return turn, np.repeat(np.diff(count[offsets]), lengths)


def has_weight(weights: FloatArray, offsets: IntArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Whether any token of each sequence has a weight, `[sequences]`."""
    return np.diff(np.concatenate([[0], np.cumsum(weights != 0)])[offsets]) > 0


def cut_lengths(own: IntArray, lengths: IntArray, max_length: int) -> IntArray:
    """Tokens to keep of each sequence, `[sequences]`: all up to the last end of a turn within `max_length`.

    All of it where not even the first turn fits.
    """
    kept = lengths.copy()
    starts = np.cumsum(lengths) - lengths
    for row in np.flatnonzero(lengths > max_length):
        mine = own[starts[row] : starts[row] + max_length + 1] != 0
        ends = np.flatnonzero(mine[:-1] & ~mine[1:]) + 1
        if len(ends):
            kept[row] = ends[-1]
    return kept
