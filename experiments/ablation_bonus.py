"""What does each half of the bonus do? DEPO with both alphas, with one at zero, and with none (KTO)."""

import sys
from pathlib import Path

from depo.cli import main

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
GRID = ["--grid", "alpha_tokens=3,0", "--grid", "alpha_steps=3,0"]

if __name__ == "__main__":
    sys.exit(main(["sweep", str(CONFIG), *GRID, *sys.argv[1:]]))
