"""An optimizer's state as a safetensors file: tensors by name, the rest as JSON beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

OPTIMIZER = "optimizer.safetensors"


def save_optimizer(optimizer: Optimizer, folder: Path) -> None:
    """Write the state into `folder`, whole or not at all."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, object] = {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain[f"{parameter}.{name}"] = value
    rest = {"groups": json.dumps(state["param_groups"]), "plain": json.dumps(plain)}
    temporary = folder / f".{OPTIMIZER}.partial"
    save_file(tensors, temporary, metadata=rest)
    os.replace(temporary, folder / OPTIMIZER)


def load_optimizer(optimizer: Optimizer, folder: Path) -> None:
    """Give `optimizer` the state that `save_optimizer` wrote."""
    state: dict[int, dict[str, object]] = {}
    with safe_open(folder / OPTIMIZER, framework="pt") as file:
        rest = file.metadata()
        values = {name: file.get_tensor(name) for name in file.keys()} | json.loads(rest["plain"])  # noqa: SIM118
    for key, value in values.items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    with torch.no_grad():
        optimizer.load_state_dict({"state": state, "param_groups": json.loads(rest["groups"])})
