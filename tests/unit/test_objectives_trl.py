"""TRL's own loss code on the same numbers as ours.

Each trainer is driven by a unigram model, whose log-prob of a token is an entry of a table, so that
every sum of log-probs is known exactly.
"""

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from objectives_help import double, method, scores, shifted_reference
from trl import DPOTrainer, KTOTrainer
from trl.experimental.cpo import CPOTrainer

from depo.objectives.paired import dpo, simpo
from depo.objectives.preference import depo, kl_estimate, kto

BATCH, LENGTH, VOCAB = 6, 9, 40


class Unigram(torch.nn.Module):
    """`log_probs` of tokens 1 to end, `[batch, length - 1]`, 0 where the label says so."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        table = -4 * torch.rand(VOCAB, generator=generator, dtype=torch.float64)
        self.table = torch.nn.Parameter(table)

    def forward(self, input_ids, labels, **_):
        log_probs = self.table[input_ids[:, 1:]] * (labels[:, 1:] != -100)
        zeros = torch.zeros_like(log_probs)
        return SimpleNamespace(
            log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), aux_loss=None
        )


@pytest.fixture
def model():
    return Unigram()


def sequences(seed: int, batch: int = BATCH):
    """Ids and completion masks `[batch, length]`; completions of two lengths."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(batch, LENGTH, dtype=torch.long)
    mask[:, 3:] = 1
    mask[::2, 7:] = 0
    return torch.randint(VOCAB, (batch, LENGTH), generator=generator), mask


def logps(model, ids, mask):
    return (model.table[ids[:, 1:]] * mask[:, 1:]).sum(-1)


def trainer(model, **settings):
    """What TRL's loss methods read of their trainer."""
    return SimpleNamespace(
        model=model, accelerator=Accelerator(cpu=True), aux_loss_enabled=False, precompute_ref_logps=True,
        _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0, _tp_size=1, **settings,
    )  # fmt: skip


def trls_kto(model, own, kl, label, ref, ref_kl, beta, weights):
    (ids, mask), (kl_ids, kl_mask) = own, kl
    batch = {
        "input_ids": ids, "completion_mask": mask, "attention_mask": torch.ones_like(ids),
        "KL_input_ids": kl_ids, "KL_completion_mask": kl_mask, "KL_attention_mask": torch.ones_like(kl_ids),
        "label": label, "ref_logps": ref, "ref_KL_logps": ref_kl,
    }  # fmt: skip
    state = trainer(
        model, loss_type="kto", calculate_KL=True, beta=beta, desirable_weight=weights[0],
        undesirable_weight=weights[1],
    )  # fmt: skip
    state._compute_kl_logps = lambda *args: KTOTrainer._compute_kl_logps(state, *args)
    return KTOTrainer._compute_loss(state, model, batch, return_outputs=False)


@pytest.mark.parametrize("above", [True, False])
@pytest.mark.parametrize("bonus", [None, [0.7, 0.0, 1.9, 0.3, 0.0, 0.1]])
@pytest.mark.parametrize("label", [[True, False, True, True, False, True], [True] * 6, [False] * 6])
def test_kto_and_depo_are_trls_kto_on_shifted_references(model, label, bonus, above):
    own, kl = sequences(1), sequences(2)
    desirable = torch.tensor(label)
    policy, policy_kl = logps(model, *own), logps(model, *kl)
    ref = policy.detach() + double(0.5, -1.0, 2.0, 0.1, -0.2, 0.9)
    ref_kl = policy_kl.detach() - 0.8 if above else policy_kl.detach() + 0.8
    shift = torch.zeros(BATCH, dtype=torch.float64) if bonus is None else double(*bonus)
    shifted = shifted_reference(ref, shift, desirable)
    expected = trls_kto(model, own, kl, desirable, shifted, ref_kl, 0.3, (1.2, 0.7))
    (slope,) = torch.autograd.grad(expected, model.table)

    z0 = kl_estimate((policy_kl - ref_kl).sum(), torch.tensor(BATCH))
    given = torch.where(desirable, shift, 0.0)
    batch = replace(scores(policy.detach(), desirable=label), logp=policy, ref_logp=ref, bonus=given)
    fields = {"beta": 0.3, "lambda_desirable": 1.2, "lambda_undesirable": 0.7}
    losses = (
        kto(batch, z0, method("kto", **fields))
        if bonus is None
        else depo(batch, z0, method("depo", **fields))
    )
    found = losses.loss.mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, model.table)[0], slope, rtol=1e-9, atol=1e-12)
    assert (z0 > 0) == above


def test_dpo_is_trls(model):
    ids, mask = sequences(3)
    policy = logps(model, ids, mask)
    ref = policy.detach() + double(0.5, -1.0, 2.0, 0.1, -0.2, 0.9)
    state = trainer(
        model, ld_alpha=None, f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0],
        beta=0.3, label_smoothing=0.0, use_weighting=False,
    )  # fmt: skip
    batch = {
        "input_ids": ids, "completion_mask": mask, "attention_mask": torch.ones_like(ids),
        "ref_chosen_logps": ref[:3], "ref_rejected_logps": ref[3:],
    }  # fmt: skip
    expected = DPOTrainer._compute_loss(state, model, batch, return_outputs=False)
    (slope,) = torch.autograd.grad(expected, model.table)
    halves = [
        replace(scores(policy[part].detach()), logp=policy[part], ref_logp=ref[part])
        for part in (slice(3), slice(3, 6))
    ]
    found = dpo(*halves, method("dpo", beta=0.3)).loss.mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found, model.table)[0], slope, rtol=1e-9, atol=1e-12)


def test_simpo_is_trls(model):
    ids, mask = sequences(4)
    policy, lengths = logps(model, ids, mask).detach(), mask.sum(-1)
    state = trainer(model, loss_type="simpo", alpha=0.0, beta=2.0, simpo_gamma=0.7, label_smoothing=0.0)
    means = policy / lengths
    expected, *_ = CPOTrainer.cpo_loss(state, means[:3], means[3:])
    halves = [scores(policy[part], num_tokens=lengths[part].tolist()) for part in (slice(3), slice(3, 6))]
    found = simpo(*halves, method("simpo", beta=2.0, simpo_margin=0.7)).loss
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
