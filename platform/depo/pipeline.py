"""The stages in order: the table of contents of the whole.

`build` turns a configuration into nodes, each a stage with its identity, what it needs, and a body;
`run` does those that are not done. Nothing here computes anything itself.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depo import bodies
from depo.config.base import ConfigError
from depo.config.limits import check_batch
from depo.config.load import dump_config
from depo.config.schema import (
    AnnotationConfig,
    CustomConfig,
    EngineConfig,
    ExperimentConfig,
    ImportedConfig,
    MethodConfig,
    OpenAIConfig,
    RoundConfig,
    SuiteConfig,
    TeacherConfig,
)
from depo.data.store import write_atomic
from depo.envs.registry import make_env
from depo.graph import (
    Experiment,
    Node,
    derived_seed,
    evaluation_name,
    evaluation_parts,
    needs_reference,
    reference_key,
    runs_dir,
)
from depo.identity import files_hash, model_hash, require_commit
from depo.policies.checkpoint import read_template
from depo.policies.engine import custom_class
from depo.policies.openai import require_key
from depo.policies.teacher import require_script
from depo.records import Manifest, content_hash
from depo.stages import base
from depo.stages.tasksets import evaluation_tasks, files_of, suite_tasks

if TYPE_CHECKING:
    from depo.stages.mirror import Mirror


def build(config: ExperimentConfig) -> Experiment:
    """All stages of an experiment. Imports nothing heavy; the bodies do."""
    experiment = Experiment(config, runs_dir(config) / config.name)
    _student(experiment)
    for round_ in config.rounds:
        if not isinstance(round_.policy, EngineConfig):
            _round(experiment, round_)
    for name in config.methods:
        _method(experiment, name)
    for round_ in config.rounds:
        _round(experiment, round_)
    for name in config.evaluated:
        for suite in ("", *config.evaluation.suites):
            _evaluation(experiment, name, suite)
    for name in config.evaluated if config.evaluation.thought_utility else ():
        _thoughts(experiment, name)
    _report(experiment)
    return experiment


def run(
    experiment: Experiment, only: Sequence[str] | None = None, announce: Callable[[str], None] = print
) -> int:
    """Do what is not done of the stages named in `only` (default: all) and of what they need.

    Returns the number of stages that ran. Raises `ConfigError` for a run directory that cannot be
    written or that another run holds.
    """
    names = wanted(experiment, only)
    pending = [experiment.nodes[n] for n in names if base.done(experiment.nodes[n].spec) is None]
    if not pending:
        announce(
            f"{experiment.run_dir}: all {len(names)} stages are done with this configuration; nothing to run"
        )
        _complete_mirror(experiment)
        return 0
    check(experiment.config, {node.spec.name for node in pending})
    with locked(experiment.run_dir):
        write_atomic(experiment.run_dir / "config.yaml", dump_config(experiment.config))
        skipped = len(names) - len(pending)
        announce(
            f"{experiment.run_dir}: {len(pending)} stages to run" + (f", {skipped} done" if skipped else "")
        )
        from depo.stages.cluster import quieten
        from depo.stages.mirror import Mirror

        quieten(experiment.config.runtime)
        with Mirror(experiment.config, experiment.run_dir) as mirror:
            for group in _groups(pending):
                _run_group(group, mirror, announce)
    return len(pending)


def _complete_mirror(experiment: Experiment) -> None:
    """Tell the tracking store of finished stages that it lacks, after an outage; no work of a run."""
    from depo.stages.mirror import Mirror

    mirror = Mirror(experiment.config, experiment.run_dir)
    if mirror.missing():
        # Where another run holds the directory, that one does it.
        with suppress(ConfigError), locked(experiment.run_dir), mirror:
            pass


def check(config: ExperimentConfig, pending: Set[str], planned: bool = False) -> None:
    """What a parsed configuration can still get wrong for the `pending` stages, before anything is written.

    Raises `ConfigError` for an unknown environment, level or option, a student, objective or policy that
    cannot serve, an endpoint whose key is not in the environment, an import that is not there, held-out tasks
    or levels of `evaluation.difficulty` that there are not. What is only `planned` may run elsewhere: keys
    and files of a hub are not asked for.
    """
    world = make_env(config.env.id, config.env.options)
    if "script episodes" in pending:
        require_script(world.id)
    evaluated = {evaluation_parts(name)[1] for name in pending if name.startswith("evaluate ")}
    for suite in sorted(evaluated):
        if suite:
            suite_tasks(config.evaluation, suite)
        else:
            tasks = evaluation_tasks(config.env, config.evaluation)
            config.evaluation.difficulty_of(task.level for task in tasks)
    for round_ in config.rounds:
        acts = f"generate {round_.name}" in pending
        if isinstance(round_.policy, OpenAIConfig) and acts and not planned:
            require_key(round_.policy)
        if isinstance(round_.policy, TeacherConfig) and acts:
            require_script(world.id)
        if isinstance(round_.policy, CustomConfig) and acts:
            custom_class(round_.policy)
        if isinstance(round_.policy, ImportedConfig) and not files_hash(round_.policy.path):
            key, path = f"rounds.{round_.name}.policy.path", round_.policy.path
            raise ConfigError(f"{key}: nothing in {path!r}; write it with `depo import`")
    for name, annotation in config.annotation.items():
        endpoint = annotation.rephrase.endpoint
        if endpoint is not None and f"annotate {name}" in pending and not planned:
            require_key(endpoint)
    student = config.student
    if (
        "student" in pending
        and student.model != "tiny"
        and not planned
        and not Path(student.model).is_absolute()
    ):
        require_commit(student.model, student.revision)
    workers = config.runtime.training.num_workers
    batches = {f"methods.{name}": method.batch_size for name, method in config.methods.items()}
    trained = {f"methods.{name}" for name in config.methods if f"train {name}" in pending}
    if student.model == "tiny" and "student" in pending:
        batches, trained = batches | {"student.tiny": student.tiny.batch_size}, trained | {"student.tiny"}
    for key in sorted(trained):
        check_batch(batches[key], workers, f"{key}.batch_size")
    bodies.check_student(config, download=not planned)


def wanted(experiment: Experiment, only: Sequence[str] | None) -> list[str]:
    """The stages named and all they need, in order."""
    if only is None:
        return list(experiment.nodes)
    keep: set[str] = set()
    open_ = list(only)
    while open_:
        name = open_.pop()
        if name not in keep:
            keep.add(name)
            open_ += experiment.nodes[name].needs
    return [name for name in experiment.nodes if name in keep]


def _run_group(group: list[Node], mirror: Mirror, announce: Callable[[str], None]) -> None:
    started = time.time()
    for node in group:
        announce(f"== {node.spec.name} ({base.begin(node.spec)}) -> {node.spec.out_dir}")
    # What was taken back may be finished; a report's results lie beside the stages and are made anew.
    open_ = [node for node in group if node.kind == "report" or base.done(node.spec) is None]
    if open_ and group[0].together is not None:
        group[0].together(open_)
    for node in open_:
        with mirror.live(node.kind, node.spec):
            outcome = node.body()
        manifest = base.finish(node.spec, outcome, started)
        announce(f"   {node.spec.name}: {_shown(manifest)}")
        mirror.stage(node.kind, manifest, node.spec.out_dir)
        started = time.time()


def _groups(pending: list[Node]) -> Iterator[list[Node]]:
    """Neighbours that work together, every other node by itself."""
    group: list[Node] = []
    for node in pending:
        if group and (node.together is None or node.kind != group[0].kind):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _student(experiment: Experiment) -> None:
    config = experiment.config
    if config.student.model != "tiny":
        model = experiment.model_dir("student")
        identity: dict[str, Any] = {"model": model_hash(model)}
        if config.student.chat_template is not None:
            identity["chat_template"] = content_hash(read_template(config.student.chat_template))
        body = partial(bodies.given_student, model, config.student)
        experiment.add("student", "student", "student", identity, [], body=body)
        return
    tiny = config.student.tiny
    scripted = {
        "env": config.env.model_dump(mode="json"),
        "count": tiny.episodes,
        "skip": tiny.skip,
        "max_steps": tiny.max_steps,
        "teacher": tiny.teacher.model_dump(mode="json"),
        "seed": derived_seed(config, "script"),
    }
    name = experiment.add(
        "student", "script episodes", "trajectories/scripted", scripted, [],
        body=partial(bodies.scripted, experiment),
    )  # fmt: skip
    identity = {
        **config.student.model_dump(mode="json", exclude={"chat_template", "revision"}),
        "seed": derived_seed(config, "student"),
    }
    experiment.add(
        "student", "student", "student", identity, [name], body=partial(bodies.student, experiment)
    )


def _round(experiment: Experiment, round_: RoundConfig) -> None:
    name = f"generate {round_.name}"
    if name in experiment.nodes:
        return
    config = experiment.config
    needs = []
    if isinstance(round_.policy, EngineConfig):
        needs.append(_policy(experiment, round_.policy.model))
    identity = {
        "round": round_.model_dump(mode="json", exclude={"policy": set(OpenAIConfig.RUNNING)}),
        "env": config.env.model_dump(mode="json"),
        "seed": derived_seed(config, round_.name),
    }
    if isinstance(round_.policy, ImportedConfig):
        identity["files"] = files_hash(round_.policy.path)
    body = partial(bodies.generation, experiment, round_)
    experiment.add("generate", name, f"trajectories/{round_.name}", identity, needs, body=body)
    annotation = config.annotation.get(round_.name, AnnotationConfig())
    experiment.add(
        "annotate", f"annotate {round_.name}", f"samples/{round_.name}",
        annotation.model_dump(mode="json", exclude={"rephrase": {"endpoint": set(OpenAIConfig.RUNNING)}}),
        [name, "student"], version=3, body=partial(bodies.annotation, experiment, round_.name, annotation),
    )  # fmt: skip


def _policy(experiment: Experiment, name: str) -> str:
    """The stage that makes a policy's weights."""
    return "student" if name == "student" else _method(experiment, name)


