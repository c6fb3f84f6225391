"""One table of our runs and the peers', in markdown:

    python bench/peers/compare.py RUN_IQL results/peers/d3rlpy-iql RUN_CQL results/peers/d3rlpy-cql

Each folder holds an ``evaluations.csv`` and the ``manifest.json`` of its run; the last evaluation of
each policy in it becomes a row. Runs in the project's own environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from ipd.evaluation.scores import Row, read_rows
from ipd.report.statistics import iqm, mean_interval

HEAD = (
    "| run | policy | updates | episodes a seed | mean return [95 %] | IQM over episodes | normalised "
    "| each seed |\n|---|---|---|---|---|---|---|---|"
)


def lines(folder: Path) -> list[str]:
    """A row for each policy of ``folder``: every seed counts the same in the mean."""
    rows = read_rows(folder / "evaluations.csv")
    return [_line(folder.name, [row for row in rows if row.policy == policy]) for policy in _policies(rows)]


def _policies(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.policy for row in rows))


def _line(run: str, rows: list[Row]) -> str:
    last = max(row.step for row in rows)
    rows = [row for row in rows if row.step == last]
    seeds = [
        np.array([row.return_ for row in rows if row.seed == seed]) for seed in sorted({r.seed for r in rows})
    ]
    mean, low, high = mean_interval(seeds)
    middle = float(iqm(seeds))
    score = np.mean([row.normalized for row in rows if row.normalized is not None] or [np.nan])
    counts = "/".join(str(count) for count in sorted({len(seed) for seed in seeds}))
    each = ", ".join(f"{seed.mean():.0f}" for seed in seeds)
    return (
        f"| {run} | {rows[0].policy} | {last:,} | {counts} | {mean:.0f} [{low:.0f}, {high:.0f}] "
        f"| {middle:.0f} | {score:.1f} | {each} |"
    )


def main(names: list[str]) -> None:
    """Prints the table; refuses folders of different data or tasks."""
    if not names:
        raise SystemExit(__doc__)
    folders = [Path(name) for name in names]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    same = {(manifest["data"]["digest"], manifest["task"]) for manifest in manifests}
    if len(same) > 1:
        raise SystemExit(f"different data or tasks: {', '.join(map(str, sorted(same)))}")
    print(HEAD)
    for folder in folders:
        print("\n".join(lines(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
