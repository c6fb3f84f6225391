"""Which simulator the runs of a comparison were tried in: another version pays other returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ipd.report import compare
from ipd.report.compare import Comparison
from ipd.report.compare_read import Dataset, Entry


def differing(comparison: Comparison) -> list[str]:
    """That runs on one data set were tried in several versions of a simulator, a sentence each."""
    packages = sorted({package for entry in comparison.entries for package in entry.simulator})
    each = ((dataset, package) for dataset in comparison.datasets for package in packages)
    found = ((*pair, _versions(comparison, *pair)) for pair in each)
    return [_said(comparison, *which) for which in found if len(which[-1]) > 1]


def _said(comparison: Comparison, dataset: Dataset, package: str, told: Mapping[str, Sequence[Entry]]) -> str:
    (usual, runs), *others = told.items()
    more = "; ".join(
        f"{version}: {compare.listed([each.name for each in found])}" for version, found in others
    )
    pooled = [
        compare.name_of(cell.algo, cell.label)
        for cell in comparison.cells
        if len({version for version, found in told.items() for e in found if e.name in cell.folders}) > 1
    ]
    within = f" Seeds of several are put together in {', '.join(pooled)}." if pooled else ""
    return (
        f"Versions of {package} differ on {compare.title(dataset, comparison.datasets)}, so returns do not "
        f"compare: {more}; {usual}: the other {len(runs)}.{within}"
    )


def _versions(comparison: Comparison, dataset: Dataset, package: str) -> dict[str, Sequence[Entry]]:
    """Version -> the runs that tell it, the most usual first."""
    found: dict[str, list[Entry]] = {}
    for entry in comparison.entries:
        if entry.dataset == dataset and package in entry.simulator:
            found.setdefault(entry.simulator[package], []).append(entry)
    return dict(sorted(found.items(), key=lambda each: (-len(each[1]), each[0])))
