"""How close to the reference? DEPO over beta, each trial judged on validation tasks. 5 trials.

The paper trains with 0.2, the demo with 1. Runs as `sweep_alpha.py` does.
"""

import sys
from pathlib import Path

from depo.cli import main
from depo.commands.scripts import in_turn, sweep_arguments

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
SWEEPS = {"beta": ["beta=0.05,0.1,0.2,0.5,1"]}

if __name__ == "__main__":
    sys.exit(in_turn(main, sweep_arguments(CONFIG, SWEEPS, sys.argv[1:])))
