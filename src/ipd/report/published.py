"""The numbers printed in Table 1 of the paper (Imaginary Planning Distillation), and which to doubt.

Normalised scores on D4RL's own data. The paper says "tenfold episode evaluations"; it states neither
the number of seeds, nor what "±" means, nor whether the last or the best evaluation is shown. A number
is marked as doubtful where another source for the same method and data disagrees, or where none can
exist; sources named "from memory" were not looked up again.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ALGORITHMS = ("iql", "cql", "dt", "qdt", "dd", "edt", "qt", "reinformer", "ipd")
"""Columns of the table, in the paper's order."""
TABLE = {
    "walker2d-medium": (78.3, 83.0, 74.0, 67.1, 82.5, 72.8, 87.6, 80.5, 89.5),
    "walker2d-medium-replay": (73.9, 77.2, 79.4, 58.2, 68.9, 74.8, 94.2, 72.9, 96.2),
    "hopper-medium": (66.3, 69.4, 67.6, 66.5, 79.3, 64.5, 78.0, 63.5, 81.6),
    "hopper-medium-replay": (94.7, 95.0, 82.7, 52.1, 100.0, 89.0, 102.1, 83.3, 103.2),
    "halfcheetah-medium": (47.4, 49.2, 42.6, 39.3, 49.1, 42.5, 49.1, 42.9, 51.2),
    "halfcheetah-medium-replay": (44.2, 45.5, 36.6, 35.6, 39.3, 37.8, 48.9, 39.0, 49.9),
    "kitchen-complete": (62.5, 43.8, 50.8, 56.9, 65.0, 40.8, 75.0, 50.9, 78.4),
    "kitchen-partial": (46.3, 49.8, 57.9, 58.3, 57.0, 10.0, 73.2, 73.1, 74.3),
    "hammer-human": (1.4, 4.4, 0.2, 6.8, 1.9, 14.2, 24.8, 17.2, 22.9),
    "pen-cloned": (37.3, 39.2, 75.8, 64.2, 42.8, 48.4, 90.1, 82.4, 92.8),
}
"""Data set -> a score for each of ALGORITHMS."""
SPREADS = dict(zip(TABLE, (3.7, 2.1, 4.8, 3.7, 2.6, 1.6, 4.6, 2.8, 2.3, 3.7), strict=True))
"""What is printed behind "±"; only IPD's numbers have it."""

VERSIONS = {
    **dict.fromkeys(TABLE, "v2"),
    **dict.fromkeys(("kitchen-complete", "kitchen-partial"), "v0"),
    **dict.fromkeys(("hammer-human", "pen-cloned"), "v1"),
}
"""The version of each data set that the table speaks of."""

_V0 = "labelled v1, but it is the number known for v0 of this data"
_MIXED = "the CQL column mixes sources: IQL's paper gives {}"
_NO_CODE = "the method's public code has no setting for this task"
DOUBTS: dict[tuple[str, str], str] = {
    ("hammer-human", "iql"): _V0,
    ("hammer-human", "cql"): _V0,
    ("pen-cloned", "iql"): f"{_V0}; CORL has 83.4 on v1",
    ("pen-cloned", "cql"): f"{_V0}; CORL has 1.0 on v1",
    ("walker2d-medium", "cql"): _MIXED.format("72.5"),
    ("hopper-medium", "cql"): _MIXED.format("58.5"),
    ("halfcheetah-medium", "cql"): _MIXED.format("44.0"),
    ("walker2d-medium-replay", "dt"): "12.8 above DT's own paper (66.6) and 11 above CORL's best evaluation",
    ("walker2d-medium-replay", "qt"): "below QT's own paper (98.5)",
    ("hopper-medium", "qt"): "below QT's own paper (96.9, from memory)",
    ("hopper-medium", "edt"): "EDT's own paper has 63.5 (from memory), the number printed for Reinformer",
    ("hopper-medium", "reinformer"): "EDT's number (from memory); Reinformer's own, 81.6, is printed for IPD",
    ("halfcheetah-medium", "qdt"): "equals DD's on medium-replay; QDT's own paper has 42.3 (from memory)",
    ("walker2d-medium-replay", "dd"): "below DD's own paper (75, from memory)",
    **{(task, algo): _NO_CODE
       for task in ("kitchen-complete", "kitchen-partial", "hammer-human", "pen-cloned")
       for algo in ("dt", "qdt", "edt", "dd")},
    ("kitchen-complete", "dd"): f"{_NO_CODE}; 65 is DD's number for kitchen-mixed (from memory)",
}  # fmt: skip
"""(data set, algorithm) -> why not to trust the printed number."""


class Printed(NamedTuple):
    """One number of the paper's Table 1."""

    score: float
    spread: float | None
    doubt: str
    """Why not to trust it; "" where nothing speaks against it."""


def lookup(dataset: str, algo: str) -> Printed | None:
    """What the paper prints for an algorithm on a data set; None where it prints nothing.

    ``dataset`` is a name as ``hopper-medium-replay`` or ``hopper-medium-replay-v2``. Other versions
    than those of VERSIONS are other data: nothing is printed for them.
    """
    name = re.sub(r"-v\d+$", "", dataset)
    if algo not in ALGORITHMS or name not in TABLE or dataset not in (name, f"{name}-{VERSIONS[name]}"):
        return None
    score = TABLE[name][ALGORITHMS.index(algo)]
    return Printed(score, SPREADS[name] if algo == "ipd" else None, DOUBTS.get((name, algo), ""))
