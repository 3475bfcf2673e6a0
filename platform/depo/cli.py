"""The `depo` command: parses and checks first, imports heavy code after.

Exit codes: 0 done, 1 a clear error on stderr, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from depo import __version__, interrupts
from depo.commands import check, data, report, run, sweep, view
from depo.config.base import ConfigError

EXPORTS = ("openai", "trl-kto", "trl-dpo", "trl-sft", "llama-factory", "agentgym", "hf")
IMPORTS = EXPORTS
STAGE_COMMANDS = {
    "generate": "search the training tasks of a round (default: all rounds)",
    "annotate": "label, rephrase and tokenise a round's trajectories",
    "reference": "score samples under the reference policy",
    "train": "train a method (default: all)",
    "evaluate": "try a method's policy on held-out tasks (default: all)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Environments named `module:Class` may stand in the current directory.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides nothing
    options = _parser().parse_args(arguments)
    with interrupts.interruptible():
        try:
            code = _outcome(options)
        except KeyboardInterrupt:
            if not interrupts.interrupted():  # raised without a signal
                print(f"depo: {interrupts.TEXT}", file=sys.stderr)
            code = interrupts.EXIT_CODE
        except Exception:
            if not interrupts.interrupted():
                raise
        return interrupts.EXIT_CODE if interrupts.interrupted() else code


def _outcome(options: argparse.Namespace) -> int:
    try:
        return options.action(options)
    except ConfigError as error:
        if not interrupts.interrupted():
            print(f"depo: {error}", file=sys.stderr)
        return 1
    except (
        FileNotFoundError,
        PermissionError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
    ) as error:
        place = error.filename2 or error.filename
        named = f"{place}: {error.strerror}; check the path" if place else error
        print(f"depo: {named}", file=sys.stderr)
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

    command("run", "run all stages, skipping what is done", run.run)
    for name, help_ in STAGE_COMMANDS.items():
        sub = command(name, f"{help_}, and whatever that needs", run.stage)
        sub.add_argument("name", nargs="?", help="round or method")
    _report_command(command)
    tuned = command("sweep", "run the configuration's sweep on Ray Tune", sweep.sweep)
    tuned.add_argument(
        "--grid", action="append", default=[], metavar="FIELD=A,B,C",
        help="values to try instead of the configured ones; may be repeated",
    )  # fmt: skip
    command("plan", "list the stages and what each would do", run.plan)
    viewed = command(
        "view", "write a run's trajectories and search trees as pages for a browser, or print some", view.view
    )
    viewed.set_defaults(misused=viewed.error)
    viewed.add_argument("name", nargs="?", help="round or method to print from, in the terminal")
    viewed.add_argument("-n", type=int, help="how many to print (3)")
    viewed.add_argument("--failures", action="store_true", help="print failed ones only")
    viewed.add_argument("--out", type=Path, help="folder for the pages (default: view/ in the run directory)")
    _data_commands(commands, command)
    checked = command(
        "check-env",
        "check an environment against the contract or recorded cases",
        check.environment,
        config=False,
    )
    checked.set_defaults(misused=checked.error)
    checked.add_argument("env", help="registered id or module:Class")
    checked.add_argument("--options", default="{}", help="constructor arguments as JSON")
    checked.add_argument("--compat", help="the rules to play by, such as agentgym")
    checked.add_argument("--cases", type=Path, help="recorded cases (.jsonl, .jsonl.gz) to replay instead")
    checked.add_argument("--catalogue", type=Path, help="the products that webshop's cases were recorded on")
    command("doctor", "check what is installed and what this machine can do", check.doctor, config=False)
    return parser


def _report_command(command: Callable[..., Any]) -> None:
    sub = command(
        "report", "write a run's results and report, and whatever that needs; compare several finished runs",
        report.report, config=False,
    )  # fmt: skip
    sub.set_defaults(misused=sub.error)
    sub.add_argument("runs", nargs="+", metavar="RUN", help="experiment YAML, or a run directory")
    sub.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE",
        help="override a key of the configurations; may be repeated",
    )  # fmt: skip
    sub.add_argument(
        "--out", type=Path, help="folder for the page of several runs (default: report-NAMES beside them)"
    )


def _data_commands(commands: Any, command: Callable[..., Any]) -> None:
    export = command("export", "write a round's samples for other tools", data.export)
    export.add_argument("name", help="round")
    export.add_argument("--format", choices=EXPORTS, default="openai")
    export.add_argument("--out", required=True, help="file to write (hf: Parquet; else JSON or JSON Lines)")
    imported = command("import", "make trajectories of another tool's file", data.import_, config=False)
    imported.add_argument("file", type=Path)
    imported.add_argument("--format", choices=IMPORTS, required=True)
    imported.add_argument("--env", required=True, help="id of the environment that it is about")
    imported.add_argument("--out", type=Path, required=True, help="folder to write")
    imported.add_argument(
        "--on-bad-row", choices=["refuse", "skip"], default="refuse", help="what a row that is malformed does"
    )
    imported.add_argument(
        "--label",
        default="",
        metavar="COLUMN",
        help="column of true (desirable) and false, or 1 and 0; else `label` or `kto_tag`; `none` for none",
    )
    data_ = commands.add_parser("data", help="look at training data").add_subparsers(
        dest="what", required=True
    )
    show = data_.add_parser("show", help="print a sample with the trained tokens coloured")
    show.set_defaults(action=data.show)
    show.add_argument("config", metavar="CONFIG", help="experiment YAML, or a run directory")
    show.add_argument("name", help="round, or (the beginning of) a sample's id")
    show.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    show.add_argument("--label", choices=["D", "U"], default="D")
    show.add_argument("--view", choices=["raw", "rephrased"], default="rephrased")
    show.add_argument("-n", type=int, default=1, help="how many")


if __name__ == "__main__":
    sys.exit(main())
