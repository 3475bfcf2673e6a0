"""`depo run`, its single stages, and `depo plan`."""

from __future__ import annotations

import argparse
import json

from depo.commands.base import announce, load, talking
from depo.config.base import ConfigError


def run(options: argparse.Namespace) -> int:
    from depo.pipeline import build, run

    experiment = build(load(options))
    with talking(options):
        run(experiment, announce=announce)
    results = experiment.run_dir / "results.json"
    if options.json:
        print(results.read_text())
        return 0
    from depo.evaluation.text import format_table

    print()
    print(format_table(json.loads(results.read_text())))
    print(f"\nreport:  {experiment.run_dir / 'report' / 'index.html'}\nresults: {results}")
    return 0


def stage(options: argparse.Namespace) -> int:
    from depo.pipeline import build, run

    experiment = build(load(options))
    kind, name = options.command, getattr(options, "name", None)
    known = [n for n, node in experiment.nodes.items() if node.kind == kind]
    chosen = [n for n in known if name is None or n == f"{kind} {name}"]
    if not chosen:
        names = ", ".join(n.removeprefix(f"{kind} ") for n in known)
        raise ConfigError(f"{kind}: no {name!r} in {options.config}; known: {names}")
    with talking(options):
        run(experiment, chosen, announce=announce)
    if options.json:
        print(json.dumps({n: str(experiment.out(n)) for n in chosen}))
    return 0


def plan(options: argparse.Namespace) -> int:
    from depo.pipeline import build, check
    from depo.stages.accounting import most_tokens, short
    from depo.stages.base import state

    config = load(options)
    rows = [(name, state(node.spec), str(node.spec.out_dir)) for name, node in build(config).nodes.items()]
    check(config, {name for name, what, _ in rows if what != "done"}, planned=True)
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
