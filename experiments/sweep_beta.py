"""How close to the reference? DEPO over beta, each trial judged on validation tasks."""

import sys
from pathlib import Path

from depo.cli import main

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
GRID = ["--grid", "beta=0.1,0.2,0.5,1"]

if __name__ == "__main__":
    sys.exit(main(["sweep", str(CONFIG), *GRID, *sys.argv[1:]]))
