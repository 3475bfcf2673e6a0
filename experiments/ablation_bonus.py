"""What does each half of the bonus do, and where should it stand? Two sweeps of 4 trials, a table each.

First DEPO with both alphas, with one at zero, and with none (KTO); then the bonus as an offset of the
log-ratio (published), as a margin, as a weight of the loss, and as an offset less its mean. Runs as
`sweep_alpha.py` does; what follows the script's name goes to both sweeps.
"""

import sys
from pathlib import Path

from depo.cli import main
from depo.commands.scripts import in_turn, sweep_arguments

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
SWEEPS = {
    "bonus": ["alpha_tokens=3,0", "alpha_steps=3,0"],
    "placement": ["placement=offset,margin,weight,centred"],
}

if __name__ == "__main__":
    sys.exit(in_turn(main, sweep_arguments(CONFIG, SWEEPS, sys.argv[1:])))
