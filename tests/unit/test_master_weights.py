"""AdamW on float32 copies of bfloat16 weights."""

import pytest
import torch
from torch.optim import AdamW

from depo.training.master_weights import MasterAdamW
from depo.training.optimizer_state import load_optimizer, save_optimizer

SETTINGS = {"lr": 1e-4, "weight_decay": 0.1}


def gradients(steps: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [(1 + torch.randn(3, 5, generator=generator) / 9).bfloat16() for _ in range(steps)]


def stepped(optimizer, weight, grads):
    for grad in grads:
        weight.grad = grad.to(weight.dtype)
        optimizer.step()
        optimizer.zero_grad()


def test_weights_are_the_roundings_of_those_trained_in_float32():
    start = torch.linspace(1, 2, 15).reshape(3, 5).bfloat16()
    low, exact, lost = (
        torch.nn.Parameter(start.clone().to(t)) for t in (torch.bfloat16, torch.float32, start.dtype)
    )
    optimizer = MasterAdamW([low], **SETTINGS)
    stepped(optimizer, low, gradients(40))
    stepped(AdamW([exact], **SETTINGS), exact, gradients(40))
    stepped(AdamW([lost], **SETTINGS), lost, gradients(40))
    assert low.dtype == torch.bfloat16 and torch.equal(low, exact.bfloat16())
    torch.testing.assert_close(optimizer.state[low]["master"], exact.detach(), rtol=1e-6, atol=0)
    # Steps that bfloat16 itself would have lost.
    assert torch.equal(lost, start) and not torch.equal(low, start)


def test_the_state_comes_back_to_the_last_bit(tmp_path):
    start = torch.linspace(1, 2, 15).reshape(3, 5).bfloat16()
    grads, ends = gradients(20), []
    for stops in (False, True):
        weight = torch.nn.Parameter(start.clone())
        optimizer = MasterAdamW([weight], **SETTINGS)
        stepped(optimizer, weight, grads[:10])
        if stops:
            save_optimizer(optimizer, tmp_path)
            weight = torch.nn.Parameter(weight.detach().clone())
            optimizer = MasterAdamW([weight], **SETTINGS)
            load_optimizer(optimizer, tmp_path)
        stepped(optimizer, weight, grads[10:])
        ends.append(optimizer.state[weight]["master"])
    assert torch.equal(*ends)


@pytest.mark.parametrize("foreach", [False, True])
def test_weights_without_a_gradient_stay(foreach):
    weight, idle = torch.nn.Parameter(torch.ones(2).bfloat16()), torch.nn.Parameter(torch.ones(2).bfloat16())
    stepped(MasterAdamW([weight, idle], lr=0.1, foreach=foreach), weight, [torch.ones(2)] * 2)
    assert torch.equal(idle, torch.ones(2).bfloat16()) and (weight < 1).all()
