"""Recorded cases of WebShop and AgentGym, replayed: rewards, searches and whole sessions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from depo.config.base import ConfigError
from depo.envs.cases import CaseReport, read_cases
from depo.envs.webshop import session
from depo.envs.webshop.analysis import search_terms
from depo.envs.webshop.case_rows import Row, differing
from depo.envs.webshop.nouns import make_tagger
from depo.envs.webshop.product import Goal, Product
from depo.envs.webshop.reward import score
from depo.envs.webshop.session import INDEX, Catalogue, State
from depo.envs.webshop.store import Shop
from depo.envs.webshop.visit import Visit

_SCORE_STEP = 1e-4
"""Search scores are recorded to four places."""


def check_cases(cases: Path, compat: str, catalogue: Path | None) -> CaseReport:
    """Replay the cases of a file, up to the first that comes out otherwise.

    The kind of the cases is seen from the first: rewards, searches, or sessions behind a header with
    their prices; the last two need the `catalogue` that they were recorded on. Sessions must have been
    recorded of the variant `compat`; nouns in them are the simple tagger's. Raises `ConfigError` naming
    file, row and field for a malformed case, and where catalogue or variant do not fit.
    """
    rows = (Row(f"{cases}: row {number}", record) for number, record in read_cases(cases))
    first = next(rows)
    every = chain([first], rows)
    if first.has("kind"):
        return _check_sessions(first, rows, compat, _needed(cases, catalogue, "sessions"))
    if first.has("q") or first.has("analyse"):
        return _check_searches(every, compat, _needed(cases, catalogue, "searches"))
    if first.has("purchased_nouns"):
        return _report(every, _reward_difference)
    raise ConfigError(f"{first.where}: kind: missing; this is no reward, search or session of WebShop")


def _needed(cases: Path, catalogue: Path | None, what: str) -> Path:
    if catalogue is None:
        raise ConfigError(f"{cases}: holds {what}; give the catalogue they were recorded on (--catalogue)")
    return catalogue


def _report(rows: Iterator[Row], difference: Any) -> CaseReport:
    checked = 0
    for row in rows:
        found = difference(row)
        if found:
            return CaseReport(checked, f"{row.where}: {found}")
        checked += 1
    return CaseReport(checked)


def _reward_difference(case: Row) -> str:
    bought, wanted = case.row("product"), case.row("goal")
    worth = score(
        _product(bought),
        _goal(wanted, "", 1.0),
        case.number("price"),
        dict(case.pairs("options")),
        case.texts("purchased_nouns"),
        case.texts("goal_nouns"),
    )
    info = worth.info()
    parts = ("r_type", "query_match", "category_match", "title_score")
    got = {
        "reward": worth.reward,
        "info": info,
        "type_reward": {part: info[part] for part in parts},
        "attribute_reward": [worth.r_att, worth.attributes],
        "option_reward": [worth.r_option, worth.options],
    }
    return _first_difference(case, got)


def _first_difference(case: Row, got: dict[str, Any]) -> str:
    for field, value in got.items():
        recorded = case.any(field)
        if recorded != value:
            return f"{field}: {differing(recorded, value)}"
    return ""


def _product(row: Row) -> Product:
    """A product as far as the reward reads it."""
    return Product(
        asin=row.text("asin"),
        title=row.text("Title"),
        query=row.text("query"),
        category="",
        product_category=row.text("product_category"),
        description=row.text("Description"),
        bullets=row.texts("BulletPoints"),
        price_text="",
        price_low=0.0,
        price_high=0.0,
        attributes=row.texts("Attributes"),
        options=(),
    )


def _goal(row: Row, instruction: str, weight: float) -> Goal:
    listed = isinstance(row.any("goal_options"), list)
    return Goal(
        asin=row.text("asin"),
        name=row.text("name"),
        query=row.text("query"),
        product_category=row.text("product_category"),
        instruction=instruction,
        attributes=row.texts("attributes"),
        price_upper=row.number("price_upper"),
        options=row.texts("goal_options") if listed else row.pairs("goal_options"),
        weight=weight,
        difficulty="",
    )


def _check_searches(rows: Iterator[Row], compat: str, catalogue: Path) -> CaseReport:
    shop = Shop.open(catalogue, variant=_variant(compat))
    return _report(rows, partial(_search_difference, shop))


def _search_difference(shop: Shop, case: Row) -> str:
    if case.has("analyse"):
        return _first_difference(case, {"tokens": search_terms(case.text("analyse"))})
    query, top = case.text("q"), case.any("top50")
    if not isinstance(top, list) or not all(isinstance(hit, list) and len(hit) == 2 for hit in top):
        raise ConfigError(f"{case.where}: top50: expected a list of [asin, score]")
    found = shop.search_scores(query, session.MOST_HITS)
    got = {"tokens": search_terms(query), "top50": [asin for asin, _ in found]}
    ranking = Row(case.where, {**case.values, "top50": [asin for asin, _ in top]})
    difference = _first_difference(ranking, got)
    if difference:
        return f"{query!r}: {difference}"
    for (asin, recorded), (_, value) in zip(top, found, strict=True):
        if not isinstance(recorded, int | float) or abs(recorded - value) > _SCORE_STEP:
            return f"{query!r}: score of {asin}: {differing(recorded, value)}"
    return ""


def _variant(compat: str) -> Any:
    return compat or "default"


def _check_sessions(header: Row, rows: Iterator[Row], compat: str, catalogue: Path) -> CaseReport:
    if header.text("kind") != "header":
        raise ConfigError(f"{header.where}: kind: expected 'header' with the prices, before the sessions")
    variant = header.text("variant")
    if variant != compat:
        raise ConfigError(
            f"{header.where}: variant: recorded of {variant!r}; replay it with that --compat, not {compat!r}"
        )
    shop = Shop.open(
        catalogue,
        human_goals=header.flag("human_goals"),
        variant=_variant(compat),
        seed=header.count("seed_before_load"),
        prices=header.numbers("product_prices"),
    )
    difference = _goals_difference(header, shop)
    if difference:
        return CaseReport(0, f"{header.where}: {difference}")
    goals = [_recorded_goal(row) for row in header.rows("goals")]
    return _report(rows, partial(_session_difference, Catalogue(shop, peer=True), goals))


def _recorded_goal(row: Row) -> Goal:
    return _goal(row, row.text("instruction_text"), row.number("weight"))


def _goals_difference(header: Row, shop: Shop) -> str:
    if header.count("n_goals") != len(shop.goals):
        return f"n_goals: {differing(header.count('n_goals'), len(shop.goals))}"
    for at, row in enumerate(header.rows("goals")[: len(shop.goals)]):
        recorded, got = _recorded_goal(row), shop.goals[at]
        for field in ("asin", "instruction", "attributes", "price_upper", "options", "query", "weight"):
            if getattr(recorded, field) != getattr(got, field):
                return f"goal {at}: {field}: {differing(getattr(recorded, field), getattr(got, field))}"
    return ""


def _session_difference(catalogue: Catalogue, goals: list[Goal], case: Row) -> str:
    mode, index = case.text("mode"), case.count("goal_index")
    if mode not in ("text", "text_rich"):
        raise ConfigError(f"{case.where}: mode: expected 'text' or 'text_rich', got {mode!r}")
    if not 0 <= index < len(catalogue.shop.goals):
        raise ConfigError(f"{case.where}: goal_index: {index} is no goal of this catalogue")
    visit = Visit(catalogue, mode, make_tagger("simple"), peer=True)
    goal = goals[index] if index < len(goals) else catalogue.shop.goals[index]
    state = State()
    difference = _first_difference(case, _seen(visit, state, goal))
    if difference:
        return f"session {case.any('session')}: start: {difference}"
    for number, step in enumerate(case.rows("steps"), start=1):
        action = step.text("a")
        turn = visit.act(state, goal, action)
        state = turn.state
        got = {**_seen(visit, state, goal), **session.record(state)}
        got |= {"r": turn.score.reward if turn.score else 0.0, "done": turn.score is not None}
        if turn.score is not None:
            got["info"] = turn.score.info()
        difference = _first_difference(step, got)
        if difference:
            return f"session {case.any('session')}: step {number} ({action[:60]!r}): {difference}"
    return ""


def _seen(visit: Visit, state: State, goal: Goal) -> dict[str, Any]:
    clickables = list(visit.catalogue.labels(state))
    avail = {"has_search_bar": state.page == INDEX, "clickables": clickables}
    return {"obs": visit.observe(state, goal), "avail": avail}
