"""What each node of the pipeline does: it hands its inputs' paths to a stage.

Stages are imported when they run, so that a configuration is checked, and a finished run answered,
without Ray and torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from depo.config.schema import (
    AnnotationConfig,
    EngineConfig,
    ExperimentConfig,
    MethodConfig,
    RoundConfig,
    StudentConfig,
)
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
from depo.records import Task
from depo.stages import base
from depo.stages.base import Outcome


def scripted(experiment: Experiment) -> Outcome:
    from depo.stages.generate import script_episodes

    config, tiny = experiment.config, experiment.config.student.tiny
    return script_episodes(
        tiny,
        config.env,
        config.student,
        config.runtime,
        derived_seed(config, "script"),
        experiment.out("script episodes"),
    )


def student(experiment: Experiment) -> Outcome:
    from depo.stages.progress import TrainingLine
    from depo.stages.student import make_student

    config = experiment.config
    episodes, out = experiment.out("script episodes"), experiment.out("student")
    with TrainingLine("student") as line:
        return make_student(
            episodes, config.student, derived_seed(config, "student"), config.runtime, out, line
        )


def check_student(config: ExperimentConfig, download: bool) -> None:
    """What is known of the student before anything is paid for. Raises `ConfigError`."""
    named = [m for m in config.methods.values() if m.lora.target_modules != "all-linear"]
    if config.student.model == "tiny" and not named:
        return  # made by the run, as configured
    from depo.training.checks import check_student

    check_student(config, download)


def given_student(model_dir: str, student: StudentConfig) -> Outcome:
    from depo.stages.student import load_renderer

    renderer = load_renderer(model_dir, student.chat_template)
    dated = {"template_date": renderer.date} if renderer.date else {}
    return Outcome(rows=1, metrics={"tokenizer": renderer.fingerprint, **dated})


def generation(experiment: Experiment, round_: RoundConfig) -> Outcome:
    from depo.stages.generate import generate

    config = experiment.config
    policy = round_.policy
    model_dir = experiment.model_dir(policy.model) if isinstance(policy, EngineConfig) else ""
    seed, out = derived_seed(config, round_.name), experiment.out(f"generate {round_.name}")
    return generate(round_, model_dir, config.env, config.student, config.runtime, seed, out)


def annotation(experiment: Experiment, round_name: str, annotation: AnnotationConfig) -> Outcome:
    from depo.stages.annotate import annotate
    from depo.stages.student import load_renderer

    renderer = load_renderer(experiment.model_dir("student"), experiment.config.student.chat_template)
    trajectories, out = experiment.out(f"generate {round_name}"), experiment.out(f"annotate {round_name}")
    return annotate(trajectories, annotation, renderer, out)


def reference(experiment: Experiment, method: MethodConfig) -> Outcome:
    from depo.stages.annotate import SAMPLES
    from depo.stages.reference import score

    return score(
        experiment.out(f"annotate {method.samples}") / SAMPLES,
        method.view,
        experiment.model_dir(method.init),
        experiment.config.student,
        experiment.config.runtime,
        runs_dir(experiment.config),
        experiment.out(f"reference {reference_key(method)}"),
    )


def train_spec(experiment: Experiment, name: str) -> Any:
    """What the training of a method reads and writes, as a `TrainSpec`."""
    from depo.stages.annotate import SAMPLES
    from depo.training.spec import LOG_PROBS, TrainSpec

    config, method = experiment.config, experiment.config.methods[name]
    reference = None
    if needs_reference(method):
        reference = str((experiment.out(f"reference {reference_key(method)}") / LOG_PROBS).resolve())
    return TrainSpec(
        method=method,
        model_dir=experiment.model_dir(method.init),
        samples=str((experiment.out(f"annotate {method.samples}") / SAMPLES).resolve()),
        reference=reference,
        out_dir=str(experiment.out(f"train {name}").resolve()),
        dtype=config.student.dtype,
        max_length=config.student.max_length,
        too_long=config.student.too_long,
        chat_template=config.student.chat_template,
        runtime=config.runtime.training,
    )


def training(experiment: Experiment, name: str) -> Outcome:
    from depo.stages.cluster import connect
    from depo.stages.progress import TrainingLine
    from depo.stages.train import run_training

    connect(experiment.config.runtime)
    spec = train_spec(experiment, name)
    with TrainingLine(f"train {name}") as line:
        metrics = run_training(spec, experiment.out(f"train {name}") / "ray", line)
    return Outcome(rows=int(metrics.get("samples", 0)), metrics=metrics)


def evaluation(experiment: Experiment, pending: Sequence[Node]) -> None:
    from depo.stages.evaluate import evaluate, evaluation_jobs
    from depo.stages.tasksets import placed

    config = experiment.config
    jobs = []
    for node in pending:
        name, suite = evaluation_parts(node.spec.name)
        env = placed(config.evaluation.suites[suite].env) if suite else None
        acts, tasks = config.evaluation.on(suite), held_out(experiment, suite)
        jobs += evaluation_jobs(name, experiment.model_dir(name), tasks, acts, node.spec.out_dir, env)
    evaluate(jobs, config.env, config.student, config.runtime)


def held_out(experiment: Experiment, suite: str = "") -> tuple[Task, ...]:
    """The tasks of the evaluation, or of a suite."""
    from depo.stages.tasksets import evaluation_tasks, suite_tasks

    config = experiment.config
    if suite:
        return suite_tasks(config.evaluation, suite)
    return evaluation_tasks(config.env, config.evaluation)


def episodes(experiment: Experiment, method: str, suite: str = "") -> Outcome:
    from depo.stages.evaluate import collect

    out = experiment.out(evaluation_name(method, suite))
    acts = experiment.config.evaluation.on(suite)
    return collect(method, acts, out, held_out(experiment, suite), suite)


def thoughts(experiment: Experiment, method: str) -> Outcome:
    from depo.stages.thoughts import score

    config = experiment.config
    evaluation = config.evaluation
    return score(
        experiment.out(evaluation_name(method)) / evaluation.decoding[0],
        experiment.model_dir(method),
        config.student,
        config.runtime,
        evaluation.thought_utility,
        experiment.out(f"thoughts {method}"),
        {task.id for task in held_out(experiment)},
    )


def report(experiment: Experiment) -> Outcome:
    from depo.stages.report import report

    manifests = [base.read_manifest(node.spec.out_dir) for node in experiment.nodes.values()]
    return report(experiment.config, experiment.run_dir, [m for m in manifests if m is not None])
