"""An experiment as a graph of stages: what each one is, needs, and runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from depo.config.method import OBJECTIVE_FACTS
from depo.config.schema import ExperimentConfig, MethodConfig
from depo.identity import pinned
from depo.records import content_hash
from depo.stages.base import Outcome, StageSpec

Kind = Literal["student", "generate", "annotate", "reference", "train", "evaluate", "thoughts", "report"]


@dataclass(frozen=True)
class Node:
    """One stage of an experiment."""

    kind: Kind
    spec: StageSpec
    needs: tuple[str, ...]
    """Names of the stages that come before it."""
    body: Callable[[], Outcome]
    together: Callable[[Sequence[Node]], None] | None = None
    """Work done once for all pending nodes of the kind, before their bodies."""


@dataclass(frozen=True)
class Experiment:
    """A configuration, its run directory, and its stages in an order in which they can run."""

    config: ExperimentConfig
    run_dir: Path
    nodes: dict[str, Node] = field(default_factory=dict)

    def add(
        self,
        kind: Kind,
        name: str,
        out: str,
        config: dict[str, Any],
        needs: Sequence[str],
        version: int = 1,
        grows: tuple[str, ...] = (),
        **rest: Any,
    ) -> str:
        """Append a stage; its inputs are the fingerprints of what it `needs`."""
        inputs = {need: self.nodes[need].spec.fingerprint for need in needs}
        spec = StageSpec(name, self.run_dir / out, config, inputs, version, grows)
        self.nodes[name] = Node(kind, spec, tuple(needs), **rest)
        return name

    def out(self, name: str) -> Path:
        """The directory of a stage."""
        return self.nodes[name].spec.out_dir

    def model_dir(self, policy: str) -> str:
        """Where the weights of "student" or of a method are, or will be; a controlled row has a method's."""
        if policy in self.config.evaluation.controlled:
            policy = self.config.evaluation.controlled[policy].method
        if policy != "student":
            return str((self.run_dir / policy / "model").resolve())
        if self.config.student.model == "tiny":
            return str((self.run_dir / "student" / "model").resolve())
        return pinned(self.config.student.model, self.config.student.revision)


def runs_dir(config: ExperimentConfig) -> Path:
    """Where run directories lie: `runtime.runs_dir`, a relative one below the present directory.

    A Ray job works in a throw-away copy of its directory; there a relative one lies below the
    checkout that `depo` is installed from, so that a job goes on with the runs made there.
    """
    path = Path(config.runtime.runs_dir)
    checkout = Path(__file__).resolve().parents[2]
    in_job = "_ray_pkg_" in str(Path.cwd())
    if in_job and not path.is_absolute() and (checkout / "pyproject.toml").is_file():
        return checkout / path
    return path


def needs_reference(method: MethodConfig) -> bool:
    """Whether the reference stage comes before a method's training.

    An objective of one's own says so itself. Raises `ConfigError` where that cannot be imported.
    """
    facts = OBJECTIVE_FACTS.get(method.objective)
    if facts is not None:
        return facts.needs_reference
    from depo.objectives.registry import objective

    return objective(method.objective).needs_reference


def reference_key(method: MethodConfig) -> str:
    """Names the reference log-probs a method reads: whose, of which samples, in which view."""
    return f"{method.init}-{method.samples}-{method.view}"


def evaluation_name(method: str, suite: str = "") -> str:
    """The stage that tries a method on the evaluation's own tasks, or on a suite."""
    return f"evaluate {method} on {suite}" if suite else f"evaluate {method}"


def evaluation_parts(stage: str) -> tuple[str, str]:
    """(method, suite) of what `evaluation_name` answered; neither name has a space."""
    method, _, suite = stage.removeprefix("evaluate ").partition(" on ")
    return method, suite


def derived_seed(config: ExperimentConfig, part: str) -> int:
    """A seed of one part's own (31 bits), so that parts may come and go without moving the others."""
    return int(content_hash([config.seed, part], length=8), 16) >> 1
