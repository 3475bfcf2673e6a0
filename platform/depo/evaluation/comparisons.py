"""Which policies are held against which: by what they are, whatever they are called."""

from __future__ import annotations

from collections.abc import Sequence

from depo.config.method import OBJECTIVE_FACTS, MethodConfig
from depo.config.schema import ExperimentConfig


def pairs(config: ExperimentConfig, names: Sequence[str]) -> list[tuple[str, str]]:
    """(a, b) among the policies `names`, each once, in the order of the tables.

    Every other one against the reference; a method with an efficiency bonus against those that start from
    the same policy and differ by having none; then those of `evaluation.comparisons`.
    """
    reference, methods = config.evaluation.reference, config.methods
    found = [(name, reference) for name in names if name != reference]
    found += [
        (a, b)
        for a in names
        for b in names
        if a in methods and b in methods and _adds_a_bonus(methods[a], methods[b])
    ]
    found += config.evaluation.comparisons
    return list(dict.fromkeys((a, b) for a, b in found if a in names and b in names))


def headline(config: ExperimentConfig, names: Sequence[str]) -> list[str]:
    """The pair in question: the first method with a bonus, or else the last policy, and the reference.

    Empty where there is nothing to compare.
    """
    reference = config.evaluation.reference
    others = [name for name in names if name != reference]
    if not others or reference not in names:
        return []
    with_bonus = [name for name in others if name in config.methods and has_bonus(config.methods[name])]
    return [[*with_bonus, others[-1]][0], reference]


def has_bonus(method: MethodConfig) -> bool:
    """Whether its objective has a place for the efficiency bonus, and is given one."""
    facts = OBJECTIVE_FACTS.get(method.objective)
    return bool(facts and facts.takes_bonus and (method.alpha_tokens or method.alpha_steps))


def _adds_a_bonus(a: MethodConfig, b: MethodConfig) -> bool:
    plain = OBJECTIVE_FACTS[a.objective].without_bonus or a.objective if has_bonus(a) else None
    return plain == b.objective and not has_bonus(b) and a.init == b.init
