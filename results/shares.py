"""Scores as shares of the best logged episode, printed ones beside ours: `python results/shares.py`.

A printed score belongs to D4RL's file and ours to a regenerated set of the same kind, which is smaller
and was left earlier. What of both can be compared is how near a method comes to the best episode of the
data that it learned from.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ipd.data.sources import load
from ipd.evaluation.scores import normalized_score
from ipd.evaluation.tasks import task
from ipd.report.published import lookup
from ipd.report.tables import METHODS

BEST = {"hopper": 3192.93, "halfcheetah": 4985.14, "walker2d": 4132.00}
"""Best return of D4RL's medium-replay-v2 files, as commonly quoted; not looked up again."""
OTHERS = {
    "bc": {"hopper": 29.81, "halfcheetah": 35.66, "walker2d": 21.80},
    "rebrac": {"hopper": 94.98, "halfcheetah": 51.18, "walker2d": 84.25},
    "mobile": {"hopper": 105.1, "halfcheetah": 71.9, "walker2d": 90.5},
}
"""Methods that the paper does not print: CORL's last evaluations, OfflineRL-Kit's for MOBILE."""


def last_score(table: Path, policy: str) -> float:
    """Mean normalised score of the policy's last evaluation."""
    with table.open(newline="") as file:
        mine = [row for row in csv.DictReader(file) if row["policy"] == policy]
    last = max(int(row["step"]) for row in mine)
    return float(np.mean([float(row["normalized"]) for row in mine if int(row["step"]) == last]))


def main(results: Path) -> None:
    """A Markdown table: for every set the printed share and ours; a dash where there is no run."""
    columns = {}
    for folder in sorted(path for path in results.iterdir() if path.is_dir()):
        robot, episodes = folder.name.split("-")[0], load(f"bundled:{folder.name}")
        living = task(episodes.task or "")
        ours, theirs = (normalized_score(living, best) for best in (episodes.returns.max(), BEST[robot]))
        cells = {}
        for method in METHODS:
            printed = lookup(folder.name, method)
            score = printed.score if printed else OTHERS[method][robot]
            table = folder / method / "evaluations.csv"
            own = f"{last_score(table, method) / ours:.2f}" if table.exists() else "–"
            cells[method] = (f"{score / theirs:.2f}", own)
        columns[robot] = cells
    print("| |" + "".join(f" {robot}: printed | ours |" for robot in columns))
    print("|---|" + "---|" * (2 * len(columns)))
    for method, name in METHODS.items():
        print(f"| {name} |" + "".join(f" {' | '.join(cells[method])} |" for cells in columns.values()))


if __name__ == "__main__":
    main(Path(__file__).parent / "table1")
