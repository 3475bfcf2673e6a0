"""The gradient audit of a preference training: one row for each trained sample of each step."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback

from depo.config.method import Kind
from depo.objectives.audit import correlation, correlation_sums, saturated
from depo.training.dataset import FloatArray, SampleTable
from depo.training.metrics import AUDIT

_KINDS: dict[str, type] = {
    "step": np.int32, "row": np.int64, "desirable": np.bool_, "num_tokens": np.int32, "num_steps": np.int32,
    "bonus": np.float32, "log_ratio": np.float32, "gradient_weight": np.float32, "margin": np.float32,
}  # fmt: skip

Window = Mapping[str, np.ndarray]
"""Samples trained on, columns of equal length: `step`, `row` of the table, `desirable`, `num_tokens` and
`num_steps` of the whole trajectory, `bonus`, `log_ratio` (NaN where the objective knows no reference),
`gradient_weight`, `margin`."""


class AuditTrail(TrainerCallback):
    """Collects the rows over ranks, and keeps them in `out_dir/audit.parquet`.

    What was trained since the last checkpoint is written with the next one, so that a training that
    resumes has every row once. Add it before the callback that makes a checkpoint known.
    """

    def __init__(self, table: SampleTable, out_dir: Path, resumed_step: int = 0) -> None:
        self._ids, self._resumed_step = table.ids, resumed_step
        self._path, self._parts = out_dir / AUDIT, out_dir / f".{AUDIT}.parts"
        self._local: list[Tensor] = []
        self._unread: list[FloatArray] = []
        self._unwritten: list[FloatArray] = []

    def add(self, **columns: Tensor) -> None:
        """Samples of this rank: the columns of `Window`, each `[batch]`."""
        self._local.append(torch.stack([columns[name].detach().double() for name in _KINDS], -1))

    def read(self) -> Window:
        """The samples of all ranks since the last reading. Called by every rank."""
        self._collect()
        rows, self._unread = _stacked(self._unread), []
        return _window(rows)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._local, self._unread, self._unwritten = [], [], []
        self._resumed_step = max(self._resumed_step, state.global_step) if state.global_step else 0
        if not state.is_world_process_zero:
            return
        if self._path.exists():
            # Killed after its last step, before the policy was saved.
            whole = pq.read_table(self._path)
            shutil.rmtree(self._parts, ignore_errors=True)
            self._parts.mkdir()
            before = whole.filter(pc.less_equal(whole["step"], self._resumed_step))
            _write(self._parts / f"{self._resumed_step}.parquet", before)
            self._path.unlink()
        for part in self._parts.glob("*.parquet"):
            if int(part.stem) > self._resumed_step:
                part.unlink()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._collect()
        rows, self._unwritten = _stacked(self._unwritten), []
        if state.is_world_process_zero and len(rows):
            self._parts.mkdir(parents=True, exist_ok=True)
            _write(self._parts / f"{state.global_step}.parquet", self._as_table(rows))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._collect()
        if state.is_world_process_zero:
            parts = sorted(self._parts.glob("*.parquet"), key=lambda part: int(part.stem))
            rest = self._as_table(_stacked(self._unwritten))
            _write(self._path, pa.concat_tables([*map(pq.read_table, parts), rest]))
            shutil.rmtree(self._parts, ignore_errors=True)

    def _collect(self) -> None:
        local = torch.cat(self._local).cpu().numpy() if self._local else None
        self._local = []
        gathered = _stacked([part for part in gather_object([local]) if part is not None])
        # By step and row, so that the order says nothing of the number of ranks.
        ordered = gathered[np.lexsort((gathered[:, 1], gathered[:, 0]))]
        self._unread.append(ordered)
        self._unwritten.append(ordered)

    def _as_table(self, rows: FloatArray) -> pa.Table:
        window = dict(_window(rows))
        named = {
            "step": window.pop("step"),
            "sample_id": pa.array([self._ids[row] for row in window.pop("row")], pa.string()),
            "label": pa.array(np.where(window.pop("desirable"), "D", "U").tolist(), pa.string()),
        }
        return pa.table(named | {name: pa.array(column, from_pandas=True) for name, column in window.items()})


def _window(rows: FloatArray) -> Window:
    return {name: rows[:, at].astype(kind) for at, (name, kind) in enumerate(_KINDS.items())}


def window_metrics(window: Window, beta: float, kind: Kind) -> dict[str, float]:
    """Means over samples, by label, and the audit's figures; what cannot be told is left out.

    `gradient_corr_tokens` and `gradient_corr_steps` are taken over the desirable samples, which carry the
    bonus: across labels the correlation would mostly say that undesirable trajectories are longer.
    """
    desirable, ratio = window["desirable"], window["log_ratio"].astype(np.float64)
    weight, bonus = window["gradient_weight"].astype(np.float64), window["bonus"].astype(np.float64)
    found: dict[str, float] = {}
    for label, chosen in (("desirable", desirable), ("undesirable", ~desirable)):
        if chosen.any():
            found[f"logratio_{label}"] = float(ratio[chosen].mean())
            found[f"reward_{label}"] = beta * found[f"logratio_{label}"]
            found[f"gradient_weight_{label}"] = float(weight[chosen].mean())
    if desirable.any():
        found["bonus"] = float(bonus[desirable].mean())
        found["beta_bonus"] = beta * float(np.abs(bonus[desirable]).mean())
    pull = torch.from_numpy(weight[desirable])
    for name, column in (("tokens", "num_tokens"), ("steps", "num_steps")):
        sums = correlation_sums(pull, torch.from_numpy(window[column][desirable]))
        found[f"gradient_corr_{name}"] = correlation(sums)
    if len(desirable):
        margin = torch.from_numpy(window["margin"])
        found["saturated_share"] = float(saturated(margin, kind).double().mean())
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _stacked(parts: list[FloatArray]) -> FloatArray:
    return np.concatenate([np.empty((0, len(_KINDS))), *parts])


def _write(path: Path, table: pa.Table) -> None:
    """Whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    pq.write_table(table, temporary)
    os.replace(temporary, path)
