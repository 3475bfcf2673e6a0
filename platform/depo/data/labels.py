"""Which trajectories are desirable (D), which undesirable (U), which teach nothing.

The thresholds and the step rule are DEPO's (arXiv 2511.15392, section on data annotation).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from depo.config.schema import AnnotationConfig
from depo.records import Label, Trajectory


def label(trajectory: Trajectory, config: AnnotationConfig) -> Label | None:
    """The label of one trajectory, or None where it is dropped.

    D: reward >= kappa0 and at most `max_desirable_steps` steps. U: more steps than that, whatever
    the reward (so the step rule wins over a high reward), or reward in [kappa2, kappa1). What is
    left failed in few steps: `failures` decides. An episode that broke down teaches nothing. An imported
    trajectory has the label that its file gives it; where the file gives none the step rule is left out.
    With `imported="rules"` it is labelled as any other.
    """
    if trajectory.stop_reason == "error" or not trajectory.steps:
        return None
    told = trajectory.told if config.imported == "labels" else None
    if told and told.label:
        return told.label
    if told is None and trajectory.num_steps > config.max_desirable_steps:
        return "U"
    if trajectory.reward >= config.kappa0:
        return "D"
    if config.kappa2 <= trajectory.reward < config.kappa1:
        return "U"
    if not trajectory.success and config.failures == "undesirable":
        return "U"
    return None


def label_all(
    trajectories: Iterable[Trajectory], config: AnnotationConfig
) -> tuple[list[tuple[Trajectory, Label]], Mapping[str, int]]:
    """Label trajectories, keep what `pairing` allows; also the counts of what became of them.

    `rules_differ`, where trajectories were imported with labels, is how many the rules label otherwise.
    """
    labelled: list[tuple[Trajectory, Label]] = []
    counts = {"trajectories": 0, "dropped": 0, "unpaired": 0, "desirable": 0, "undesirable": 0}
    rules = config.model_copy(update={"imported": "rules"})
    for trajectory in trajectories:
        counts["trajectories"] += 1
        mark = label(trajectory, config)
        if trajectory.told and trajectory.told.label:
            differs = label(trajectory, rules) != trajectory.told.label
            counts["rules_differ"] = counts.get("rules_differ", 0) + differs
        if mark is None:
            counts["dropped"] += 1
        else:
            labelled.append((trajectory, mark))
    if config.pairing == "task":
        labels_of = defaultdict(set)
        for trajectory, mark in labelled:
            labels_of[trajectory.task.id].add(mark)
        paired = [pair for pair in labelled if len(labels_of[pair[0].task.id]) == 2]
        counts["unpaired"] = len(labelled) - len(paired)
        labelled = paired
    counts["desirable"] = sum(mark == "D" for _, mark in labelled)
    counts["undesirable"] = len(labelled) - counts["desirable"]
    return labelled, counts
