"""Batches: padding on the right, masks and weights where they belong."""

import numpy as np
import pytest

from depo.config.base import ConfigError
from depo.training.collator import PreferenceCollator, TokenCollator
from depo.training.dataset import SampleTable
from depo.training.trainer import batching

PAD = 99
TABLE = SampleTable(
    ids=("a", "b"),
    tokens=np.array([1, 2, 3, 4, 5, 6, 7, 8]),
    mask=np.array([0, 1, 1, 0, 0, 1, 0, 1]),
    offsets=np.array([0, 3, 8]),
    prompt_length=np.array([1, 2]),
    desirable=np.array([True, False]),
    num_steps=np.array([1, 2]),
    num_tokens=np.array([2, 5]),
    partner=np.array([1, 0]),
    max_length=16,
    rows=np.array([0, 1]),
    ref_logp=np.array([-1.5, -2.5]),
    ref_kl_logp=np.array([-3.5, -4.5]),
)
BOTH = [{"row": 0}, {"row": 1}]


def test_supervised_batch_weighs_agent_tokens_one_others_less_and_padding_nothing():
    batch = TokenCollator(TABLE, PAD, observation_weight=0.25)(BOTH)
    assert batch["input_ids"].tolist() == [[1, 2, 3, PAD, PAD], [4, 5, 6, 7, 8]]
    assert batch["weights"].tolist() == [[0.25, 1, 1, 0, 0], [0.25, 0.25, 1, 0.25, 1]]


def test_preference_batch_pairs_a_prompt_with_its_partners_completion():
    batch = PreferenceCollator(TABLE, PAD)(BOTH)
    assert batch["input_ids"].tolist() == [[1, 2, 3, PAD, PAD], [4, 5, 6, 7, 8]]
    assert batch["agent_mask"].tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 0, 1]]
    assert batch["kl_input_ids"].tolist() == [[1, 6, 7, 8], [4, 5, 2, 3]]
    assert batch["kl_agent_mask"].tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]
    assert batch["desirable"].tolist() == [True, False]
    assert batch["tokens_per_step"].tolist() == [2.0, 2.5] and batch["num_steps"].tolist() == [1, 2]
    assert batch["ref_logp"].tolist() == [-1.5, -2.5] and batch["ref_kl_logp"].tolist() == [-3.5, -4.5]


@pytest.mark.parametrize(
    ("batch_size", "device", "world", "expected"),
    [(16, 8, 2, (8, 1)), (16, 8, 1, (8, 2)), (12, 8, 1, (6, 2)), (14, 4, 2, (1, 7)), (4, 8, 2, (2, 1))],
)
def test_a_step_is_cut_exactly_into_device_batches(batch_size, device, world, expected):
    cut = batching(batch_size, device, world)
    assert (cut.device, cut.accumulation) == expected
    assert cut.device * cut.accumulation * world == batch_size and cut.device <= device


def test_a_step_that_workers_cannot_share_is_refused():
    with pytest.raises(ConfigError, match="batch_size: 15 samples do not divide over 2 workers"):
        batching(15, 8, 2)
