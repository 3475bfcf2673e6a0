"""How much bonus? DEPO over alpha1 (tokens) and alpha2 (steps), each trial judged on validation tasks.

Runs plainly, or as `ray job submit --working-dir . -- python experiments/sweep_alpha.py`. What follows
the script's name goes to `depo sweep`: another `--grid`, or `--set KEY=VALUE`.
"""

import sys
from pathlib import Path

from depo.cli import main

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
GRID = ["--grid", "alpha_tokens=0,3", "--grid", "alpha_steps=0,3"]

if __name__ == "__main__":
    sys.exit(main(["sweep", str(CONFIG), *GRID, *sys.argv[1:]]))
