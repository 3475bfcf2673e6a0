"""One training as it is configured: its objective, and the settings that this objective reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from depo.config.base import Count, Fraction, NonNegative, Positive, Seed, Strict

Kind = Literal["supervised", "unpaired", "paired"]

_BONUS = frozenset(
    {"alpha_tokens", "alpha_steps", "placement", "difficulty", "difficulty_by", "penalize_undesirable"}
)
_UNPAIRED = frozenset(
    {
        "beta", "lambda_desirable", "lambda_undesirable", "kl", "kl_decay", "balance", "nll_coefficient",
        "stop_logratio",
    }
)  # fmt: skip
_PAIRED = frozenset({"beta", "nll_coefficient", "pairs_per_task"}) | _BONUS
_WEIGHTED = frozenset(
    {
        "weighting", "weighting_temperature", "token_budget", "token_penalty", "alpha_tokens", "alpha_steps",
        "difficulty", "difficulty_by",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ObjectiveFacts:
    """What may be known of an objective without importing torch."""

    kind: Kind
    reads: frozenset[str] = frozenset()
    """Fields of `MethodConfig` that not every objective reads, and this one does."""
    needs_reference: bool = False
    """Compares with the policy it starts from, so the reference stage comes first."""
    desirable_only: bool = False
    """Trains on desirable samples alone."""
    alpha: float = 0.0
    """Both alphas where none is set."""
    without_bonus: str | None = None
    """The objective that is left where both alphas are 0; None where this one stays what it is."""

    @property
    def needs_kl(self) -> bool:
        """Reads an estimate of the KL divergence from the reference."""
        return "kl" in self.reads

    @property
    def takes_bonus(self) -> bool:
        """Has a place for the efficiency bonus."""
        return "alpha_tokens" in self.reads


OBJECTIVE_FACTS: dict[str, ObjectiveFacts] = {
    "sft": ObjectiveFacts("supervised", desirable_only=True),
    "weighted_bc": ObjectiveFacts("supervised", _WEIGHTED),
    "kto": ObjectiveFacts("unpaired", _UNPAIRED, needs_reference=True),
    "depo": ObjectiveFacts(
        "unpaired", _UNPAIRED | _BONUS, needs_reference=True, alpha=3.0, without_bonus="kto"
    ),
    "dpo": ObjectiveFacts("paired", _PAIRED | {"stop_logratio"}, needs_reference=True),
    "dmpo": ObjectiveFacts("paired", _PAIRED | {"stop_logratio", "turn_discount"}, needs_reference=True),
    "simpo": ObjectiveFacts("paired", _PAIRED | {"simpo_margin"}),
}
_ALPHAS = ("alpha_tokens", "alpha_steps")
_OPTIONAL = frozenset[str]().union(*(facts.reads for facts in OBJECTIVE_FACTS.values())) | {"options"}

# A setting that only counts where another one has this value.
_DEPENDENT: dict[str, tuple[str, tuple[object, ...]]] = {
    "kl_decay": ("kl", ("moving",)),
    "difficulty_by": ("difficulty", ("task", "level")),
    "weighting_temperature": ("weighting", ("return", "length")),
    "token_budget": ("weighting", ("length", "length_penalty")),
    "token_penalty": ("weighting", ("length_penalty",)),
    "lora": ("full_parameters", (False,)),
}


class LoraConfig(Strict):
    """Low-rank adapters; every method trains new ones on top of the policy it starts from."""

    r: Count = 16
    """Rank; more fits more and costs more."""
    alpha: Positive = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of supervised objectives only: preference trainers switch dropout off."""
    target_modules: Annotated[list[str], Field(min_length=1)] | Literal["all-linear"] = "all-linear"


