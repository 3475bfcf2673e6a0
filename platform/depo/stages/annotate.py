"""Annotation: trajectories become labelled samples in the student's tokens, thoughts shortened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from depo.config.base import ConfigError
from depo.config.schema import AnnotationConfig, RephraseConfig
from depo.data.labels import label_all
from depo.data.rephrase import KeepThoughts, PolicyRephraser, Rephraser, SiblingRephraser, shorten
from depo.data.samples import make_samples
from depo.data.store import TOKENIZER_KEY, read_trajectories, write_table
from depo.policies.base import BudgetSpent
from depo.policies.chat import ChatRenderer
from depo.records import Label, Sample, Trajectory
from depo.stages.base import Outcome
from depo.stages.progress import say

SAMPLES = "samples.parquet"
REPHRASED = "rephrased.jsonl"


def annotate(
    trajectories_dir: Path, config: AnnotationConfig, renderer: ChatRenderer, out_dir: Path
) -> Outcome:
    """Label, rephrase and tokenise a round into `out_dir/samples.parquet`.

    Raises `ConfigError` where no desirable trajectory is left: nothing could be trained on it.
    """
    trajectories = read_trajectories(trajectories_dir)
    labelled, counts = label_all(trajectories, config)
    if not counts["desirable"]:
        raise ConfigError(
            f"annotation: none of {counts['trajectories']} trajectories in {trajectories_dir} is desirable; "
            "lower kappa0, raise max_desirable_steps, or generate with a stronger policy"
        )
    desirable = [trajectory for trajectory, mark in labelled if mark == "D"]
    with _rephraser(config.rephrase, trajectories, out_dir / REPHRASED) as rephraser:
        rewritten, steps_shortened = shorten(desirable, rephraser, lambda text: len(renderer.reply(text)) - 1)
    shortened = {before.id: after for before, after in zip(desirable, rewritten, strict=True)}
    samples = make_samples(labelled, shortened, renderer, config.seed)
    write_table(out_dir / SAMPLES, samples, Sample, {TOKENIZER_KEY: renderer.fingerprint.encode()})
    told = _told(labelled, samples, counts)
    for line in told.values():
        say(f"annotate: {line}")
    metrics = {**counts, **_lengths(samples), "steps_shortened": steps_shortened, **told}
    return Outcome(rows=len(samples), metrics=metrics)


def _told(
    labelled: list[tuple[Trajectory, Label]], samples: list[Sample], counts: Mapping[str, int]
) -> dict[str, str]:
    """A line each on imported labels that the rules, and counts that the tokenizer, would change."""
    lines = {}
    if differ := counts.get("rules_differ", 0):
        lines["labels_told"] = (
            f"the rules would change {differ} imported labels (`imported: rules` lets them)"
        )
    told = {t.id: t.told.tokens for t, _ in labelled if t.told and t.told.tokens is not None}
    ours = {s.trajectory_id: s.num_tokens for s in samples if s.view == "raw" and s.trajectory_id in told}
    wrong = [i for i in ours if told[i] != ours[i]]
    if wrong:
        most = max(wrong, key=lambda i: abs(told[i] - ours[i]))
        lines["tokens_told"] = (
            f"`total_tokens` differs from the student's tokens in {len(wrong)} of {len(told)} imported "
            f"trajectories, most in {most}: {told[most]}, not {ours[most]}"
        )
    return lines


@contextmanager
def _rephraser(config: RephraseConfig, trajectories: list[Trajectory], kept: Path) -> Iterator[Rephraser]:
    """The rephraser of a configuration; the offline one learns from `trajectories`, an endpoint's replies
    are added to the file `kept` as they come, so that a second start pays for none of them again."""
    if config.kind == "none":
        yield KeepThoughts()
    elif config.kind == "rule" or config.endpoint is None:
        yield SiblingRephraser(trajectories)
    else:
        from depo.policies.openai import OpenAIPolicy
        from depo.policies.openai_client import EndpointError

        with closing(OpenAIPolicy(config.endpoint, name=config.endpoint.model)) as policy:
            try:
                yield PolicyRephraser(policy, kept)
            except (BudgetSpent, EndpointError) as error:
                raise ConfigError(f"annotation.rephrase: {error} (replies so far are in {kept})") from None


def _lengths(samples: list[Sample]) -> dict[str, float]:
    """Mean tokens and steps of desirable (each view) and undesirable samples."""
    groups = {
        "desirable_raw": [s for s in samples if s.label == "D" and s.view == "raw"],
        "desirable_rephrased": [s for s in samples if s.label == "D" and s.view == "rephrased"],
        "undesirable": [s for s in samples if s.label == "U" and s.view == "raw"],
    }
    lengths = {}
    for name, group in groups.items():
        n = max(len(group), 1)
        lengths[f"{name}_tokens"] = sum(s.num_tokens for s in group) / n
        lengths[f"{name}_steps"] = sum(s.num_steps for s in group) / n
    return lengths
