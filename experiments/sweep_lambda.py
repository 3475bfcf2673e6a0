"""How much weight on each label? DEPO over lambda_D and lambda_U, judged on validation tasks. 9 trials.

The paper trains with 1 and 1. Runs as `sweep_alpha.py` does.
"""

import sys
from pathlib import Path

from depo.cli import main
from depo.commands.scripts import in_turn, sweep_arguments

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
SWEEPS = {"lambda": ["lambda_desirable=0.5,1,2", "lambda_undesirable=0.5,1,2"]}

if __name__ == "__main__":
    sys.exit(in_turn(main, sweep_arguments(CONFIG, SWEEPS, sys.argv[1:])))
