"""One table of our runs and the peers', in markdown:

    python bench/peers/compare.py RUN_IQL results/peers/d3rlpy-iql RUN_CQL results/peers/d3rlpy-cql

Each folder holds an ``evaluations.csv`` and the ``manifest.json`` of its run; the last evaluation of
each policy in it becomes a row. Runs in the project's own environment.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
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
    names = sorted({row.seed for row in rows})
    seeds = [np.array([row.return_ for row in rows if row.seed == seed]) for seed in names]
    mean, low, high = mean_interval(seeds)
    middle = float(iqm(seeds))
    scores = [[r.normalized for r in rows if r.seed == seed and r.normalized is not None] for seed in names]
    score = np.mean([np.mean(each) if each else np.nan for each in scores])
    counts = "/".join(str(count) for count in sorted({len(seed) for seed in seeds}))
    each = ", ".join(f"{seed.mean():.0f}" for seed in seeds)
    return (
        f"| {run} | {rows[0].policy} | {last:,} | {counts} | {mean:.0f} [{low:.0f}, {high:.0f}] "
        f"| {middle:.0f} | {score:.1f} | {each} |"
    )


def require_alike(folders: list[Path]) -> None:
    """Refuses other seeds or episodes in any row, and other updates in the rows of one method."""
    tried, updates = set(), dict[str, set[int]]()
    for folder in folders:
        rows = read_rows(folder / "evaluations.csv")
        for policy in _policies(rows):
            last = max(row.step for row in rows if row.policy == policy)
            counts = Counter(row.seed for row in rows if (row.policy, row.step) == (policy, last))
            tried.add(", ".join(f"{seed} ({count} episodes)" for seed, count in sorted(counts.items())))
            updates.setdefault(policy.removeprefix("d3rlpy_"), set()).add(last)
    if len(tried) > 1:
        raise SystemExit(f"different seeds or episodes: {'; '.join(sorted(tried))}")
    for method, found in updates.items():
        if len(found) > 1:
            raise SystemExit(f"{method}: different updates: {', '.join(map(str, sorted(found)))}")


def main(names: list[str]) -> None:
    """Prints the table; refuses folders of different data or tasks, and rows tried differently."""
    if not names:
        raise SystemExit(__doc__)
    folders = [Path(name) for name in names]
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    same = {(manifest["data"]["digest"], manifest["task"]) for manifest in manifests}
    if len(same) > 1:
        raise SystemExit(f"different data or tasks: {', '.join(map(str, sorted(same)))}")
    require_alike(folders)
    print(HEAD)
    for folder in folders:
        print("\n".join(lines(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
