"""AdamW for bfloat16 weights, without DeepSpeed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW


class MasterAdamW(AdamW):
    """AdamW on float32 copies of the weights, of which the model computes with the bfloat16 roundings.

    So a step smaller than bfloat16's 8 bits is not lost, and the policy computes as the reference does, which
    is scored with saved weights, as the engine that serves them, and as DeepSpeed. Takes 16 bytes a weight.
    """

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *lists: Any
    ) -> bool:
        new = [p for p in group["params"] if p.grad is not None and not self.state[p]]
        complex_ones = bool(super()._init_group(group, params, grads, *lists))  # type: ignore[misc]
        first, second = lists[:2]
        for place, weight in enumerate(params):
            state = self.state[weight]
            if any(weight is p for p in new):
                state |= {name: state[name].float() for name in ("exp_avg", "exp_avg_sq")}
                state["master"] = weight.detach().float().clone()
            params[place], grads[place] = state["master"], grads[place].float()
            first[place], second[place] = state["exp_avg"], state["exp_avg_sq"]
        return complex_ones

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.copy_(self.state[weight]["master"])
        return loss

    def load_state_dict(self, state_dict: Any) -> None:
        """As AdamW's, but the state stays in float32, where that one would take the weights' type."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        for number, weight in zip(numbers, weights, strict=True):
            for name in ("exp_avg", "exp_avg_sq", "master") if number in state_dict["state"] else ():
                self.state[weight][name] = state_dict["state"][number][name].to(weight.device)