class MethodConfig(Strict):
    """One training: its objective, what it starts from, and the data it reads.

    A setting that the objective never reads is refused, also at its default, so that no configuration
    promises what does not happen.
    """

    objective: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*|[\w.]+:\w+)$")]
    """sft, weighted_bc, kto, depo, dpo, dmpo, simpo, or `module:NAME` of an `Objective` of one's own."""
    init: str = "bc"
    """"student", or the method whose policy this one starts from (and is compared with)."""
    samples: str = "teacher"
    """Name of the round whose samples are read."""
    view: Literal["raw", "rephrased"] = "rephrased"
    """Thoughts of desirable samples: as generated, or shortened."""
    data_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the tasks whose samples are trained on, drawn by `seed`; a smaller share is part of a larger
    one. `epochs` count what is left, so fewer samples are fewer steps."""
    trained_tokens: Literal["all", "last", "actions", "thoughts"] = "all"
    """Which of the agent's own tokens are trained: all, the last turn's, actions or thoughts alone.
    The bonus counts all of them whatever is trained."""
    learning_rate: Positive = 1e-4
    epochs: Positive = 3.0
    max_steps: Count | None = None
    """Optimizer steps, instead of `epochs`."""
    batch_size: Count = 16
    """Samples (pairs, for a paired objective) a step, over all workers."""
    warmup_ratio: Fraction = 0.05
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: NonNegative = 0.0
    max_grad_norm: Positive = 1.0
    balance: bool = False
    """Draw as many undesirable as desirable samples, by leaving out of the larger class."""
    beta: Positive = 0.2
    """Strength of the pull towards the reference; more stays closer. For simpo the scale of the mean
    log-prob per token (published: 2 to 2.5)."""
    lambda_desirable: NonNegative = 1.0
    lambda_undesirable: NonNegative = 1.0
    alpha_tokens: NonNegative = 0.0
    """alpha1: weight of 1 / (mean tokens per step) in the bonus. Unset, 3 for depo (published), else 0; depo
    with both at 0 is refused, as it is kto."""
    alpha_steps: NonNegative = 0.0
    """alpha2: weight of 1 / (number of steps) in the bonus; unset, as `alpha_tokens`."""
    placement: Literal["offset", "margin", "weight", "centred"] = "offset"
    """Where the bonus b enters: added to the log-ratio (published), subtracted from it, as a factor
    1 + b of the loss, or added less its mean over the data."""
    difficulty: Literal["none", "task", "level"] = "none"
    """Counts in the bonus are taken relative to the desirable samples of the same task or level."""
    difficulty_by: Literal["best", "median"] = "best"
    """Relative to the fewest tokens and steps of the group, or to their medians."""
    penalize_undesirable: bool = False
    """Undesirable samples carry a bonus too, which lowers their log-ratio instead of raising it."""
    kl: Literal["pairs", "batch", "moving", "zero"] = "pairs"
    """Estimate of z0: mismatched pairs fixed in the data, the step's own samples, a moving average over
    past steps' own samples, or none."""
    kl_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the moving average a step keeps; more is smoother and slower."""
    nll_coefficient: NonNegative = 0.0
    """Weight of the mean NLL per agent token of desirable samples, added to the loss."""
    stop_logratio: Annotated[float, Field(lt=0)] | None = None
    """End the training, keeping the policy, once the mean log-ratio of undesirable samples (nats a
    trajectory) over a logging window is below this; None trains on."""
    turn_discount: Annotated[float, Field(gt=0, le=1)] = 0.9
    """gamma of dmpo: how fast later turns lose weight; 1 is a straight line from 1 to 1 / turns."""
    simpo_margin: NonNegative = 0.5
    """gamma of simpo: by how much the chosen reward should exceed the rejected one."""
    pairs_per_task: Count = 8
    """Most pairs (desirable, undesirable) built from the samples of one task."""
    weighting: Literal["return", "length", "length_penalty"] = "return"
    """Sample weights of weighted_bc: by return; of desirable samples by length; by the return times
    what is left of it after a length penalty."""
    weighting_temperature: Positive = 1.0
    """Of "return" and "length"; less makes the weights more unequal."""
    token_budget: Count = 64
    """The agent's own tokens in a trajectory that "length" and "length_penalty" measure against."""
    token_penalty: NonNegative = 0.01
    """Share of the return that "length_penalty" takes a token above `token_budget`."""
    options: dict[str, float] = {}
    """Parameters of an objective of one's own."""
    full_parameters: bool = False
    """Train all weights instead of adapters."""
    lora: LoraConfig = LoraConfig()
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _bonus_of_the_objective(cls, values: Any) -> Any:
        facts = OBJECTIVE_FACTS.get(str(values.get("objective"))) if isinstance(values, Mapping) else None
        return dict.fromkeys(_ALPHAS, facts.alpha) | dict(values) if facts and facts.alpha else values

    @model_validator(mode="after")
    def _bonus_and_dropout_do_something(self) -> MethodConfig:
        facts = OBJECTIVE_FACTS.get(self.objective)
        if facts and facts.without_bonus and not any(getattr(self, name) for name in _ALPHAS):
            raise ValueError(
                f"objective {self.objective!r} with alpha_tokens and alpha_steps at 0 has no bonus, so it is "
                f"{facts.without_bonus!r}: name that one, or set an alpha above 0 ({facts.alpha:g})"
            )
        if facts and facts.kind != "supervised" and self.lora.dropout:
            raise ValueError(f"lora.dropout is not read {no_dropout(self.objective)}: leave it out")
        return self

    @model_validator(mode="after")
    def _objective_is_defined(self) -> MethodConfig:
        facts = OBJECTIVE_FACTS.get(self.objective)
        if facts is None and ":" not in self.objective:
            raise ValueError(
                f"objective {self.objective!r} is not defined; known: {', '.join(OBJECTIVE_FACTS)}, "
                "or module:NAME of your own"
            )
        return self

    def unread(self) -> dict[str, str]:
        facts = OBJECTIVE_FACTS.get(self.objective)
        names = [n for n in type(self).model_fields if facts is not None and n in _OPTIONAL - facts.reads]
        found = {name: f"by objective {self.objective!r}; {_home(name)}" for name in names}
        for name, (other, values) in _DEPENDENT.items():
            if getattr(self, other) not in values:
                found.setdefault(name, f"while {other} is {getattr(self, other)!r}")
        return found


