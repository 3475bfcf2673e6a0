"""The paper's numbers: what stands beside which table, and that they hold together."""

from __future__ import annotations

import pytest

from depo.config.schema import MethodConfig
from depo.evaluation.metrics import METRICS
from depo.report.paper import DEFAULTS, MAIN, paper_rows, paper_text


def value(env: str, model: str, setting: str, key: str) -> float:
    (row,) = [r for r in MAIN if (r.env, r.model, r.setting) == (env, model, setting)]
    return row.values[key]


def test_the_numbers_give_the_changes_that_the_abstract_states():
    llama, qwen = ("babyai", "Llama-3.1-8B"), ("babyai", "Qwen2.5-7B")
    fewer = 1 - value(*llama, "DEPO", "tokens_all") / value(*llama, "BC", "tokens_all")
    assert fewer == pytest.approx(0.609, abs=5e-4)
    better = value(*qwen, "DEPO", "success") / value(*qwen, "KTO", "success") - 1
    assert better == pytest.approx(0.293, abs=5e-4)


def test_rows_speak_of_our_metrics_and_settings():
    keys = {metric.key for metric in METRICS}
    for row in MAIN:
        assert row.values.keys() <= keys and row.source.startswith("arXiv 2511.15392")
        assert 0 < row.values["success"] < 1 < row.values["tokens_all"]
    assert DEFAULTS.keys() <= MethodConfig.model_fields.keys()


def test_a_table_gets_its_environment_and_a_sweep_a_word_on_each_field():
    plain = paper_rows("babyai")
    assert [row.setting for row in plain] == ["BC", "KTO", "DEPO"] * 2
    assert {row.env for row in paper_rows("webshop")} == {"webshop"}
    swept = paper_rows("babyai", ["alpha_tokens", "alpha_steps", "weight_decay"])
    assert swept[:6] == plain
    alpha, unknown = swept[6:]  # the two alphas are one remark
    assert (alpha.setting, alpha.values) == ("alpha1, alpha2", {})
    assert unknown.note == "the paper reports nothing on weight_decay"
    (missing,) = paper_rows("mine")
    assert missing.note == "the paper has no main table of this environment"


def test_the_text_is_a_line_a_row_with_its_source():
    text = paper_text(paper_rows("babyai", ["beta"]))
    assert "Llama-3.1-8B DEPO: success 0.88  tokens_all 327  [arXiv 2511.15392, Table 1]" in text
    assert "beta: trained with 0.2" in text
    assert len(text.splitlines()) == 8
    assert paper_text([]) == ""
