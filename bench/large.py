"""What data cost: ten times as many, and more than fit into memory: `make bench-large`.

Whole runs of `ipd train` on sets made of copies of the bundled one, in memory and streamed, in turn.
Peak memory is the process's own (resident, files mapped from disk included); rates are those of the
stages, compilation left out. Writes bench/results/large-NAME.csv; bench/README.md says how it is read.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import h5py

from ipd.data.convert import HDF5
from ipd.data.sources import load

HERE = Path(__file__).parent
SOURCE = "bundled:hopper-medium-replay"
GIB = 2**30
SMALL, LARGE, HUGE = 100_000, 1_000_000, 10_000_000
NETS = ("--preset", "cpu", "--world.hidden", "32", "32", "--value.hidden", "32", "32",
        "--value.steps", "20000", "--world.steps", "6000", "--refit.steps", "8000", "--policy.steps", "1500",
        "--cloning.steps", "4000")  # fmt: skip
"""Networks so small that reading data is a larger part of the work than it will be for anyone, and that a
million start states are a matter of minutes; steps enough that every stage needs a second window."""
PAPER = ("--preset", "paper", "--value.steps", "400", "--world.steps", "200", "--policy.steps", "12",
         "--cloning.steps", "100", "--augment.augment-ratio", "0.01",
         "--policy.batch-size", "256")  # fmt: skip


class Found(NamedTuple):
    """One run."""

    peak: float
    """GiB."""
    rates: Mapping[str, float]
    """Stage and unit -> units a second, without the call that compiled."""
    counts: Mapping[str, float]
    """Units of each."""


def make(path: Path, steps: int) -> None:
    """A set of at least so many steps: the bundled one over and over."""
    episodes = load(SOURCE)
    times = -(-steps // episodes.num_steps)
    with h5py.File(path, "w") as file:
        file.attrs["task"] = "Hopper-v4"
        for key, name in HDF5.items():
            values = getattr(episodes, name)
            if values is None:
                continue
            shape = (times * len(values), *values.shape[1:])
            out = file.create_dataset(key, shape, values.dtype, chunks=(1024, *values.shape[1:]))
            for copy in range(times):
                out[copy * len(values) : (copy + 1) * len(values)] = values


def run(data: Path, out: Path, *options: str) -> Found:
    """`ipd train` in a process of its own, without trying the policy."""
    command = [sys.executable, "-m", "ipd", "train", "--data", str(data), "--out", str(out), *options]
    command += ["--evaluate.episodes", "1", "--evaluate.final-episodes", "1", "--evaluate.snapshots", "1"]
    out.parent.mkdir(exist_ok=True)
    # nothing compiled before
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(out.parent / "cache")}
    with out.with_suffix(".log").open("w") as said:
        child = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(out.with_suffix(".log").read_text()[-2000:])
    told = [json.loads(line) for line in (out / "timing.jsonl").read_text().splitlines()]
    rates = {f"{t['stage']} {t['unit']}": float(t["steady_per_second"]) for t in told}
    counts = {f"{t['stage']} {t['unit']}": float(t["to"]) for t in told}
    return Found(used.ru_maxrss * 1024 / GIB, rates, counts)


def rates(data: Path, out: Path) -> dict[str, float]:
    """Updates a second of values and world model with the networks of preset `cpu`."""
    value = run(data, out / "value", "--algo", "iql", "--preset", "cpu", "--value.steps", "10000")
    world = run(data, out / "world", "--preset", "cpu", "--world.steps", "5000", "--until", "world")
    return {"value": value.rates["value updates"], "world": world.rates["world updates"]}


def augmenting(found: Found) -> float:
    """Seconds of the augment stage, compilation left out."""
    return sum(found.counts[name] / found.rates[name] for name in ("augment candidates", "augment states"))


Lines = list[tuple[str, float, str]]
"""What was measured, its number, and what was wanted."""


def of_paper(folder: Path, sets: Mapping[int, Path]) -> Lines:
    """Memory of a run of the paper's sizes; nothing compiled before."""
    found = run(sets[SMALL], folder / "paper", *PAPER)
    size = sets[SMALL].stat().st_size / GIB
    return [("peak memory above the data, paper's sizes, GiB", found.peak - size, "at most 1.5")]


def of_growth(folder: Path, sets: Mapping[int, Path]) -> Lines:
    """Ten times the data in memory, and ten times that on disk."""
    small, large, huge = (run(path, folder / f"run-{steps}", *NETS) for steps, path in sets.items())
    found = [
        ("cost of augmentation, ten times the data", augmenting(large) / augmenting(small), "9 to 11"),
        ("cost of an epoch of values, ten times the data",
         10 * small.rates["value updates"] / large.rates["value updates"], "9 to 11"),
        ("peak memory above the data, a million steps, GiB",
         large.peak - sets[LARGE].stat().st_size / GIB, "at most 1.5"),
        ("peak memory, ten million steps streamed, GiB", huge.peak, "at most 4"),
        ("start states imagined there", huge.counts["augment states"], ""),
    ]  # fmt: skip
    for stage in ("cloning", "refit", "policy"):
        rate = huge.rates[f"{stage} updates"] / large.rates[f"{stage} updates"]
        found.append((f"rate of {stage}, streamed against in memory", rate, "at least 0.8"))
    return found


def of_rates(folder: Path, sets: Mapping[int, Path]) -> Lines:
    """Values and world model of preset `cpu`, ten million steps on disk against a million in memory."""
    whole, streamed = (rates(sets[steps], folder / f"rates-{steps}") for steps in (LARGE, HUGE))
    return [(f"rate of {stage}, streamed against in memory", streamed[stage] / whole[stage], "at least 0.8")
            for stage in whole]  # fmt: skip


PARTS = {"paper": of_paper, "growth": of_growth, "rates": of_rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--name", default="latest", help="of the file in bench/results")
    parser.add_argument("--folder", type=Path, help="for sets and runs, some 5 GB; a temporary one")
    parser.add_argument(
        "--only", nargs="*", default=list(PARTS), choices=list(PARTS), help="other lines stay"
    )
    chosen = parser.parse_args()
    path = HERE / "results" / f"large-{chosen.name}.csv"
    found: dict[str, tuple[str, str]] = {}
    if path.exists() and set(chosen.only) != set(PARTS):
        found = {name: (number, wanted) for name, number, wanted in list(csv.reader(path.open()))[1:]}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as temporary:
        folder = Path(temporary)
        sets = {steps: folder / f"{steps}.hdf5" for steps in (SMALL, LARGE, HUGE)}
        for steps, file in sets.items():
            make(file, steps)
        for part in chosen.only:
            found |= {name: (f"{number:.2f}", wanted) for name, number, wanted in PARTS[part](folder, sets)}
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("line", "found", "wanted"))
        writer.writerows((name, *numbers) for name, numbers in found.items())
    for name, (number, wanted) in found.items():
        print(f"{name:52} {number:>12}  {wanted}")


if __name__ == "__main__":
    main()