def idle(method: MethodConfig) -> dict[str, str]:
    """What of a method in a configuration says nothing beside the others, and why; a program may well give
    all settings."""
    facts, unread = OBJECTIVE_FACTS.get(method.objective), method.unread()
    found = {}
    if method.scheduler == "constant":
        found["warmup_ratio"] = "while scheduler is 'constant'"
    if facts is not None and facts.kind != "supervised":
        found["lora.dropout"] = no_dropout(method.objective)
    if facts is not None and not any(getattr(method, name) for name in _ALPHAS):
        found |= dict.fromkeys(
            sorted(_BONUS & facts.reads - {*_ALPHAS}), "while alpha_tokens and alpha_steps are 0"
        )
    return {name: why for name, why in found.items() if name.partition(".")[0] not in unread}


def without_bonus(values: Mapping[str, Any]) -> dict[str, Any]:
    """A method's values, where its objective has both alphas at 0 those of the objective that is left."""
    facts = OBJECTIVE_FACTS.get(values["objective"])
    if (
        facts is None
        or facts.without_bonus is None
        or any(values.get(name, facts.alpha) != 0 for name in _ALPHAS)
    ):
        return dict(values)
    kept = {name: value for name, value in values.items() if name not in _BONUS}
    return kept | {"objective": facts.without_bonus}


def no_dropout(objective: str) -> str:
    """Why a preference objective does not read a dropout of its adapters."""
    return (
        f"by objective {objective!r}, since preference trainers switch dropout off so that log-probs can be "
        "compared"
    )


def _home(name: str) -> str:
    readers = [objective for objective, facts in OBJECTIVE_FACTS.items() if name in facts.reads]
    return f"it belongs to {', '.join(readers) or 'objectives of your own'}"
