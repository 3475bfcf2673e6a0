"""The `depo` command: parses and checks first, imports heavy code after.

Exit codes: 0 done, 1 a clear error on stderr, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from depo import __version__
from depo.config.base import ConfigError
from depo.config.load import load_config
from depo.config.schema import ExperimentConfig

EXPORTS = ("openai", "trl-kto", "trl-dpo", "trl-sft", "llama-factory", "agentgym", "hf")
IMPORTS = ("openai", "trl-kto", "llama-factory", "agentgym", "hf")
STAGE_COMMANDS = {
    "generate": "search the training tasks of a round (default: all rounds)",
    "annotate": "label, rephrase and tokenise a round's trajectories",
    "reference": "score samples under the reference policy",
    "train": "train a method (default: all)",
    "evaluate": "try a method's policy on held-out tasks (default: all)",
    "report": "write results.json and the report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Environments named `module:Class` may stand in the current directory.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides nothing
    options = _parser().parse_args(arguments)
    try:
        return options.action(options)
    except ConfigError as error:
        print(f"depo: {error}", file=sys.stderr)
        return 1
    except (FileNotFoundError, PermissionError) as error:
        named = f"{error.filename}: {error.strerror}; check the path" if error.filename else error
        print(f"depo: {named}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndepo: interrupted; run the same command again to go on", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="depo", description="Train efficient LLM agents.")
    parser.add_argument("--version", action="version", version=f"depo {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, help_: str, action: Callable[[argparse.Namespace], int], config: bool = True
    ) -> Any:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.set_defaults(action=action)
        if config:
            sub.add_argument("config", metavar="CONFIG", help="experiment YAML")
            sub.add_argument(
                "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
                help="override a key, such as evaluation.tasks=100; may be repeated",
            )  # fmt: skip
        sub.add_argument("--json", action="store_true", help="print for machines")
        return sub

    command("run", "run all stages, skipping what is done", _run)
    for name, help_ in STAGE_COMMANDS.items():
        sub = command(name, f"{help_}, and whatever that needs", _stage)
        if name != "report":
            sub.add_argument("name", nargs="?", help="round or method")
    sweep = command("sweep", "run the configuration's sweep on Ray Tune", _sweep)
    sweep.add_argument(
        "--grid", action="append", default=[], metavar="FIELD=A,B,C",
        help="values to try instead of the configured ones; may be repeated",
    )  # fmt: skip
    command("plan", "list the stages and what each would do", _plan)
    view = command("view", "print trajectories of a round, or of a method's evaluation", _view)
    view.add_argument("name", help="round or method")
    view.add_argument("-n", type=int, default=3, help="how many")
    view.add_argument("--failures", action="store_true", help="failed ones only")
    _data_commands(commands, command)
    check = command(
        "check-env", "check an environment against the contract or recorded cases", _check_env, config=False
    )
    check.set_defaults(misused=check.error)
    check.add_argument("env", help="registered id or module:Class")
    check.add_argument("--options", default="{}", help="constructor arguments as JSON")
    check.add_argument("--compat", help="the rules to play by, such as agentgym")
    check.add_argument("--cases", type=Path, help="recorded cases (.jsonl, .jsonl.gz) to replay instead")
    check.add_argument("--catalogue", type=Path, help="the products that webshop's cases were recorded on")
    command("doctor", "check what is installed and what this machine can do", _doctor, config=False)
    return parser


def _data_commands(commands: Any, command: Callable[..., Any]) -> None:
    export = command("export", "write a round's samples for other tools", _export)
    export.add_argument("name", help="round")
    export.add_argument("--format", choices=EXPORTS, default="openai")
    export.add_argument("--out", required=True, help="file to write (hf: Parquet; else JSON or JSON Lines)")
    imported = command("import", "make trajectories of another tool's file", _import, config=False)
    imported.add_argument("file", type=Path)
    imported.add_argument("--format", choices=IMPORTS, required=True)
    imported.add_argument("--env", required=True, help="id of the environment that it is about")
    imported.add_argument("--out", type=Path, required=True, help="folder to write")
    data = commands.add_parser("data", help="look at training data").add_subparsers(
        dest="what", required=True
    )
    show = data.add_parser("show", help="print a sample with the trained tokens coloured")
    show.set_defaults(action=_show)
    show.add_argument("config", metavar="CONFIG", help="experiment YAML, or a run directory")
    show.add_argument("name", help="round, or (the beginning of) a sample's id")
    show.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    show.add_argument("--label", choices=["D", "U"], default="D")
    show.add_argument("--view", choices=["raw", "rephrased"], default="rephrased")
    show.add_argument("-n", type=int, default=1, help="how many")


def _load(options: argparse.Namespace) -> ExperimentConfig:
    path = Path(options.config)
    return load_config(str(path / "config.yaml") if path.is_dir() else options.config, options.overrides)


def _run(options: argparse.Namespace) -> int:
    from depo.pipeline import build, run

    experiment = build(_load(options))
    with _talking(options):
        run(experiment, announce=_announce)
    results = experiment.run_dir / "results.json"
    if options.json:
        print(results.read_text())
        return 0
    from depo.evaluation.results import format_table

    print()
    print(format_table(json.loads(results.read_text())))
    print(f"\nreport:  {experiment.run_dir / 'report' / 'index.html'}\nresults: {results}")
    return 0


def _stage(options: argparse.Namespace) -> int:
    from depo.pipeline import build, run

    experiment = build(_load(options))
    kind, name = options.command, getattr(options, "name", None)
    known = [n for n, node in experiment.nodes.items() if node.kind == kind]
    chosen = [n for n in known if name is None or n == f"{kind} {name}"]
    if not chosen:
        names = ", ".join(n.removeprefix(f"{kind} ") for n in known)
        raise ConfigError(f"{kind}: no {name!r} in {options.config}; known: {names}")
    with _talking(options):
        run(experiment, chosen, announce=_announce)
    if options.json:
        print(json.dumps({n: str(experiment.out(n)) for n in chosen}))
    return 0


def _sweep(options: argparse.Namespace) -> int:
    from depo.config.base import apply_overrides
    from depo.pipeline import run_sweep

    grid = {}
    for item in options.grid:
        field, equals, values = item.partition("=")
        try:
            grid[field] = [float(value) for value in values.split(",")]
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--grid {item}: write it as FIELD=A,B,C with numbers")
    config = _load(options)
    if grid:
        values = apply_overrides(config.model_dump(mode="json"), [f"sweep.grid={json.dumps(grid)}"])
        from depo.config.load import parse_config

        config = parse_config(values)
    with _talking(options):
        rows = run_sweep(config, announce=_announce)
    if options.json:
        print(json.dumps(rows))
    return 0


def _plan(options: argparse.Namespace) -> int:
    from depo.pipeline import build
    from depo.stages.accounting import most_tokens, short
    from depo.stages.base import state

    config = _load(options)
    rows = [(name, state(node.spec), str(node.spec.out_dir)) for name, node in build(config).nodes.items()]
    if options.json:
        print(json.dumps([dict(zip(("stage", "state", "directory"), row, strict=True)) for row in rows]))
        return 0
    width = max(len(name) for name, _, _ in rows)
    most = {
        f"generate {r.name}": short(most_tokens(r.search, r.tasks))
        for r in config.rounds
        if r.policy.kind != "imported"
    }
    for name, what, where in rows:
        bill = f", at most {most[name]} tokens" if name in most and what != "done" else ""
        print(f"{name:<{width}}  {what}{bill}  ({where})")
    return 0


def _view(options: argparse.Namespace) -> int:
    from depo.data.store import read_trajectories
    from depo.pipeline import build
    from depo.report.viewer import trajectory_text

    experiment = build(_load(options))
    config = experiment.config
    if f"generate {options.name}" in experiment.nodes:
        folder = experiment.out(f"generate {options.name}")
    elif f"evaluate {options.name}" in experiment.nodes:
        folder = experiment.out(f"evaluate {options.name}") / config.evaluation.decoding[0]
    else:
        raise ConfigError(f"view: {options.name!r} is neither a round nor an evaluated method")
    chosen = [t for t in read_trajectories(folder) if not (options.failures and t.success)][: options.n]
    for trajectory in chosen:
        print(json.dumps(trajectory.to_row()) if options.json else trajectory_text(trajectory))
    return 0


def _export(options: argparse.Namespace) -> int:
    from depo.data.formats import export_samples
    from depo.pipeline import build

    experiment = build(_load(options))
    _require_round(experiment.config, options.name)
    annotation = experiment.config.annotation.get(options.name)
    trajectories = experiment.out(f"generate {options.name}")
    count = export_samples(trajectories, annotation, options.format, Path(options.out))
    print(
        json.dumps({"rows": count, "out": options.out}) if options.json else f"{count} rows -> {options.out}"
    )
    return 0


def _import(options: argparse.Namespace) -> int:
    from depo.data.imports import import_trajectories

    count = import_trajectories(options.file, options.format, options.env, options.out)
    where = str(options.out)
    print(json.dumps({"rows": count, "out": where}) if options.json else f"{count} trajectories -> {where}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from depo.data.store import read_table
    from depo.pipeline import build
    from depo.records import Sample
    from depo.report.viewer import sample_text
    from depo.stages.annotate import SAMPLES
    from depo.stages.student import load_renderer

    experiment = build(_load(options))
    rounds = [round_.name for round_ in experiment.config.rounds]
    found = []
    for name in [options.name] if options.name in rounds else rounds:
        file = experiment.out(f"annotate {name}") / SAMPLES
        if options.name == name or file.is_file():
            found += read_table(file, Sample)
    if options.name in rounds:
        found = [s for s in found if (s.label, s.view) == (options.label, options.view)][: options.n]
        missing = f"{options.name}: no sample labelled {options.label} of view {options.view!r}"
    else:
        found = [s for s in found if s.id.startswith(options.name)]
        missing = f"no round or sample {options.name!r}; known rounds: {', '.join(rounds)}"
    if not found:
        raise ConfigError(missing)
    renderer = load_renderer(experiment.model_dir("student"))
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for sample in found:
        print(sample_text(sample, renderer.tokenizer.decode, color))
    return 0


def _require_round(config: ExperimentConfig, name: str) -> None:
    known = [round_.name for round_ in config.rounds]
    if name not in known:
        raise ConfigError(f"no round {name!r}; known: {', '.join(known)}")


def _check_env(options: argparse.Namespace) -> int:
    from depo.envs.check import check_env

    if options.cases is not None:
        return _replay_cases(options)
    if options.catalogue is not None:
        options.misused("--catalogue goes with --cases")
    try:
        arguments = json.loads(options.options)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--options: not JSON ({error.msg} at {error.pos})") from None
    if not isinstance(arguments, dict):
        raise ConfigError('--options: give an object, such as \'{"levels": ["GoToRedBall"]}\'')
    if options.compat is not None:
        arguments["compat"] = options.compat
    checks = check_env(options.env, arguments)
    if options.json:
        print(json.dumps([{"check": c.name, "ok": c.ok, "detail": c.detail} for c in checks]))
    else:
        for c in checks:
            print(f"{'ok  ' if c.ok else 'FAIL'} {c.name}" + (f": {c.detail}" if c.detail else ""))
    return 0 if all(c.ok for c in checks) else 1


def _replay_cases(options: argparse.Namespace) -> int:
    from depo.envs.cases import REPLAYED, replay_cases

    if options.env not in REPLAYED:
        options.misused(f"--cases: {options.env} has no recorded cases; {' and '.join(REPLAYED)} have")
    if options.compat is None:
        options.misused("--cases needs --compat, the rules that the cases were recorded under")
    if options.catalogue is not None and options.env != "webshop":
        options.misused("--catalogue goes with webshop's cases")
    if options.options != "{}":
        options.misused("--options does not go with --cases; the cases tell what is played")
    report = replay_cases(options.env, options.cases, options.compat, options.catalogue)
    if options.json:
        print(json.dumps({"checked": report.checked, "difference": report.difference}))
    else:
        print(report.difference or f"{report.checked} cases agree")
    return 1 if report.difference else 0


def _doctor(options: argparse.Namespace) -> int:
    from depo.doctor import examine

    findings = examine()
    if options.json:
        print(json.dumps([{"what": f.what, "ok": f.ok, "detail": f.detail} for f in findings]))
    else:
        for f in findings:
            print(f"{'ok  ' if f.ok else 'MISS'} {f.what}: {f.detail}")
    return 0 if all(f.ok or f.optional for f in findings) else 1


def _announce(text: str) -> None:
    print(text, flush=True)


def _talking(options: argparse.Namespace) -> AbstractContextManager[Any]:
    """Sends what a run tells of itself to stderr where stdout is for machines."""
    return redirect_stdout(sys.stderr) if options.json else nullcontext()


if __name__ == "__main__":
    sys.exit(main())
