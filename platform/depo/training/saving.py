"""What a training leaves behind: the adapter, the merged policy, the metrics; each whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import TrainerCallback
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from depo.training.metrics import read_metrics
from depo.training.sources import Sources

ADAPTER = "adapter"
MODEL = "model"


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill, which takes `path`'s name, and place, when the block ends well."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


def save_policy(
    trainer: Any,
    tokenizer: Any,
    model_dir: str,
    dtype: str,
    out_dir: Path,
    merge: bool = True,
    sources: Sources | None = None,
) -> None:
    """Write `model/` (full weights, adapter merged) and, for an adapter, `adapter/`.

    Without `merge` an adapter is written alone. Called by every rank, since sharded weights are gathered;
    rank 0 writes.
    """
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if trainer.is_world_process_zero():
        # Under ZeRO-3 a model loaded here would be sharded over ranks that are not loading it.
        unset_hf_deepspeed_config()
        model = trainer.accelerator.unwrap_model(trainer.model)
        if isinstance(model, PeftModel):
            _save_adapter(model, state, out_dir / ADAPTER)
            if merge:
                base = (sources or Sources()).model(model_dir, "float32", frozen=False)
                model, state = _merged(base, out_dir / ADAPTER, dtype), None
        if merge or not isinstance(model, PeftModel):
            with whole_folder(out_dir / MODEL) as folder:
                model.save_pretrained(folder, state_dict=state)
                tokenizer.save_pretrained(folder)
    trainer.accelerator.wait_for_everyone()


def _save_adapter(model: PeftModel, state: Mapping[str, torch.Tensor], path: Path) -> None:
    with whole_folder(path) as folder:
        tensors = get_peft_model_state_dict(model, state_dict=dict(state), save_embedding_layers=False)
        save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "adapter_model.safetensors")
        config = model.peft_config["default"]
        inference, config.inference_mode = config.inference_mode, True
        config.save_pretrained(str(folder))
        config.inference_mode = inference


def _merged(base: Any, adapter: Path, dtype: str) -> Any:
    """The policy as plain weights. Added in float32, so that only the sum is rounded."""
    merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
    return merged.to(getattr(torch, dtype))


class MetricsLog(TrainerCallback):
    """Appends each logged step to `metrics.jsonl` on rank 0 as it happens, and reports it."""

    def __init__(
        self, path: Path, resumed_step: int, samples: int, batch_size: int,
        report: Callable[[dict[str, float]], None] | None,
    ) -> None:  # fmt: skip
        self._path, self._report = path, report
        self._epoch_of = lambda step: step * batch_size / samples
        self._resumed_step = resumed_step
        self._started = time.monotonic()
        self.last: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.monotonic()
        if state.is_world_process_zero:
            kept = [row for row in read_metrics(self._path) if row["step"] <= self._resumed_step]
            # What is left to train may log nothing more.
            self.last = kept[-1] if kept else {}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kw: Any
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        step = state.global_step
        row = {
            "step": step,
            "total_steps": state.max_steps,
            "epoch": self._epoch_of(step),
            "seconds": time.monotonic() - self._started,
            **{name: value for name, value in logs.items() if name != "epoch"},
        }
        self.last = row
        if state.is_world_process_zero:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if self._report is not None:
                self._report(row)