def _method(experiment: Experiment, name: str) -> str:
    stage = f"train {name}"
    if stage in experiment.nodes:
        return stage
    method = experiment.config.methods[name]
    start = _policy(experiment, method.init)
    _round(experiment, next(r for r in experiment.config.rounds if r.name == method.samples))
    needs = [start, f"annotate {method.samples}"]
    if needs_reference(method):
        needs.append(_reference(experiment, method, start))
    identity = {
        "method": method.model_dump(mode="json", exclude={"init", "samples"}),
        "dtype": experiment.config.student.dtype,
        "max_length": experiment.config.student.max_length,
        "too_long": experiment.config.student.too_long,
    }
    return experiment.add(
        "train", stage, name, identity, needs, body=partial(bodies.training, experiment, name)
    )


def _reference(experiment: Experiment, method: MethodConfig, start: str) -> str:
    key = reference_key(method)
    name = f"reference {key}"
    if name not in experiment.nodes:
        student = experiment.config.student
        identity = {
            "view": method.view,
            "dtype": student.dtype,
            "max_length": student.max_length,
            "too_long": student.too_long,
        }
        experiment.add(
            "reference", name, f"reference/{key}", identity, [start, f"annotate {method.samples}"],
            body=partial(bodies.reference, experiment, method),
        )  # fmt: skip
    return name


