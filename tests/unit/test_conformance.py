"""Every registered environment keeps the contract, in each of its variants."""

from __future__ import annotations

from typing import Any

import pytest

from depo.envs.check import check_env
from depo.envs.registry import BUILT_IN

LEVELS = ["GoToRedBall", "UnlockPickup", "PutNextLocal"]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("babyai", {}),
    ("babyai", {"levels": LEVELS, "show_actions": False, "instructions": "brief"}),
    ("babyai", {"levels": LEVELS, "compat": "agentgym"}),
    ("maths", {}),
    ("maths", {"unknowns": [3]}),
    ("webshop", {}),
    ("webshop", {"compat": "webshop"}),
    ("webshop", {"compat": "agentgym"}),
]
NEEDS_A_SERVER = {"agentgym"}
"""Checked against a live server in tests/integration."""


@pytest.mark.parametrize(("env", "options"), VARIANTS, ids=lambda value: str(value))
def test_a_registered_environment_keeps_the_contract(env, options):
    assert [check for check in check_env(env, options) if not check.ok] == []


def test_no_registered_environment_is_left_out():
    assert BUILT_IN.keys() <= {env for env, _ in VARIANTS} | NEEDS_A_SERVER
