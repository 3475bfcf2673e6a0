"""Settings of the drop-in for TRL's `KTOTrainer`."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from pydantic import ValidationError
from trl import KTOConfig

from depo.config.base import ConfigError, explain
from depo.config.method import OBJECTIVE_FACTS, MethodConfig
from depo.objectives.registry import objective

_KL_OF_LOSS = {"kto": None, "apo_zero_unpaired": "zero"}

# What nothing here reads: the values that may stand, and the mend.
_UNREAD: dict[str, tuple[tuple[Any, ...], str]] = {
    "sync_ref_model": ((False,), "the reference is taken once, before the first step; leave it out"),
    "use_liger_kernel": ((False, None), "log-probs are scored in tiles as it is; leave it out"),
    "router_aux_loss_coef": ((None, 0.0), "the loss has no such term; set it to 0.0"),
    "label_smoothing_factor": ((0.0,), "the loss has no such term; leave it out"),
    "pad_to_multiple_of": ((None,), "batches are as long as their longest row; leave it out"),
}


@dataclass
class DEPOConfig(KTOConfig):
    """TRL's `KTOConfig` and what DEPO adds; the fields mean what they mean in `depo.config.method`.

    `desirable_weight`, `undesirable_weight` are the lambdas; `loss_type="apo_zero_unpaired"` is `kl="zero"`.
    `precompute_ref_log_probs=True` keeps no copy of the weights that training begins with, so that data sets
    which come later have no reference unless adapters are trained or `ref_model` is given.
    """

    _VALID_DICT_FIELDS = KTOConfig._VALID_DICT_FIELDS

    beta: float = field(default=0.2, metadata={"help": "Strength of the pull towards the reference."})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={
            "help": "Order of each epoch: group_by_length (like lengths together, labels spread evenly), "
            "random, or sequential as the rows stand.",
            "choices": ["random", "sequential", "group_by_length"],
        },
    )
    objective: str | None = field(
        default=None,
        metadata={"help": "An unpaired objective, or module:NAME; None: depo, kto where both alphas are 0."},
    )
    alpha_tokens: float | None = field(
        default=None, metadata={"help": "alpha1; None is 3 (published) for depo, else 0."}
    )
    alpha_steps: float | None = field(
        default=None, metadata={"help": "alpha2; None is 3 (published) for depo, else 0."}
    )
    placement: str = field(default="offset", metadata={"help": "offset, margin, weight or centred."})
    difficulty: str = field(default="none", metadata={"help": "none, task (equal prompts) or level."})
    difficulty_by: str = field(default="best", metadata={"help": "best or median."})
    penalize_undesirable: bool = field(default=False, metadata={"help": "A bonus for undesirable rows too."})
    kl: str = field(default="pairs", metadata={"help": "Estimate of z0: pairs, batch, moving or zero."})
    kl_decay: float = field(default=0.9, metadata={"help": "What the moving average keeps a step."})
    nll_coefficient: float = field(default=0.0, metadata={"help": "Weight of the NLL of desirable rows."})
    stop_logratio: float | None = field(default=None, metadata={"help": "Ends a run whose policy runs away."})
    trained_tokens: str = field(default="all", metadata={"help": "all, last, actions or thoughts."})
    too_long: str = field(default="drop", metadata={"help": "drop rows over max_length, or cut at a turn."})

    def method(self) -> MethodConfig:
        """The objective's settings. Raises `ConfigError` for ones that cannot be, in one line."""
        same = (
            "beta", "placement", "difficulty", "difficulty_by", "penalize_undesirable", "kl_decay",
            "nll_coefficient", "stop_logratio", "trained_tokens", "seed",
        )  # fmt: skip
        alphas = {name: getattr(self, name) for name in ("alpha_tokens", "alpha_steps")}
        name = self.objective or ("depo" if any(a != 0 for a in alphas.values()) else "kto")
        values = {name: getattr(self, name) for name in same} | {
            "kl": self._kl(),
            "lambda_desirable": self.desirable_weight,
            "lambda_undesirable": self.undesirable_weight,
        }
        # What an objective does not read may stand at its default.
        values = {key: v for key, v in values.items() if v != MethodConfig.model_fields[key].default}
        unset = OBJECTIVE_FACTS[name].alpha if name in OBJECTIVE_FACTS else 0.0
        values |= {key: alpha for key, alpha in alphas.items() if alpha not in (None, unset)}
        try:
            method = MethodConfig(objective=name, **values)
        except ValidationError as error:
            raise ConfigError(explain(error, MethodConfig)) from None
        if objective(name).kind != "unpaired":
            raise ConfigError(f"objective {name!r} is not unpaired; take kto or depo")
        return method

    def _kl(self) -> str:
        if self.loss_type not in _KL_OF_LOSS:
            raise ConfigError(
                f"loss_type: {self.loss_type!r} is not defined; known: {', '.join(_KL_OF_LOSS)}"
            )
        wanted = _KL_OF_LOSS[self.loss_type]
        if wanted is not None and self.kl not in ("pairs", wanted):
            raise ConfigError(
                f"loss_type: {self.loss_type!r} has no z0, so kl={self.kl!r} is not read; leave it out"
            )
        return wanted or self.kl


def as_depo_config(args: Any) -> DEPOConfig:
    """A copy of a trainer's arguments; a `KTOConfig` becomes one without a bonus, which is plain KTO.

    Raises `ConfigError` for a setting that nothing would read.
    """
    if args is None:
        args = DEPOConfig("depo-output", use_cpu=not torch.accelerator.is_available())
    made: Any = copy.copy(args)
    if not isinstance(made, KTOConfig):
        raise ConfigError(
            f"args: is a {type(made).__name__}; give a DEPOConfig, or a KTOConfig for plain KTO"
        )
    if not isinstance(made, DEPOConfig):
        # All that DEPOConfig adds is then at its default, but for the bonus.
        made.__class__ = DEPOConfig
        vars(made).update(alpha_tokens=0.0, alpha_steps=0.0)
    made = cast(DEPOConfig, made)
    for name, value in vars(made).items():
        # Gradients may well be cut at infinity, which is nowhere.
        if isinstance(value, float) and not math.isfinite(value) and name != "max_grad_norm":
            raise ConfigError(f"{name}: {value} is no finite number; give one")
    for name, (fine, why) in _UNREAD.items():
        if getattr(made, name) not in fine:
            raise ConfigError(f"{name}={getattr(made, name)!r} is not read: {why}")
    return made
