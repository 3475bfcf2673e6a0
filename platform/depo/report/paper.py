"""What the paper reports, to stand beside a table or a sweep.

Every number has a source. The three Llama rows on BabyAI are the paper's table. The other rows were taken
from a public summary of it, whose Llama rows on BabyAI are the same and whose numbers give the abstract's
60.9% fewer tokens (836 to 327) and 29.3% more success (0.58 to 0.75). Where no number is known, a row
without values says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

PAPER = "arXiv 2511.15392"
_TABLE = f"{PAPER}, Table 1"
_SUMMARY = f"{PAPER}, as a public summary states it"
_LLAMA, _QWEN = "Llama-3.1-8B", "Qwen2.5-7B"


@dataclass(frozen=True)
class PaperRow:
    """One published result, or what the paper says where it gives no number."""

    source: str
    model: str
    env: str
    """Id of the environment."""
    setting: str
    """What was run: BC, KTO, DEPO, or a change to it."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Metric key (`success` as a share, `tokens_all` in tokens) to the value; empty for a remark."""
    note: str = ""


def _table(env: str, model: str, source: str, rows: Mapping[str, tuple[float, float]]) -> list[PaperRow]:
    return [
        PaperRow(source, model, env, setting, {"success": success, "tokens_all": tokens})
        for setting, (success, tokens) in rows.items()
    ]


MAIN: tuple[PaperRow, ...] = (
    *_table("babyai", _LLAMA, _TABLE, {"BC": (0.77, 836), "KTO": (0.87, 342), "DEPO": (0.88, 327)}),
    *_table("babyai", _QWEN, _SUMMARY, {"BC": (0.47, 2062), "KTO": (0.58, 1199), "DEPO": (0.75, 893)}),
    *_table("webshop", _LLAMA, _SUMMARY, {"BC": (0.47, 840), "KTO": (0.48, 776), "DEPO": (0.50, 633)}),
    *_table("webshop", _QWEN, _SUMMARY, {"BC": (0.44, 1014), "KTO": (0.54, 886), "DEPO": (0.56, 726)}),
)
"""Success and T@All of the main table."""

DEFAULTS: Mapping[str, Any] = {
    "beta": 0.2,
    "lambda_desirable": 1.0,
    "lambda_undesirable": 1.0,
    "alpha_tokens": {_LLAMA: 3.0, _QWEN: 2.0},
    "alpha_steps": {_LLAMA: 3.0, _QWEN: 2.0},
}
"""Settings that the paper trains with, where needed by model."""

_REMARKS: Mapping[str, tuple[str, str]] = {
    "alpha_tokens": (
        "alpha1, alpha2",
        f"trained with 3 each ({_LLAMA}) and 2 each ({_QWEN}); both above zero are said to be best, and "
        f"alpha1 at zero to cost {_QWEN} success and reward; no numbers of that sweep are known here",
    ),
    "beta": ("beta", "trained with 0.2; no number of another value is known here"),
    "lambda_desirable": (
        "lambda_D, lambda_U",
        "trained with 1 each; no number of other values is known here",
    ),
    "placement": ("placement", "the bonus is an offset; the paper has no other placement"),
    "penalize_undesirable": (
        "penalty on U",
        f"an equal penalty on U changes {_LLAMA} on BabyAI by +46.5% in T@All and +39.4% in S@All, and "
        "lowers success; its own numbers are not known here",
    ),
    "data_fraction": (
        "share of the data",
        "with 25% of the data T@All falls by over 10%, with all of it by about 60%; other points stand in "
        "a figure without numbers",
    ),
    "suites": (
        "GSM8K, MATH, SimulEq",
        f"mean accuracy rises; tokens fall for {_LLAMA} and rise slightly for {_QWEN}; the numbers are in a "
        "figure only",
    ),
}
_SAME_REMARK = {"alpha_steps": "alpha_tokens", "lambda_undesirable": "lambda_desirable"}


def paper_rows(env: str, fields: Collection[str] = ()) -> list[PaperRow]:
    """What belongs beside a table of `env` (its id), or beside a sweep over `fields` of the method.

    The main table's rows of the environment, then for each field (`suites` stands for out-of-domain
    maths) what is known of it, as a row without values.
    """
    rows = [row for row in MAIN if row.env == env]
    if not rows:
        rows = [PaperRow(PAPER, "", env, env, note="the paper has no main table of this environment")]
    named = list(dict.fromkeys(_SAME_REMARK.get(name, name) for name in fields))
    for name in named:
        setting, note = _REMARKS.get(name, (name, f"the paper reports nothing on {name}"))
        rows.append(PaperRow(_SUMMARY if name in _REMARKS else PAPER, "", env, setting, note=note))
    return rows


def paper_text(rows: Collection[PaperRow]) -> str:
    """The rows as lines for a terminal, "" for none."""
    if not rows:
        return ""
    lines = ["beside it, the paper's own numbers (other models; success as a share):"]
    for row in rows:
        values = "  ".join(f"{key} {value:g}" for key, value in row.values.items())
        what = f"{row.model} {row.setting}".strip()
        lines.append(f"  {what}: {values or row.note}  [{row.source}]")
    return "\n".join(lines)
