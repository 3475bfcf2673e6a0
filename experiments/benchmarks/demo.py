"""Wall time and peak memory of a whole run, stage by stage.

    python experiments/benchmarks/demo.py [CONFIG] [--json] [--set KEY=VALUE ...]

Memory is the sum of proportional set sizes over the run and all processes it starts, so that shared
pages count once. The run goes to `runs/` as ever; what is already done there is not measured.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil

CONFIG = Path(__file__).parents[1] / "configs" / "babyai-tiny.yaml"
_EVERY_S = 1.0


def memory(root: psutil.Process) -> int:
    """Bytes held by a process and all below it."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue  # it ended between the listing and the reading
    return total


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", nargs="?", default=str(CONFIG))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    command = [sys.executable, "-m", "depo.cli", "run", options.config]
    command += [part for override in options.overrides for part in ("--set", override)]
    started = time.monotonic()
    peak, stage, peaks = 0, "start", dict[str, int]()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        root = psutil.Process(run.pid)
        sampled = 0.0
        assert run.stdout is not None
        for line in run.stdout:
            print(line, end="", file=sys.stderr, flush=True)
            if line.startswith("== "):
                stage = line[3:].partition(" (")[0]
            if time.monotonic() - sampled > _EVERY_S:
                sampled = time.monotonic()
                now = memory(root)
                peaks[stage] = max(peaks.get(stage, 0), now)
                peak = max(peak, now)
    result = {
        "seconds": round(time.monotonic() - started, 1),
        "peak_gib": round(peak / 2**30, 2),
        "peak_gib_by_stage": {name: round(size / 2**30, 2) for name, size in peaks.items()},
        "machine": f"{platform.machine()}, {psutil.cpu_count()} CPUs",
        "exit_code": run.returncode,
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"\n{result['seconds']:.0f} s, peak {result['peak_gib']:.2f} GiB on {result['machine']}")
        for name, size in result["peak_gib_by_stage"].items():
            print(f"  {size:6.2f} GiB  {name}")
    return run.returncode


if __name__ == "__main__":
    sys.exit(main())
