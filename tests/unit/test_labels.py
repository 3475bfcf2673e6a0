"""Labels: the published thresholds and step rule, and the options beside them."""

import pytest
from builders import trajectory

from depo.config.schema import AnnotationConfig
from depo.data.labels import label, label_all

PUBLISHED = AnnotationConfig()


@pytest.mark.parametrize(
    ("reward", "steps", "expected"),
    [
        (0.9, 6, "D"),
        (0.95, 1, "D"),
        (0.95, 7, "U"),
        (0.8999, 6, "U"),
        (0.7, 2, "U"),
        (0.6999, 2, None),
        (0.0, 7, "U"),
        (0.0, 6, None),
    ],
)
def test_published_thresholds_and_step_rule(reward, steps, expected):
    assert label(trajectory(steps=steps, reward=reward), PUBLISHED) == expected


def test_a_broken_episode_is_never_labelled():
    broken = trajectory(steps=9, reward=0.0, stop_reason="error")
    assert label(broken, AnnotationConfig(failures="undesirable")) is None


def test_short_failures_are_undesirable_only_where_asked():
    failed = trajectory(steps=3, reward=0.0, success=False)
    assert label(failed, PUBLISHED) is None
    assert label(failed, AnnotationConfig(failures="undesirable")) == "U"


def test_a_short_success_below_kappa2_stays_dropped_when_failures_count():
    weak = trajectory(steps=3, reward=0.5, success=True)
    assert label(weak, AnnotationConfig(failures="undesirable")) is None


def test_pairing_keeps_only_tasks_with_both_labels():
    episodes = [
        trajectory(seed=1, reward=0.95),
        trajectory(seed=1, reward=0.8),
        trajectory(seed=2, reward=0.95),
        trajectory(seed=3, reward=0.1),
    ]
    kept, counts = label_all(episodes, AnnotationConfig(pairing="task"))
    assert [t.task.seed for t, _ in kept] == [1, 1]
    assert counts == {"trajectories": 4, "dropped": 1, "unpaired": 1, "desirable": 1, "undesirable": 1}
