"""Thought utility: how much likelier a policy's own thoughts make its actions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from depo.config.runtime import RuntimeConfig
from depo.config.schema import StudentConfig
from depo.data.store import read_trajectories, write_atomic
from depo.evaluation.statistics import Sums, Values, intervals
from depo.policies.checkpoint import load_renderer
from depo.records import Trajectory, content_hash
from depo.stages.base import Outcome
from depo.stages.cluster import connect
from depo.training.reference import ReferenceScorer
from depo.training.thoughts import ThoughtTurn, TurnUtility, thought_turns, utilities

UTILITIES = "thoughts.parquet"
"""A row a turn: the fields of `TurnUtility`."""

SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("step", pa.int32()),
        ("logp_with", pa.float64()),
        ("logp_without", pa.float64()),
        ("action_tokens", pa.int32()),
        ("thought_tokens", pa.int32()),
        ("valid", pa.bool_()),
        ("success", pa.bool_()),
    ],
    metadata={"record": "TurnUtility", "version": "1"},
)
_BATCH = 64


def score(
    trajectories: Path,
    model_dir: str,
    student: StudentConfig,
    runtime: RuntimeConfig,
    count: int,
    out_dir: Path,
    tasks: Collection[str] | None = None,
) -> Outcome:
    """Score up to `count` episodes of a folder under the policy in `model_dir`, which played them.

    Which episodes is decided by their tasks alone, so every method is scored on the same ones, all levels
    among them; `tasks` are ids to choose from, where the folder holds others too.
    A policy without a single thought gives `turns` 0 and no means.
    """
    renderer = load_renderer(model_dir, student.chat_template)
    played = read_trajectories(trajectories)
    chosen = choose([t for t in played if tasks is None or t.task.id in tasks], count)
    turns = [turn for trajectory in chosen for turn in thought_turns(trajectory, renderer)]
    scored: list[TurnUtility] = []
    if turns:
        connect(runtime)
        found = _score(turns, model_dir, student.dtype, runtime)
        scored = sorted(found, key=lambda u: (u.task_id, u.step))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([asdict(u) for u in scored], schema=SCHEMA), sink, compression="zstd")
    write_atomic(out_dir / UTILITIES, sink.getvalue().to_pybytes())
    return Outcome(rows=len(scored), metrics={"episodes": len(chosen), **summary(scored)})


def choose(trajectories: Sequence[Trajectory], count: int) -> list[Trajectory]:
    """The `count` episodes whose tasks come first in an order that knows nothing of levels."""
    return sorted(trajectories, key=lambda t: (content_hash(t.task.id), t.id))[:count]


def summary(scored: Sequence[TurnUtility]) -> dict[str, Any]:
    """What a table shows of scored turns; utilities in nats, a mean over turns.

    `intervals` are 95%, over episodes, whose turns stay together. `by_position` and
    `by_outcome` hold `utility_mean` and `turns` of the n-th turns (from "1") and of the episodes that
    ended in success or failure. Over no turns there is nothing but `turns`, 0.
    """
    if not scored:
        return {"turns": 0}
    positions = sorted({u.step for u in scored})
    outcomes = {"success": True, "failure": False}
    return {
        **_means(scored),
        "intervals": _intervals(scored),
        "by_position": {str(n + 1): _mean_of(u for u in scored if u.step == n) for n in positions},
        "by_outcome": {
            name: _mean_of(u for u in scored if u.success == success)
            for name, success in outcomes.items()
            if any(u.success == success for u in scored)
        },
    }


def _means(scored: Sequence[TurnUtility]) -> dict[str, float]:
    total = sum(u.utility for u in scored)
    return {
        "utility_mean": total / len(scored),
        "utility_per_token": total / sum(u.action_tokens for u in scored),
        "share_positive": sum(u.utility > 0 for u in scored) / len(scored),
        "thought_tokens_mean": sum(u.thought_tokens for u in scored) / len(scored),
        "turns": len(scored),
    }


def _mean_of(scored: Iterable[TurnUtility]) -> dict[str, float]:
    means = _means(list(scored))
    return {"utility_mean": means["utility_mean"], "turns": means["turns"]}


def _intervals(scored: Sequence[TurnUtility]) -> dict[str, dict[str, Any]]:
    """Intervals of ratios of sums over episodes, since an episode with more turns says more."""
    episodes: dict[str, Values] = {}
    for u in scored:
        turn = np.array([u.utility, u.utility > 0, u.action_tokens, 1.0], dtype=np.float64)
        episodes[u.task_id] = episodes.get(u.task_id, np.zeros(4)) + turn
    utility, positive, tokens, turns = np.array(list(episodes.values())).T
    sums = Sums(np.stack([utility, utility, positive], 1), np.stack([turns, tokens, turns], 1))
    names = ("utility_mean", "utility_per_token", "share_positive")
    found = intervals(sums, shares=[False, False, True])
    return {name: interval.to_json() for name, interval in zip(names, found, strict=True)}


class _Scorer:
    """Scores blocks of turns; made once an actor, with the policy's weights."""

    def __init__(self, model_dir: str, dtype: str) -> None:
        self._scorer = ReferenceScorer(model_dir, dtype)

    def __call__(self, batch: pa.Table) -> pa.Table:
        turns = [_turn(row) for row in batch.to_pylist()]
        return pa.Table.from_pylist([asdict(u) for u in utilities(turns, self._scorer)], schema=SCHEMA)


def _score(
    turns: Sequence[ThoughtTurn], model_dir: str, dtype: str, runtime: RuntimeConfig
) -> list[TurnUtility]:
    """Score turns on the cluster, in blocks that don't depend on how many workers there are."""
    blocks = [
        pa.Table.from_pylist([_row(turn) for turn in turns[at : at + _BATCH]])
        for at in range(0, len(turns), _BATCH)
    ]
    actors = min(runtime.generation.actors, len(blocks))
    scored = ray.data.from_arrow(blocks).map_batches(
        _Scorer,
        fn_constructor_args=(model_dir, dtype),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=runtime.generation.num_cpus,
        num_gpus=runtime.generation.num_gpus or None,
    )
    batches: Iterator[Any] = iter(scored.iter_batches(batch_size=None, batch_format="pyarrow"))
    return [TurnUtility(**row) for batch in batches for row in batch.to_pylist()]


_SEQUENCES = ("with_thought", "without")


def _row(turn: ThoughtTurn) -> dict[str, Any]:
    """A turn as a row of an Arrow table."""
    row = {f.name: getattr(turn, f.name) for f in fields(ThoughtTurn)}
    for name in _SEQUENCES:
        ids, scored = row.pop(name)
        row |= {f"{name}_ids": ids.tolist(), f"{name}_scored": scored.tolist()}
    return row


def _turn(row: dict[str, Any]) -> ThoughtTurn:
    for name in _SEQUENCES:
        pair = (row.pop(f"{name}_ids"), row.pop(f"{name}_scored"))
        row[name] = tuple(np.array(values, dtype=np.int32) for values in pair)
    return ThoughtTurn(**row)
