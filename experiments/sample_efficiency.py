"""How much data does it take? DEPO on 25, 50, 75 and 100% of its tasks, each share inside the next. 4 trials.

pi_BC, from which all start, keeps all of its own data. The demo takes 60 steps whatever the share; with
`--set methods.depo.max_steps=null` epochs count instead. Runs as `sweep_alpha.py` does.
"""

import sys
from pathlib import Path

from depo.cli import main
from depo.commands.scripts import in_turn, sweep_arguments

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
SWEEPS = {"data": ["data_fraction=0.25,0.5,0.75,1.0"]}

if __name__ == "__main__":
    sys.exit(in_turn(main, sweep_arguments(CONFIG, SWEEPS, sys.argv[1:])))
