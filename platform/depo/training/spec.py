"""What a training is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from depo.config.runtime import TrainingRuntime
from depo.config.schema import MethodConfig

LOG_PROBS = "reference.parquet"
"""The file that the reference stage writes."""


@dataclass(frozen=True)
class TrainSpec:
    """What a training reads, computes and writes."""

    method: MethodConfig
    model_dir: str
    """Full weights and tokenizer of the policy it starts from; the reference of KTO and DEPO."""
    samples: str
    """Parquet file of `Sample`."""
    reference: str | None
    """Parquet file of `ReferenceLogProbs` of `model_dir` on these samples; None for sft."""
    out_dir: str
    dtype: str
    max_length: int
    too_long: Literal["drop", "cut"] = "drop"
    """What becomes of a sample longer than `max_length`."""
    full_parameters: bool = False
    """Train all weights instead of a LoRA adapter (sft only)."""
    observation_weight: float = 0.0
    """Loss weight of tokens that are not the agent's (sft only)."""
    merge: bool = True
    """Write `model/` too, where an adapter is what is trained."""
    chat_template: str | None = None
    """File of another chat template than the model's own; it is saved with the trained policy."""
    runtime: TrainingRuntime = field(default_factory=TrainingRuntime)


@dataclass(frozen=True)
class Checkpoints:
    """Where a training that can resume keeps its state; every rank holds the same."""

    folder: Path
    resume_from: Path | None
    """A checkpoint, also of a training with other settings, or None to start anew."""
    saved: Callable[[int, Path], None]
    """Called on every rank with step and path of each checkpoint that all ranks have written."""
    until: int | None = None
    """End after this step, with a checkpoint; None trains to the end."""
    periodic: bool = True
    """Write one every `save_steps` too."""

    @property
    def resumed_step(self) -> int:
        """The step that `resume_from` was written after, 0 without one."""
        return int(self.resume_from.name.rpartition("-")[2]) if self.resume_from else 0
