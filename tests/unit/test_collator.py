"""Batches: padding on the right, weights where they belong; and how a step is cut up."""

import numpy as np
import pytest
import torch

from depo.config.base import ConfigError
from depo.training.collator import PairCollator, PreferenceCollator, TokenCollator
from depo.training.dataset import SampleTable
from depo.training.trainer import Meter, batching

PAD = 99
TABLE = SampleTable(
    ids=("a", "b"),
    tokens=np.array([1, 2, 3, 4, 5, 6, 7, 8]),
    own=np.array([0, 1, 2, 0, 0, 1, 0, 2]),
    weights=np.array([0, 1, 1, 0, 0, 0.5, 0, 1], dtype=np.float32),
    offsets=np.array([0, 3, 8]),
    prompt_length=np.array([1, 2]),
    desirable=np.array([True, False]),
    num_steps=np.array([1, 2]),
    num_tokens=np.array([2, 5]),
    partner=np.array([1, 0]),
    max_length=16,
    rows=np.array([0, 1]),
    reward=np.array([0.75, 0.25]),
    bonus=np.array([2.0, 0.0]),
    ref_logp=np.array([-1.5, -2.5]),
    ref_kl_logp=np.array([-3.5, -4.5]),
)
BOTH = [{"row": 0}, {"row": 1}]
IDS = [[1, 2, 3, PAD, PAD], [4, 5, 6, 7, 8]]
WEIGHTS = [[0, 1, 1, 0, 0], [0, 0, 0.5, 0, 1]]


def test_supervised_batch_weighs_trained_tokens_observations_less_and_padding_nothing():
    batch = TokenCollator(TABLE, PAD, observation_weight=0.25)(BOTH)
    assert batch["input_ids"].tolist() == IDS and batch["rows"].tolist() == [0, 1]
    assert batch["weights"].tolist() == [[0.25, 1, 1, 0, 0], [0.25, 0.25, 0.5, 0.25, 1]]
    assert batch["trained"].tolist() == [[False, True, True, False, False], [False, False, True, False, True]]


def test_sample_weights_scale_all_of_a_samples_tokens():
    factors = np.array([3.0, 0.5], dtype=np.float32)
    batch = TokenCollator(TABLE, PAD, 0.0, factors)(BOTH)
    assert batch["weights"].tolist() == [[0, 3, 3, 0, 0], [0, 0, 0.25, 0, 0.5]]


def test_preference_batch_holds_what_scores_need():
    batch = PreferenceCollator(TABLE, PAD)(BOTH)
    assert batch["input_ids"].tolist() == IDS and batch["weights"].tolist() == WEIGHTS
    assert batch["desirable"].tolist() == [True, False] and batch["rows"].tolist() == [0, 1]
    numbers = {
        "ref_logp": [-1.5, -2.5], "bonus": [2, 0], "num_tokens": [2, 2], "num_steps": [1, 2],
        "length": [2, 5], "reward": [0.75, 0.25],
    }  # fmt: skip
    assert {name: batch[name].tolist() for name in numbers} == numbers
    assert {batch[name].dtype for name in numbers} == {torch.float32}


def test_kl_batches_pair_a_prompt_with_its_partners_completion_like_lengths_together():
    collator = PreferenceCollator(TABLE, PAD)
    (both,) = collator.kl_batches([1, 0], 1)
    first, second = (both["rows"].tolist().index(row) for row in (0, 1))
    assert both["input_ids"][[first, second]].tolist() == [[1, 6, 7, 8], [4, 5, 2, 3]]
    assert both["weights"][[first, second]].tolist() == [[0, 0.5, 0, 1], [0, 0, 1, 1]]
    assert both["ref_logp"][[first, second]].tolist() == [-3.5, -4.5]
    assert sorted(part["rows"].tolist() for part in collator.kl_batches([1, 0], 2)) == [[0], [1]]


def test_pair_batch_holds_the_chosen_then_the_rejected():
    pairs = np.array([[0, 1], [1, 0], [0, 0]])
    batch = PairCollator(TABLE, PAD, pairs)([{"row": 1}, {"row": 0}])
    assert batch["rows"].tolist() == [1, 0, 0, 1]
    assert batch["input_ids"].tolist() == [IDS[1], IDS[0], IDS[0], IDS[1]]
    assert batch["ref_logp"].tolist() == [-2.5, -1.5, -1.5, -2.5]


def test_a_meter_gives_means_over_what_was_added_on_all_ranks():
    meter = Meter(("a", "b", "c"), torch.device("cpu"))
    meter.add("a", torch.tensor(3.0), torch.tensor(2))
    meter.add("a", torch.tensor(6.0), torch.tensor(1))
    meter.add("b", torch.tensor(8.0), torch.tensor(4))
    # A second rank that added 1 to the sum and the count of everything.
    assert meter.read(lambda totals: totals + 1) == {"a": 10 / 4, "b": 9 / 5, "c": 1.0}
    assert meter.read(lambda totals: totals) == {}


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
