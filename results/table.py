"""A Markdown table of committed evaluations: `python results/table.py results/hopper-medium-replay/*`."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ipd.report.statistics import mean_interval


def rows(folder: Path, policies: str = "") -> list[str]:
    """Last evaluation of each policy in ``folder/evaluations.csv``: seeds, mean with interval, score."""
    with open(folder / "evaluations.csv", newline="") as file:
        table = list(csv.DictReader(file))
    lines = []
    for policy in dict.fromkeys(r["policy"] for r in table if r["policy"].startswith(policies)):
        mine = [row for row in table if row["policy"] == policy]
        last = max(int(row["step"]) for row in mine)
        mine = [row for row in mine if int(row["step"]) == last]
        seeds = sorted({int(row["seed"]) for row in mine})
        returns = [np.array([float(r["return"]) for r in mine if int(r["seed"]) == seed]) for seed in seeds]
        score = np.mean([float(row["normalized"]) for row in mine])
        mean, low, high = mean_interval(returns)
        each = ", ".join(f"{values.mean():.0f}" for values in returns)
        lines.append(
            f"| {folder.name} | {policy} | {mean:.0f} [{low:.0f}, {high:.0f}] | {score:.1f} | {each} |"
        )
    return lines


def table(folders: Iterable[Path], policies: str = "") -> str:
    """The rows of several runs; of those policies only whose name begins with ``policies``."""
    head = "| run | policy | mean return [95 %] | normalised | each seed |\n|---|---|---|---|---|"
    return "\n".join([head, *(row for folder in folders for row in rows(folder, policies))])


if __name__ == "__main__":
    print(table(map(Path, sys.argv[1:])))
