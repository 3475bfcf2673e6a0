"""What the trials of one process share: samples, reference, base weights, and the evaluation engine."""

from __future__ import annotations

from collections.abc import Sequence

from depo.identity import model_hash
from depo.stages.jobs import RolloutJob, WorkerSettings
from depo.stages.worker import RolloutWorker
from depo.training.sources import KeptSources


class Resident:
    """One of each kind at a time. Nothing in it depends on which trials came before."""

    def __init__(self) -> None:
        self.sources = KeptSources()
        self._worker: RolloutWorker | None = None
        self._made_of: object = None

    def rollouts(self, settings: WorkerSettings, base: str, jobs: Sequence[RolloutJob]) -> None:
        """Do all `jobs`, whose policies were trained from `base`, on the engine at hand where it fits.

        Raises `Halt` where they cannot be done.
        """
        wanted = settings, base, model_hash(base)
        if self._worker is None or self._made_of != wanted:
            self.close()
            self._worker, self._made_of = RolloutWorker(settings, []), wanted
        try:
            for job in jobs:
                self._worker.run(job, job.tasks)
        except BaseException:
            # It takes no more work, or is in the middle of some.
            self.close()
            raise

    def close(self) -> None:
        """Give up the engine."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
