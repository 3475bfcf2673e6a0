"""Every objective of the registry, and one's own, through the trainers: what is lost, trained and audited."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from training_help import DEPO, KTO, SFT, gap, make_home, samples_of, score, spec
from transformers import AutoModelForCausalLM

from depo.config.base import ConfigError
from depo.config.method import MethodConfig
from depo.objectives.registry import Losses, Objective, Scores
from depo.training.run import train

pytestmark = pytest.mark.slow


def hinge(scores: Scores, kl: torch.Tensor, method: MethodConfig) -> Losses:
    """A loss that no registry has: `max(0, width - beta * s * (r - kl))`."""
    sign = scores.desirable.float() * 2 - 1
    margin = method.beta * sign * (scores.log_ratio - kl)
    left = method.options["width"] - margin
    return Losses(left.clamp(min=0), method.beta * (left > 0).float(), margin.detach())


def likelihood_gap(chosen: Scores, rejected: Scores, method: MethodConfig) -> Losses:
    margin = chosen.logp - rejected.logp
    return Losses(-margin, torch.ones_like(margin), margin.detach())


def steps_first(scores: Scores, method: MethodConfig) -> torch.Tensor:
    return (scores.num_steps == 1).float()


HINGE = Objective("hinge", "unpaired", hinge, needs_reference=True, needs_kl=True)
GAP = Objective("gap", "paired", likelihood_gap)
SHORT = Objective("short", "supervised", steps_first)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("training"))


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def start_scores(home: Path) -> dict[str, float]:
    samples = samples_of(home)
    model = AutoModelForCausalLM.from_pretrained(home / "start/model")
    return dict(zip([s["id"] for s in samples], score(model, samples).tolist(), strict=True))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("dpo", {}),
        ("dpo-offset", {"objective": "dpo", "alpha_steps": 2.0}),
        ("dmpo", {"turn_discount": 0.5}),
        ("kto", {}),
        ("actions", {"objective": "depo", "trained_tokens": "actions"}),
        ("last", {"objective": "dpo", "trained_tokens": "last"}),
        ("centred", {"objective": "depo", "placement": "centred", "alpha_steps": 2.0, "difficulty": "task"}),
    ],
)
def test_reference_based_methods_start_at_the_reference_and_part_the_labels(home, name, settings):
    method = KTO | {"objective": name, "max_steps": 12, "nll_coefficient": 0.0} | settings
    train(spec(home, f"parts-{name}", **method))
    rows = rows_of(home / f"parts-{name}")
    assert abs(rows[0]["logratio_desirable"]) < 1e-3 and abs(rows[0]["logratio_undesirable"]) < 1e-3
    assert rows[-1]["logratio_desirable"] > rows[-1]["logratio_undesirable"] + 0.1


@pytest.mark.parametrize("name", ["kto", "depo", "dpo", "dmpo"])
def test_the_reference_of_another_policy_is_refused(home, name):
    told = spec(home, f"foreign-{name}", **KTO | {"objective": name})
    foreign = type(told)(**{**vars(told), "model_dir": str(home / "initial")})
    with pytest.raises(ConfigError, match="not those of the policy that is trained"):
        train(foreign)
    assert not (home / f"foreign-{name}/model").exists()


@pytest.mark.parametrize("name", ["kto", "depo", "dpo", "dmpo", "simpo"])
def test_the_nll_term_is_the_mean_per_trained_token_of_desirable_samples(home, name):
    losses, rows = [], []
    for coefficient in (0.0, 0.5):
        method = KTO | {"objective": name, "max_steps": 1, "nll_coefficient": coefficient}
        train(spec(home, f"nll-{name}-{coefficient}", **method))
        rows = rows_of(home / f"nll-{name}-{coefficient}")
        losses.append(rows[0]["loss"])
    audit = pq.read_table(home / f"nll-{name}-0.5/audit.parquet").to_pandas()
    trained = {s["id"]: sum(own > 0 for own in s["agent_mask"]) for s in samples_of(home)}
    logps, chosen = start_scores(home), audit["sample_id"][audit["label"] == "D"]
    expected = -sum(logps[i] for i in chosen) / sum(trained[i] for i in chosen)
    assert rows[0]["nll"] == pytest.approx(expected, rel=1e-4)
    assert losses[1] - losses[0] == pytest.approx(0.5 * expected, rel=1e-4)


def test_first_losses_have_their_closed_forms(home):
    """All 24 samples in one step: the loss is the mean over all of them, or over the pairs."""
    whole = {"max_steps": 1, "nll_coefficient": 0.0, "batch_size": 24}
    kto = train(spec(home, "first-kto", **KTO | whole, lambda_desirable=3.0))
    assert kto["loss"] == pytest.approx((3.0 + 1.0) / 4, rel=1e-4)
    dpo = train(spec(home, "first-dpo", **KTO | whole | {"objective": "dpo", "pairs_per_task": 4}))
    assert dpo["loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert dpo["pairs"] == 24 and dpo["desirable"] == dpo["undesirable"] == 12
    simpo = {"objective": "simpo", "pairs_per_task": 4, "beta": 2.0, "simpo_margin": 0.3}
    found = train(spec(home, "first-simpo", **KTO | whole | simpo))
    logps, samples = start_scores(home), samples_of(home)
    mean = {s["id"]: logps[s["id"]] / sum(own > 0 for own in s["agent_mask"]) for s in samples}
    margins = [
        2.0 * (mean[a["id"]] - mean[b["id"]]) - 0.3
        for a in samples
        for b in samples
        if a["task_id"] == b["task_id"] and a["label"] == "D" and b["label"] == "U"
    ]
    assert len(margins) == 24
    assert found["loss"] == pytest.approx(np.mean(np.log1p(np.exp(-np.array(margins)))), rel=1e-4)


@pytest.mark.parametrize(
    ("weighting", "weigh"),
    [
        ({"weighting": "return", "weighting_temperature": 0.2}, lambda s: math.exp((s["reward"] - 1) / 0.2)),
        (
            {"weighting": "length", "weighting_temperature": 0.5, "token_budget": 16},
            lambda s: math.exp(-s["num_tokens"] / 8) * (s["label"] == "D"),
        ),
    ],
)
def test_weighted_bc_minimises_the_weighted_mean_per_token(home, weighting, weigh):
    used = [s for s in samples_of(home) if weigh(s)]
    method = SFT | {"objective": "weighted_bc", "max_steps": 1, "batch_size": len(used)} | weighting
    found = train(spec(home, f"weighted-{weighting['weighting']}", **method))
    assert found["samples"] == len(used) in (12, 24)
    logps = start_scores(home)
    total = sum(weigh(s) * sum(own > 0 for own in s["agent_mask"]) for s in used)
    assert found["loss"] == pytest.approx(-sum(weigh(s) * logps[s["id"]] for s in used) / total, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("HINGE", DEPO | {"options": {"width": 1.0}, "alpha_tokens": 0.0, "alpha_steps": 0.0}),
        ("GAP", KTO | {"nll_coefficient": 0.0}),
        ("SHORT", SFT),
    ],
)
def test_an_objective_of_ones_own_trains_through_the_same_path(home, name, method):
    told = spec(home, f"own-{name}", **method | {"objective": f"test_training_objectives:{name}"})
    summary = train(told)
    assert gap(home / f"own-{name}/model", home / "start/model") > 1e-3
    if name == "HINGE":
        rows = rows_of(home / "own-HINGE")
        nll = rows[0]["nll"] * 0.2
        assert rows[0]["loss"] == pytest.approx(1.0 + nll, rel=1e-3)
        assert rows[0]["gradient_weight_desirable"] == rows[0]["gradient_weight_undesirable"] == 0.5
        assert rows[-1]["logratio_desirable"] > rows[-1]["logratio_undesirable"]
    if name == "GAP":
        audit = pq.read_table(home / "own-GAP/audit.parquet").to_pandas()
        assert audit["log_ratio"].isna().all() and (audit["gradient_weight"] == 1).all()
    if name == "SHORT":
        short = [s for s in samples_of(home) if s["num_steps"] == 1]
        assert summary["samples"] == len(short) < 24


def test_the_audit_holds_every_trained_sample_and_the_metrics_are_its_means(home):
    told = spec(home, "audit", **DEPO | {"max_steps": 40, "learning_rate": 1e-3, "lambda_desirable": 1.5})
    train(told)
    audit = pq.read_table(home / "audit/audit.parquet").to_pandas()
    assert audit.groupby("step").size().tolist() == [8] * 40
    known = {s["id"]: s for s in samples_of(home)}
    for column in ("label", "num_tokens", "num_steps"):
        assert [known[i][column] for i in audit["sample_id"]] == audit[column].tolist()
    assert audit["sample_id"].value_counts().between(13, 14).all()  # 320 places among 24 samples
    desirable = audit["label"] == "D"
    slope = 1 / (1 + np.exp(-audit["margin"])) / (1 + np.exp(audit["margin"]))
    expected = 0.5 * np.where(desirable, 1.5, 1.0) * slope
    assert np.allclose(audit["gradient_weight"], expected, rtol=1e-5)
    tokens_per_step = audit["num_tokens"] / audit["num_steps"]
    bonus = np.where(desirable, 3 / tokens_per_step + 2 / audit["num_steps"], 0)
    assert np.allclose(audit["bonus"], bonus, rtol=1e-6)
    row = rows_of(home / "audit")[-1]
    assert row["step"] == 40
    window = audit[audit["step"].isin([39, 40])]
    for label, mark in (("desirable", "D"), ("undesirable", "U")):
        some = window[window["label"] == mark]
        # A mean of terms of either sign: float32 rounds by their size, not by its own.
        size = float(some["log_ratio"].abs().mean())
        assert row[f"logratio_{label}"] == pytest.approx(some["log_ratio"].mean(), abs=1e-5 * size)
        assert row[f"gradient_weight_{label}"] == pytest.approx(some["gradient_weight"].mean(), rel=1e-5)
    some = window[window["label"] == "D"]
    assert row["beta_bonus"] == pytest.approx(0.5 * some["bonus"].mean(), rel=1e-5)
    assert row["saturated_share"] == pytest.approx((window["margin"].abs() > 4).mean())
    for name in ("tokens", "steps"):
        correlation = np.corrcoef(some["gradient_weight"], some[f"num_{name}"])[0, 1]
        assert row[f"gradient_corr_{name}"] == pytest.approx(correlation, abs=1e-5)
