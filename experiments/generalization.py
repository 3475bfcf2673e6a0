"""Does it carry over? The main table's methods on tasks that nothing was trained on, a table a suite.

`--gsm8k FILE`, `--math FILE` and `--simuleq FILE` name the public files (see docs/environments.md); with none
of them, 100 generated pairs and triples of equations and 200 tasks of unseen BabyAI levels. Runs as
`main_table.py` does; policies that are trained already are only tried.
"""

import argparse
import sys
from pathlib import Path

from depo.cli import main
from depo.commands import scripts

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
DATASETS = ("gsm8k", "math", "simuleq")


def table(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for dataset in DATASETS:
        parser.add_argument(f"--{dataset}", metavar="FILE")
    options, rest = parser.parse_known_args(arguments)
    given = scripts.given(CONFIG, rest)
    tried = scripts.with_suites(given, {name: getattr(options, name) for name in DATASETS})
    code = main(["run", tried.path, *tried.rest])
    if not code:
        scripts.print_paper(tried, ["suites"])
    return code


if __name__ == "__main__":
    sys.exit(scripts.answered(table, sys.argv[1:]))
