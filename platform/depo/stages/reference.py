"""Reference log-probs: once for each set of samples and reference, read by every method and trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray.data

from depo.config.runtime import RuntimeConfig
from depo.config.schema import StudentConfig
from depo.data.store import read_table, write_table
from depo.records import ReferenceLogProbs, Sample
from depo.stages.base import Outcome
from depo.stages.cluster import connect
from depo.stages.progress import Board, Line, follow
from depo.training.reference import ReferenceScorer

LOG_PROBS = "reference.parquet"
_BATCH = 64


class _CountingScorer:
    """`ReferenceScorer` that tells the board how far it is."""

    def __init__(self, model_dir: str, dtype: str, board: Any) -> None:
        self._scorer = ReferenceScorer(model_dir, dtype)
        self._board = board

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        result = self._scorer(batch)
        self._board.add.remote({"samples": len(result["sample_id"])})
        return result


def score(
    samples_file: Path,
    view: str,
    model_dir: str,
    student: StudentConfig,
    runtime: RuntimeConfig,
    out_dir: Path,
) -> Outcome:
    """Score one view of the samples, and their KL pairs, under the policy in `model_dir`."""
    samples = [s for s in read_table(samples_file, Sample) if s.view == view]
    by_id = {sample.id: sample for sample in samples}
    # Neighbours of like length share a batch, which saves padding.
    rows = [
        _row(sample, by_id[sample.kl_partner], student.max_length)
        for sample in sorted(samples, key=lambda s: (len(s.token_ids), s.id))
    ]
    connect(runtime)
    board = Board.remote()  # type: ignore[attr-defined]
    actors = runtime.generation.actors
    blocks = max(1, len(rows) // (2 * _BATCH))
    dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        _CountingScorer,
        fn_constructor_args=(model_dir, student.dtype, board),
        batch_size=_BATCH,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=runtime.generation.num_cpus,
        num_gpus=runtime.generation.num_gpus or None,
    )
    with follow(board, Line("reference", "samples", len(rows)), "samples"):
        scored = [ReferenceLogProbs.from_row(row) for row in dataset.iter_rows()]
    scored.sort(key=lambda row: row.sample_id)
    write_table(out_dir / LOG_PROBS, scored, ReferenceLogProbs)
    mean = sum(row.ref_logp for row in scored) / max(len(scored), 1)
    return Outcome(rows=len(scored), metrics={"ref_logp": mean})


def _row(sample: Sample, partner: Sample, max_length: int) -> dict[str, Any]:
    """What `ReferenceScorer` reads of a sample; sequences are cut where training leaves them out."""
    row: dict[str, Any] = {"id": sample.id}
    for prefix, one in (("", sample), ("partner_", partner)):
        row[f"{prefix}token_ids"] = list(one.token_ids[:max_length])
        row[f"{prefix}agent_mask"] = list(one.agent_mask[:max_length])
        row[f"{prefix}prompt_length"] = one.prompt_length
    return row
