"""What a person waits for: a command's help, one action on one core. `make bench-latency`.

Writes bench/results/latency-NAME.csv. The growth of memory is looked at over a hundred thousand actions of a
small policy: what is kept at every call would be kept there too, and the paper's size would take ten minutes.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
MIB = 2**20


def seconds(*command: str, times: int = 7) -> float:
    """Median time of a process."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


def actions(calls: int, grown: int) -> list[tuple[str, float, str]]:
    """Time of an action at the paper's size, and growth over many small ones; one core."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    sys.path.insert(0, str(HERE))
    import numpy as np
    import ours

    from ipd.config import PolicyConfig

    seen = np.random.default_rng(0).normal(size=(256, ours.OBS)).astype(np.float32)
    policy, took = ours.controller(PolicyConfig()), []
    for call in range(calls + 50):
        began = time.perf_counter()
        policy.act(seen[call % 256])
        took.append(1e3 * (time.perf_counter() - began))
    took = took[50:]
    small = ours.controller(PolicyConfig(width=16, heads=2, layers=1, context_len=2))
    for call in range(2_000):
        small.act(seen[call % 256])
    before = resident()
    for call in range(grown):
        small.act(seen[call % 256])
    return [
        ("an action, median, ms", statistics.median(took), "at most 8"),
        ("an action, 99th percentile, ms", float(np.percentile(took, 99)), "at most 16"),
        (f"growth of memory over {grown:,} actions, MiB", resident() - before, "none"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--name", default="latest", help="of the file in bench/results")
    parser.add_argument("--calls", type=int, default=3_000)
    parser.add_argument("--grown", type=int, default=100_000)
    chosen = parser.parse_args()
    loads = "import ipd, sys; print('jax' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True).stdout
    found = [
        ("`ipd --help`, s", seconds(sys.executable, "-m", "ipd", "--help"), "at most 0.3"),
        ("`import ipd`, s", seconds(sys.executable, "-c", "import ipd"), ""),
        ("`import ipd` loads jax (1: yes)", float(told.strip() == "True"), "0"),
        *actions(chosen.calls, chosen.grown),
    ]
    with (HERE / "results" / f"latency-{chosen.name}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("line", "found", "wanted"))
        writer.writerows((name, round(number, 2), wanted) for name, number, wanted in found)
    for name, number, wanted in found:
        print(f"{name:48} {number:10,.2f}  {wanted}")


if __name__ == "__main__":
    main()
