"""Full-text search with Lucene's BM25 scores (k1 = 0.9, b = 0.4), on arrays that can be memory-mapped.

A document's length is rounded through Lucene's one-byte code; a term's score is
`w - w / (1 + tf / (k1 * (1 - b + b * length / average)))` in float32, with `w = idf * times in the query`
and `idf = ln(1 + (N - n + 0.5) / (n + 0.5))`. Scores add up in float64 and are compared as float32.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from depo.envs.webshop.analysis import search_term, search_terms, split_words

K1, B = np.float32(0.9), np.float32(0.4)
_DENSE_SHARE = 6
"""A term in more than one of this many documents is kept as a full column: adding it needs no scatter."""
_BLOCK = 64

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def term_key(term: str) -> int:
    """The 64-bit key a term is found by."""
    return int.from_bytes(
        hashlib.blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )


@dataclass(frozen=True, slots=True)
class Index:
    """The arrays of an index over N documents and T terms; a document's number is its rank by id.

    `keys` uint64 [T], ascending; `spans` int64 [T + 1] into `docs` int32 and `weights` float32 (the formula's
    `1 + tf / ...`); `idf` float32 [T]; `columns` int32 [T], a term's row in `dense` float32 [D, N], or -1.
    """

    keys: NDArray[np.uint64]
    spans: Ints
    docs: NDArray[np.int32]
    weights: Floats
    idf: Floats
    columns: NDArray[np.int32]
    dense: Floats
    size: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray]:
        """The arrays by name, to be stored."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> Index:
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})

    def search(self, text: str, limit: int = 50) -> tuple[Ints, Floats]:
        """Documents and scores, best first; equal scores by document number. At most `limit` of each."""
        scores = self._scores(Counter(search_terms(text)))
        if scores is None or limit < 1:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        return best(scores, limit)

    def _scores(self, counts: Mapping[str, int]) -> Floats | None:
        """The score of every document, float32 [N]; None where no term is known."""
        wanted = np.fromiter(map(term_key, counts), np.uint64, len(counts))
        at = np.searchsorted(self.keys, wanted)
        found = [
            (int(place), times)
            for place, key, times in zip(at, wanted, counts.values(), strict=True)
            if place < len(self.keys) and self.keys[place] == key
        ]
        if not found:
            return None
        docs: list[NDArray[np.int32]] = []
        parts: list[Floats] = []
        columns: list[Floats] = []
        for place, times in found:
            weight = self.idf[place] * np.float32(times)
            column = self.columns[place]
            if column >= 0:
                columns.append(weight - weight / self.dense[column])
            else:
                span = slice(int(self.spans[place]), int(self.spans[place + 1]))
                docs.append(self.docs[span])
                parts.append(weight - weight / self.weights[span])
        size = int(self.size[0])
        total: NDArray[np.float64] = np.zeros(size)
        if docs:
            total = np.bincount(np.concatenate(docs), np.concatenate(parts), size).astype(
                np.float64, copy=False
            )
        for added in columns:
            total += added
        return total.astype(np.float32)


def best(scores: Floats, limit: int) -> tuple[Ints, Floats]:
    """The `limit` highest positive scores and where they are; equal ones by place.

    The limit-th highest maximum of disjoint blocks is a lower bound of the limit-th highest score, so
    that only a few scores need sorting.
    """
    bound = np.float32(0)
    width = len(scores) // _BLOCK
    if width > limit:
        highest = scores[: width * _BLOCK].reshape(_BLOCK, width).max(axis=0)
        bound = np.partition(highest, width - limit)[width - limit]
    places = np.flatnonzero(scores >= bound if bound > 0 else scores)
    order = np.argsort(-scores[places], kind="stable")[:limit]
    places = places[order]
    return places, scores[places]


class IndexBuilder:
    """Takes documents one by one; `finish` gives the index."""

    def __init__(self) -> None:
        self._terms: dict[str, int] = {}
        self._words: dict[str, int] = {}
        self._flat = array("i")
        self._lengths = array("q")

    def add(self, text: str) -> None:
        before = len(self._flat)
        words = self._words
        for word in split_words(text):
            term = words.get(word)
            if term is None:
                term = words[word] = self._number(search_term(word))
            if term >= 0:
                self._flat.append(term)
        self._lengths.append(len(self._flat) - before)

    def _number(self, term: str) -> int:
        return self._terms.setdefault(term, len(self._terms)) if term else -1

    def finish(self, ranks: Ints) -> Index:
        """The index, with the i-th document added numbered `ranks[i]` ([N], a permutation)."""
        lengths = np.frombuffer(self._lengths, np.int64)
        flat = np.frombuffer(self._flat, np.int32).astype(np.int64)
        size, vocabulary = len(lengths), len(self._terms)
        keys = np.fromiter(map(term_key, self._terms), np.uint64, vocabulary)
        by_key = np.argsort(keys)
        renumbered = np.empty(vocabulary, np.int64)
        renumbered[by_key] = np.arange(vocabulary)
        pairs = renumbered[flat] * size + np.repeat(ranks, lengths)
        pairs, counts = np.unique(pairs, return_counts=True)
        terms, docs = np.divmod(pairs, max(size, 1))
        frequency = np.bincount(terms, minlength=vocabulary)
        spans = np.concatenate(([0], np.cumsum(frequency)))
        ranked = np.empty(size, np.int64)
        ranked[ranks] = lengths
        weights = np.float32(1) + counts.astype(np.float32) * _norms(ranked)[docs]
        keys = keys[by_key]
        columns, dense = _dense(spans, docs, weights, size)
        idf = np.log(1 + (np.count_nonzero(lengths) - frequency + 0.5) / (frequency + 0.5))
        return Index(
            keys,
            spans,
            docs.astype(np.int32),
            weights,
            idf.astype(np.float32),
            columns,
            dense,
            np.array([size]),
        )


def _norms(lengths: Ints) -> Floats:
    """`1 / (k1 * (1 - b + b * length / average))` of every document, float32 [N]."""
    filled = max(int(np.count_nonzero(lengths)), 1)
    average = np.float32(lengths.sum() / filled or 1)
    rounded = np.array([rounded_length(n) for n in range(int(lengths.max(initial=0)) + 1)], np.float32)
    table = np.float32(1) / (K1 * ((np.float32(1) - B) + B * rounded / average))
    return table[lengths]


def rounded_length(length: int) -> int:
    """A document length after Lucene's one-byte code: exact below 40, then four significant bits."""
    exact = 24  # lengths below this are free codes of their own
    if length < exact:
        return length
    rest = length - exact
    shift = max(rest.bit_length() - 4, 0)
    return exact + (rest >> shift << shift)


def _dense(spans: Ints, docs: Ints, weights: Floats, size: int) -> tuple[NDArray[np.int32], Floats]:
    """Full columns of the most frequent terms: which row a term has (-1 for none), and the rows."""
    frequent = np.flatnonzero(np.diff(spans) > size / _DENSE_SHARE)
    columns = np.full(len(spans) - 1, -1, np.int32)
    columns[frequent] = np.arange(len(frequent))
    dense = np.ones((len(frequent), size), np.float32)
    for row, term in enumerate(frequent):
        span = slice(spans[term], spans[term + 1])
        dense[row, docs[span]] = weights[span]
    return columns, dense
