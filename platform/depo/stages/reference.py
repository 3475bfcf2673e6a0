"""Reference log-probs: once for each sequence and policy, read by every method, trial and run."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from depo.config.runtime import RuntimeConfig
from depo.config.schema import StudentConfig
from depo.data.reference_cache import FloatArray, ReferenceCache, open_cache, sequence_key
from depo.data.store import write_table
from depo.policies.checkpoint import load_renderer
from depo.records import ReferenceLogProbs
from depo.stages.base import Outcome
from depo.stages.cluster import connect
from depo.stages.progress import Board, Line, follow
from depo.threads import awaited
from depo.training.dataset import SampleTable, flat, load_samples, require_partners
from depo.training.loading import require_tokenizer
from depo.training.reference import Conversation, ReferenceScorer, sequences_of
from depo.training.spec import LOG_PROBS

_BATCH = 64


def score(
    samples_file: Path,
    view: str,
    model_dir: str,
    student: StudentConfig,
    runtime: RuntimeConfig,
    runs_dir: Path,
    out_dir: Path,
) -> Outcome:
    """Score one view of the samples, and their KL pairs, under the policy in `model_dir`.

    What any run below `runs_dir` scored before is taken from its cache; a batch that is finished is in
    it, so a second start goes on from there. Raises `ConfigError` for samples that do not serve.
    """
    require_tokenizer(str(samples_file), model_dir, student.chat_template)
    table = load_samples(str(samples_file), view, student.max_length, student.too_long)
    require_partners(table, str(samples_file))
    pairs = [sequences_of(table, row) for row in table.rows]
    keys = [(sequence_key(*own), sequence_key(*kl)) for own, kl in pairs]
    sequences = {
        key: sequence for two in zip(keys, pairs, strict=True) for key, sequence in zip(*two, strict=True)
    }
    tokenizer = load_renderer(model_dir, student.chat_template).fingerprint
    cache = open_cache(runs_dir.resolve(), model_dir, tokenizer, student.dtype)
    known = cache.read(sequences)
    missing = {key: sequence for key, sequence in sequences.items() if key not in known}
    if missing:
        _score_missing(missing, model_dir, student.dtype, runtime, cache)
        known |= cache.read(missing)
    scored = _rows(table, keys, known)
    write_table(out_dir / LOG_PROBS, scored, ReferenceLogProbs)
    mean = sum(sum(row.logps) for row in scored) / max(len(scored), 1)
    return Outcome(
        rows=len(scored),
        metrics={"ref_logp": mean, "scored": len(missing), "cached": len(sequences) - len(missing)},
    )


class _CachingScorer:
    """`ReferenceScorer` that puts what it scored into the cache, and tells the board how far it is."""

    def __init__(self, model_dir: str, dtype: str, cache: ReferenceCache, board: Any) -> None:
        self._scorer = ReferenceScorer(model_dir, dtype)
        self._cache, self._board = cache, board

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids, lengths = flat(batch["token_ids"])
        own, _ = flat(batch["own"])
        ends = np.cumsum(lengths)[:-1]
        scores = self._scorer.score(list(zip(np.split(ids, ends), np.split(own, ends), strict=True)))
        self._cache.write(dict(zip(batch["key"].to_pylist(), scores, strict=True)))
        self._board.add.remote({"sequences": len(scores)})
        return batch.select(["key"])


def _score_missing(
    missing: dict[str, Conversation],
    model_dir: str,
    dtype: str,
    runtime: RuntimeConfig,
    cache: ReferenceCache,
) -> None:
    connect(runtime)
    board = Board.remote()  # type: ignore[attr-defined]
    actors = runtime.generation.actors
    dataset = ray.data.from_arrow(_blocks(missing)).map_batches(
        _CachingScorer,
        fn_constructor_args=(model_dir, dtype, cache, board),
        batch_size=_BATCH,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=runtime.generation.num_cpus,
        num_gpus=runtime.generation.num_gpus or None,
    )
    with follow(board, Line("reference", "sequences", len(missing)), "sequences"):
        batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        awaited(lambda: deque(batches, maxlen=0), "reference")


def _blocks(sequences: dict[str, Conversation]) -> list[pa.Table]:
    """Sequences as blocks of batches; neighbours are of like length, which saves padding."""
    keys = sorted(sequences, key=lambda key: (len(sequences[key][0]), key))
    blocks = []
    for at in range(0, len(keys), _BATCH):
        some = [sequences[key] for key in keys[at : at + _BATCH]]
        offsets = pa.array(np.concatenate([[0], np.cumsum([len(ids) for ids, _ in some])]), pa.int32())
        columns = {
            name: pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(arrays), pa.int32()))
            for name, arrays in zip(("token_ids", "own"), zip(*some, strict=True), strict=True)
        }
        blocks.append(pa.table({"key": keys[at : at + _BATCH], **columns}))
    return blocks


def _rows(
    table: SampleTable, keys: list[tuple[str, str]], known: dict[str, FloatArray]
) -> list[ReferenceLogProbs]:
    scored = [
        ReferenceLogProbs(table.ids[row], tuple(known[own].tolist()), tuple(known[kl].tolist()))
        for row, (own, kl) in zip(table.rows, keys, strict=True)
    ]
    return sorted(scored, key=lambda row: row.sample_id)
