"""Labelled trajectories as token ids with a mask over the agent's own tokens.

The mask is right by construction: ids are laid down turn by turn, and each turn is known to be
the agent's or not when it is laid down. Inside a reply the action begins with the token that holds
the first letter of `Action:`; a token that also holds the line break before it is the action's.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from depo.policies.base import action_start
from depo.policies.chat import ChatRenderer
from depo.records import Label, Sample, Trajectory, content_hash

VIEWS = ("raw", "rephrased")


def tokens_of(trajectory: Trajectory, renderer: ChatRenderer) -> tuple[list[int], list[int], int, int]:
    """(ids, agent mask, prompt length, agent tokens without end-of-turns) of a whole episode.

    A step's own ids are used where this tokenizer made them; other steps are tokenised from text. Turns
    that are only context have mask 0 throughout.
    """
    own = trajectory.tokenizer == renderer.fingerprint
    ids: list[int] = []
    mask: list[int] = []
    prompt = count = 0
    for number, step in enumerate(trajectory.steps):
        observations = [*(turn.observation for turn in step.context), step.observation]
        for seen, answered in zip(observations, [*(turn.text for turn in step.context), None], strict=True):
            ids += renderer.following(seen) if ids else renderer.first(trajectory.system, seen)
            ids += renderer.reply(answered) if answered is not None else ()
        mask += [0] * (len(ids) - len(mask))
        prompt = prompt if number else len(ids)
        # A policy without room for a reply said nothing, which is not the same as an unknown text.
        as_generated = own and (step.token_ids or not step.text)
        reply = step.token_ids if as_generated else renderer.reply(step.text)
        closed = renderer.closed(reply)
        ids += closed
        mask += [*reply_mask(tuple(reply), renderer), *[0] * (len(closed) - len(reply))]
        count += len(reply) - renderer.ended(reply)
    return ids, mask, prompt, count


@lru_cache(maxsize=65536)
def reply_mask(reply: tuple[int, ...], renderer: ChatRenderer) -> tuple[int, ...]:
    """1 on a reply's thought, 2 on its action and its end-of-turn, as `Sample.agent_mask` has it."""
    ended = renderer.ended(reply)
    length = len(reply) - ended
    start = None if renderer.holds_control(reply) else action_start(renderer.text(reply))
    thought = length if start is None else tokens_before(reply, start, renderer)
    return (1,) * thought + (2,) * (length - thought + ended)


def tokens_before(reply: tuple[int, ...], place: int, renderer: ChatRenderer) -> int:
    """How many of the reply's tokens end at or before character `place` of its text."""
    return bisect_right(range(1, len(reply) + 1), place, key=lambda n: len(renderer.text(reply[:n])))


def make_sample(
    trajectory: Trajectory, label: Label, view: str, renderer: ChatRenderer, source: Trajectory | None = None
) -> Sample:
    """One sample, its KL partner still to be named; `source` is the trajectory it was rephrased from."""
    ids, mask, prompt_length, count = tokens_of(trajectory, renderer)
    return Sample(
        id=content_hash([ids, label, view, trajectory.id]),
        trajectory_id=(source or trajectory).id,
        task_id=trajectory.task.id,
        env=trajectory.task.env,
        level=trajectory.task.level,
        policy=trajectory.policy,
        label=label,
        view=view,
        reward=trajectory.reward,
        success=trajectory.success,
        num_steps=trajectory.num_steps,
        num_tokens=count,
        token_ids=tuple(ids),
        agent_mask=tuple(mask),
        prompt_length=prompt_length,
        kl_partner="",
    )


def name_kl_partners(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Samples with `kl_partner` set, in the order given.

    Within one environment and view the samples stand in a ring ordered by a hash of seed and id,
    and each takes the next one of another task: neither batch size nor order changes the pair. A
    sample alone with its task takes its neighbour, alone in all it takes itself.
    """
    rings: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        rings[sample.env, sample.view].append(sample)
    partner: dict[str, str] = {}
    for ring in rings.values():
        ring.sort(key=lambda s: hashlib.sha256(f"{seed}/{s.id}".encode()).digest())
        for place, sample in enumerate(ring):
            others = (ring[(place + k) % len(ring)] for k in range(1, len(ring)))
            found = next((o for o in others if o.task_id != sample.task_id), None)
            partner[sample.id] = (found or ring[(place + 1) % len(ring)]).id
    return [replace(sample, kl_partner=partner[sample.id]) for sample in samples]


def make_samples(
    labelled: Iterable[tuple[Trajectory, Label]],
    shortened: dict[str, Trajectory],
    renderer: ChatRenderer,
    seed: int,
) -> list[Sample]:
    """Both views of every labelled trajectory, KL partners named.

    `shortened` maps the id of a desirable trajectory to its rephrased form.
    """
    samples = []
    for trajectory, mark in labelled:
        rephrased = shortened.get(trajectory.id, trajectory)
        samples.append(make_sample(trajectory, mark, "raw", renderer))
        samples.append(make_sample(rephrased, mark, "rephrased", renderer, source=trajectory))
    return name_kl_partners(samples, seed)
