"""The main table: all methods of a configuration on its test tasks, with intervals and the paper's numbers.

`--seeds 0,1,2` runs the whole configuration once with each seed, in run directories that share nothing
that the seed decides, and compares over all of them. Runs plainly, or as
`ray job submit --working-dir . -- python experiments/main_table.py`; another configuration may come first,
the rest goes to `depo run`.
"""

import argparse
import sys
from pathlib import Path

from depo.cli import main
from depo.commands import scripts

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"


def table(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[])
    options, rest = parser.parse_known_args(arguments)
    given = scripts.given(CONFIG, rest)
    runs = scripts.seed_arguments(given, options.seeds) or [["run", given.path, *given.rest]]
    code = scripts.in_turn(main, runs)
    if options.seeds and not code:
        json = ["--json"] if "--json" in given.rest else []
        code = main(["report", *scripts.seed_directories(given, options.seeds), *json])
    if not code:
        scripts.print_paper(given)
    return code


if __name__ == "__main__":
    sys.exit(scripts.answered(table, sys.argv[1:]))
