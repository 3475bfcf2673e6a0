"""How much bonus? DEPO over alpha1 (tokens) and alpha2 (steps), each trial judged on validation tasks.

Runs plainly, or as `ray job submit --working-dir . -- python experiments/sweep_alpha.py`. Another
configuration may come first; what follows goes to `depo sweep`: another `--grid`, or `--set KEY=VALUE`.
16 trials, each with the demo about a minute of one core, two at a time; the paper trains with 3 and 3
(Llama) or 2 and 2 (Qwen).
"""

import sys
from pathlib import Path

from depo.cli import main
from depo.commands.scripts import in_turn, sweep_arguments

CONFIG = Path(__file__).parent / "configs" / "babyai-tiny.yaml"
SWEEPS = {"alpha": ["alpha_tokens=0,1,3,5", "alpha_steps=0,1,3,5"]}

if __name__ == "__main__":
    sys.exit(in_turn(main, sweep_arguments(CONFIG, SWEEPS, sys.argv[1:])))
