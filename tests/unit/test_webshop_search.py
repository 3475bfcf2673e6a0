"""Search against recorded Lucene rankings, hand-made scores and a plain sort."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webshop_help import golden, needs_golden

from depo.envs.webshop.analysis import search_terms, split_words, stem
from depo.envs.webshop.index import IndexBuilder, best, rounded_length
from depo.envs.webshop.store import Shop


def index_of(texts):
    builder = IndexBuilder()
    for text in texts:
        builder.add(text)
    return builder.finish(np.arange(len(texts)))


@needs_golden
def test_every_recorded_search_has_lucenes_terms_ranking_and_scores(tmp_path):
    shop = Shop.open(golden("webshop_catalogue_1k.tar.gz"), cache_dir=tmp_path)
    with gzip.open(golden("webshop_search.jsonl.gz"), "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    assert len(cases) == 192
    for case in cases:
        assert search_terms(case.get("q", case.get("analyse"))) == case["tokens"]
        if "q" in case:
            found = [(asin, round(score, 4)) for asin, score in shop.search_scores(case["q"])]
            assert found == [tuple(hit) for hit in case["top50"]], case["q"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4.5 oz, 1,000.50 a.b 1.a", ["4.5", "oz", "1,000.50", "a.b", "1", "a"]),
        ("x-large 6.6feet v1.2 _a_b_ __", ["x", "large", "6.6feet", "v1.2", "_a_b_"]),
        ("naïve Ελλάδα don’t 2.5µm", ["naïve", "Ελλάδα", "don’t", "2.5µm"]),
        ("東京タワー ひら 한국어 สวัสดี", ["東", "京", "タワー", "ひ", "ら", "한국어", "สวัสดี"]),
        ("e\u0301te\u0301 foo:bar", ["e\u0301te\u0301", "foo:bar"]),
        ("a" * 600, ["a" * 255, "a" * 255, "a" * 90]),
        ("[] <q> \x00 \ud800", ["q"]),
    ],
)
def test_words_follow_unicodes_boundaries(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize(
    ("word", "stemmed"),
    [
        ("assembly", "assembl"),  # assembli -> assemble -> assembl
        ("incredibly", "incred"),  # incredibli -> incredible -> incred
        ("infallibly", "infal"),  # infallibli -> infallible -> infall -> infal
        ("doubly", "doubli"),  # no vowel and consonant before -bli
        ("ideology", "ideolog"),
        ("theology", "theologi"),  # no vowel and consonant before -logi
        ("apologies", "apolog"),
        ("reliably", "reliabl"),  # reliabli -> reliable, and its measure before -able is 1
        ("as", "as"),
        ("relational", "relat"),
    ],
)
def test_stems_are_lucenes(word, stemmed):
    assert stem(word) == stemmed


def test_possessives_and_stop_words_are_dropped():
    assert search_terms("The Men's and WOMEN’S shoes for İstanbul") == ["men", "women", "shoe", "istanbul"]


def test_lengths_are_rounded_to_four_significant_bits_above_24():
    assert [rounded_length(n) for n in (0, 23, 39, 40, 41, 42, 56, 59, 60)] == [
        0,
        23,
        39,
        40,
        40,
        42,
        56,
        56,
        60,
    ]


def test_a_score_is_the_formulas():
    found, scores = index_of(["red chair", "red red lamp table", "blue lamp"]).search("red zzz red")
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    average = (2 + 4 + 2) / 3
    expected = {
        0: 2 * idf * 1 / (1 + 0.9 * (0.6 + 0.4 * 2 / average)),
        1: 2 * idf * 2 / (2 + 0.9 * (0.6 + 0.4 * 4 / average)),
    }
    assert sorted(expected, key=lambda at: -expected[at]) == found.tolist()
    assert scores.tolist() == pytest.approx(sorted(expected.values(), reverse=True), rel=1e-6)


def test_equal_scores_come_in_order_of_their_number():
    found, scores = index_of(["lamp", "chair", "lamp", "lamp"]).search("lamp")
    assert found.tolist() == [0, 2, 3]
    assert len(set(scores.tolist())) == 1


@pytest.mark.parametrize("query", ["", "the", "zebra", "[][]", "\ud800", "東京"])
def test_a_query_without_a_known_term_finds_nothing(query):
    found, scores = index_of(["red chair", "blue lamp"]).search(query)
    assert len(found) == len(scores) == 0


def test_documents_without_words_do_not_count():
    found, _ = index_of(["", "lamp", "the"]).search("lamp")
    assert found.tolist() == [1]
    assert len(index_of([]).search("lamp")[0]) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=9000), st.integers(1, 60), st.integers(1, 400))
def test_the_best_are_those_of_a_full_sort(values, limit, repeat):
    scores = np.resize(np.array(values or [0], np.float32), len(values) * repeat % 9001)
    places, kept = best(scores, limit)
    order = [at for at in np.argsort(-scores, kind="stable") if scores[at] > 0][:limit]
    assert places.tolist() == order
    assert kept.tolist() == scores[order].tolist()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_can_be_indexed_and_found(text):
    found, _ = index_of([text, "lamp"]).search(text)
    assert (0 in found.tolist()) == bool(search_terms(text))


def test_a_very_long_query_is_an_ordinary_one():
    assert index_of(["red chair", "lamp"]).search("chair " * 20_000 + "x" * 10_000)[0].tolist() == [0]