_WHICH_EPISODES = ("split", "tasks", "skip", "decoding", "seeds")
"""Each episode stands for itself, so these add to an evaluation or take from it, and make none anew."""


def _evaluation(experiment: Experiment, name: str, suite: str) -> str:
    """A method on the evaluation's own tasks, or on those of a suite."""
    config = experiment.config
    acts = config.evaluation.on(suite)
    identity = acts.model_dump(
        mode="json", include={"decoding", "seeds", "temperature", "max_steps", "max_tokens"}
    )
    tasks = config.evaluation.suites[suite] if suite else config.evaluation
    env = tasks.env if isinstance(tasks, SuiteConfig) else config.env
    identity |= tasks.model_dump(mode="json", include={"split", "tasks", "skip"})
    # Further seeds may come and go; the first one's folder bears no seed.
    identity |= {"seed": acts.seeds[0], "env": env.model_dump(mode="json"), "dtype": config.student.dtype}
    if suite:
        identity["files"] = files_of(env)
    controlled = config.evaluation.controlled.get(name)
    if controlled is not None:
        identity["controlled"] = controlled.model_dump(mode="json")
    acting = controlled.method if controlled is not None else name
    return experiment.add(
        "evaluate", evaluation_name(name, suite), f"suites/{suite}/{name}" if suite else f"evaluation/{name}",
        identity, [_policy(experiment, acting)], version=2, grows=_WHICH_EPISODES,
        body=partial(bodies.episodes, experiment, name, suite),
        together=partial(bodies.evaluation, experiment),
    )  # fmt: skip


def _thoughts(experiment: Experiment, name: str) -> None:
    experiment.add(
        "thoughts", f"thoughts {name}", f"thoughts/{name}",
        {"episodes": experiment.config.evaluation.thought_utility}, [evaluation_name(name)], version=2,
        body=partial(bodies.thoughts, experiment, name),
    )  # fmt: skip


def _report(experiment: Experiment) -> None:
    config = experiment.config
    identity = {
        "name": config.name,
        "description": config.description,
        "departures": config.departures,
        "evaluation": config.evaluation.model_dump(mode="json"),
    }
    needs = list(experiment.nodes)
    body = partial(bodies.report, experiment)
    experiment.add("report", "report", "report", identity, needs, version=2, body=body)


def _shown(manifest: Manifest) -> str:
    """A stage's result in one line."""
    numbers = [
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value:.4g}"
        for key, value in manifest.metrics.items()
        if isinstance(value, int | float)
    ]
    errors = f", {manifest.errors} errors" if manifest.errors else ""
    return f"{manifest.rows} rows{errors} in {manifest.seconds:.0f} s; {', '.join(numbers[:8])}"


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold the run directory against a second run."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(run_dir / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise ConfigError(
            f"runtime.runs_dir: {run_dir} cannot be written ({error.strerror}); choose another directory"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConfigError(
            f"{run_dir}: another run is at work there; wait for it or use another name"
        ) from None
    try:
        yield
    finally:
        os.close(handle)
