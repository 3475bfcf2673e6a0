"""A driver to be killed: `drive.py ADDRESS OUT PIDS` searches the chaos tests' tasks with a slow policy."""

from __future__ import annotations

import sys
from pathlib import Path

from chaos_jobs import generate, slow

from depo.config.runtime import RuntimeConfig
from depo.stages.cluster import connect

if __name__ == "__main__":
    address, out, pids = sys.argv[1:]
    connect(RuntimeConfig(ray_address=address))
    generate(Path(out), slow(Path(pids)))
