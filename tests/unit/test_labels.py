"""Labels: the published thresholds and step rule, and the options beside them."""

import pytest
from builders import trajectory

from depo.config.schema import AnnotationConfig
from depo.data.labels import label, label_all
from depo.records import Told

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


@pytest.mark.parametrize(
    ("told", "reward", "steps", "obeyed", "by_rules"),
    [
        ("D", 1.0, 9, "D", "U"),
        ("D", 0.0, 2, "D", None),
        ("U", 1.0, 2, "U", "D"),
        (None, 1.0, 9, "D", "U"),
        (None, 0.0, 9, None, "U"),
        (None, 0.8, 2, "U", "U"),
    ],
)
def test_an_imported_label_is_obeyed_unless_the_rules_are_asked_for(told, reward, steps, obeyed, by_rules):
    imported = trajectory(steps=steps, reward=reward, told=Told(told))
    assert label(imported, PUBLISHED) == obeyed
    assert label(imported, AnnotationConfig(imported="rules")) == by_rules


def test_it_is_counted_how_many_imported_labels_the_rules_would_change():
    episodes = [
        trajectory(steps=steps, reward=1.0, seed=steps, told=Told(told))
        for steps, told in ((9, "D"), (2, "D"), (3, "U"), (8, None))
    ]
    assert label_all(episodes, PUBLISHED)[1]["rules_differ"] == 2
    assert "rules_differ" not in label_all([trajectory()], PUBLISHED)[1]
