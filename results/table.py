"""Markdown rows of committed evaluations: `python results/table.py results/hopper-medium-replay/*`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from ipd.report.statistics import mean_interval


def rows(folder: Path) -> list[str]:
    """Last evaluation of each policy in ``folder/evaluations.csv``: seeds, mean with interval, score."""
    with open(folder / "evaluations.csv", newline="") as file:
        table = list(csv.DictReader(file))
    lines = []
    for policy in dict.fromkeys(row["policy"] for row in table):
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


if __name__ == "__main__":
    print("| run | policy | mean return [95 %] | normalised | each seed |\n|---|---|---|---|---|")
    for name in sys.argv[1:]:
        print("\n".join(rows(Path(name))))
