"""Should undesirable trajectories be penalised for length? DEPO with and without a bonus on U. 6 trials.

Each with U as published (weight 1), at half weight, and not at all. The paper finds that the penalty hurts.
Runs as `sweep_alpha.py` does.
"""

import sys
from pathlib import Path

from depo.cli import main
from depo.commands.scripts import in_turn, sweep_arguments

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
SWEEPS = {"penalty": ["penalize_undesirable=false,true", "lambda_undesirable=1,0.5,0"]}

if __name__ == "__main__":
    sys.exit(in_turn(main, sweep_arguments(CONFIG, SWEEPS, sys.argv[1:])))
