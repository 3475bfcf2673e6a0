"""How much weight on each label? DEPO over lambda_D and lambda_U, each trial judged on validation tasks."""

import sys
from pathlib import Path

from depo.cli import main

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
GRID = ["--grid", "lambda_desirable=0.5,1,1.5", "--grid", "lambda_undesirable=0.5,1"]

if __name__ == "__main__":
    sys.exit(main(["sweep", str(CONFIG), *GRID, *sys.argv[1:]]))
