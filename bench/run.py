"""Speed on this machine, beside what people would use instead: `make bench`.

Every line is measured in one session: contender and peer take turns with the product of two matrices, which
is the machine's own rate, and the medians of the rounds are compared. Ratios and fractions are the result;
seconds belong to the machine. Writes bench/results/NAME.csv and NAME.json (what the machine is).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from protocol import Worker

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = ROOT / ".venv-peers" / "bin" / "python"
GIGA = 1e9


class Line(NamedTuple):
    """One comparison."""

    name: str
    ours: str
    """A job of ours.py."""
    unit: str
    peer: str | None = None
    """A job of peers/speed.py, or one of ours where it begins with `ours:`."""
    peer_name: str = ""
    ratio: float | None = None
    """At least so many times the peer."""
    fraction: float | None = None
    """At least so much of the machine's rate."""


LINES = (
    Line("value", "value", "updates", "iql", "d3rlpy IQL", 3.5, 0.7),
    Line("world", "world", "updates", fraction=0.75),
    Line("policy", "policy", "updates", "decision-transformer", "d3rlpy DT", 1.3, 0.75),
    Line("imagination", "augment", "start states", "algorithm-1", "plain PyTorch loop", 50.0),
    Line("4 seeds at once", "seeds-4", "updates of a seed", "ours:seeds-1", "4 seeds in turn", 1.5),
    Line("collect", "collect", "steps", "collect", "stable-baselines3 SAC", 2.0),
    Line("act", "act", "actions"),
)


def environment(threads: int) -> dict[str, str]:
    """For a worker: so many threads for every library, and our package."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    return {**os.environ, **counts, "PYTHONPATH": str(ROOT / "src"), "MUJOCO_GL": "disable"}


def ours(job: str, threads: int) -> Worker:
    return Worker(Path(sys.executable), HERE / "ours.py", [job], environment(threads), threads)


def peer(job: str, threads: int) -> Worker:
    if job.startswith("ours:"):
        return ours(job.removeprefix("ours:"), threads)
    return Worker(PEERS, HERE / "peers" / "speed.py", [job, str(threads)], environment(threads), threads)


def measure(line: Line, rounds: int, threads: int) -> dict[str, object]:
    """The line's numbers, medians of ``rounds`` turns."""
    contenders = {"machine": ours("products", threads), "ours": ours(line.ours, threads)}
    if line.peer is not None and (line.peer.startswith("ours:") or PEERS.exists()):
        contenders["peer"] = peer(line.peer, threads)
    turns: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, worker in contenders.items():
            turns[name].append(worker.round())
    flop = {name: float(worker.told.get("flop", 0.0)) for name, worker in contenders.items()}
    for worker in contenders.values():
        worker.end()
    rate = {name: statistics.median(each) for name, each in turns.items()}
    machine = rate["machine"] * flop["machine"] / GIGA
    reached = rate["ours"] * flop["ours"] / GIGA
    found: dict[str, object] = {
        "line": line.name,
        "unit": line.unit,
        "per_second": round(rate["ours"], 2),
        "gflop": round(flop["ours"] / GIGA, 4),
        "gflop_per_second": round(reached, 1),
        "machine_gflop_per_second": round(machine, 1),
        "fraction": round(reached / machine, 2) if flop["ours"] else "",
        "wanted_fraction": line.fraction or "",
        "peer": line.peer_name,
        "peer_per_second": "",
        "ratio": "",
        "wanted_ratio": line.ratio or "",
        "rounds": rounds,
    }
    if "peer" in rate:
        # turn by turn, so that what slows the machine slows both
        each = [a / b for a, b in zip(turns["ours"], turns["peer"], strict=True)]
        found |= {"peer_per_second": round(rate["peer"], 2), "ratio": round(statistics.median(each), 2)}
    return found


def machine(threads: int) -> dict[str, object]:
    """What it was measured on."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
        processor = names[0].partition(":")[2].strip() if names else processor
    packages = {name: version(name) for name in ("jax", "jaxlib", "equinox", "numpy", "mujoco")}
    if PEERS.exists():
        names = ("torch", "d3rlpy", "stable-baselines3")
        code = f"from importlib.metadata import version; print(*map(version, {names}))"
        told = subprocess.run([PEERS, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        packages |= dict(zip(names, told, strict=True))
    return {"processor": processor, "cores": os.cpu_count(), "threads": threads,
            "python": platform.python_version(), "packages": packages}  # fmt: skip


def told(line: dict[str, object]) -> str:
    """A line for the terminal; what was wanted stands behind what was found."""

    def against(name: str, sign: str) -> str:
        if line[name] == "":
            return "-"
        wanted = line[f"wanted_{name}"]
        return f"{line[name]}{sign}" + (f" (at least {wanted:g}{sign})" if wanted != "" else "")  # type: ignore[str-format]

    rate = f"{line['per_second']:,} {line['unit']}/s"
    return (
        f"{line['line']:16} {rate:32} {against('fraction', ''):24} {against('ratio', 'x'):22} {line['peer']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="and cores")
    parser.add_argument("--only", default="", help="lines, separated by commas")
    parser.add_argument("--name", default="latest", help="of the files in bench/results")
    chosen = parser.parse_args()
    if not PEERS.exists():
        print("no .venv-peers: peers are left out (bench/peers/README.md makes it)")
    lines = [line for line in LINES if not chosen.only or line.name in chosen.only.split(",")]
    found = []
    print(f"{'':16} {'':32} {'of the products rate':24} {'against the peer':22}")
    for line in lines:
        found.append(measure(line, chosen.rounds, chosen.threads))
        print(told(found[-1]), flush=True)
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    with (folder / f"{chosen.name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    (folder / f"{chosen.name}.json").write_text(json.dumps(machine(chosen.threads), indent=1) + "\n")


if __name__ == "__main__":
    main()
