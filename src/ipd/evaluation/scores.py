"""D4RL-normalised scores, and the file that keeps every episode."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ipd.data.atomic import replacing
from ipd.evaluation.tasks import ALIASES, Task

REFERENCE_VERSION = "d4rl-v2"
"""Of the table below (``d4rl/infos.py``); the same numbers hold for v0, v1 and v2 of each data set."""
REFERENCES: dict[str, tuple[float, float]] = {
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "halfcheetah": (-280.178953, 12135.0),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884),
    "kitchen": (0.0, 4.0),
}
"""Family -> return of a random policy, return of an expert."""

HEADER = ("policy", "seed", "step", "episode", "return", "length", "normalized")


class ScoreError(Exception):
    """``evaluations.csv`` cannot be read; one line with file and row."""


class Row(NamedTuple):
    """One episode of one policy."""

    policy: str
    """``ipd``, ``quasi_optimal`` or ``cloning``."""
    seed: int
    """Of training."""
    step: int
    """Updates of the policy's own stage when it was tried."""
    episode: int
    return_: float
    """Undiscounted, in the task's reward units."""
    length: int
    normalized: float | None
    """D4RL score, 0 random and 100 expert; None where no reference exists."""


def reference(task: Task | str) -> tuple[float, float] | None:
    """(random, expert) return of a task, its id, a short name or a D4RL name (``hopper-medium-v2``).

    Kitchen tasks count only with four things to do, as in D4RL. Newer task versions pay other
    rewards (Hopper-v5 by one a fall), so they have no reference.
    """
    name = task.id if isinstance(task, Task) else task
    id = ALIASES.get(name.lower(), name)
    for family, bounds in REFERENCES.items():
        if family == "kitchen" and id.startswith("FrankaKitchen-v1:"):
            return bounds if id.count(",") == 3 else None
        if id == ALIASES[family] or re.fullmatch(rf"{family}-[a-z_-]+-v[012]", id):
            return bounds
    return None


def normalized_score(task: Task | str, total: float) -> float | None:
    """100 (R - random) / (expert - random) of D4RL; None where ``reference`` has nothing."""
    bounds = reference(task)
    return None if bounds is None else 100.0 * (float(total) - bounds[0]) / (bounds[1] - bounds[0])


def add_rows(path: Path, rows: Iterable[Row]) -> None:
    """Merge rows into the CSV at ``path``; the file is at every instant the old one or the new one.

    A row with the policy, seed, step and episode of an older one replaces it, and rows are kept in
    that order: doing the same work twice gives the same bytes.
    """
    merged = {row[:4]: row for row in read_rows(path)} if path.exists() else {}
    merged.update({row[:4]: row for row in rows})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for key in sorted(merged):
        row = merged[key]
        writer.writerow([*key, repr(float(row.return_)), row.length, _number(row.normalized)])
    with replacing(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8", newline="")


def read_rows(path: Path) -> list[Row]:
    """Every episode in the CSV at ``path``, in the file's order."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    if not lines or tuple(lines[0]) != HEADER:
        raise ScoreError(f"{path}: row 1 is not {','.join(HEADER)}; move the file away and evaluate again")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            policy, seed, step, episode, total, length, score = line
            rows.append(Row(policy, int(seed), int(step), int(episode), float(total), int(length),
                            float(score) if score else None))  # fmt: skip
        except ValueError as problem:
            raise ScoreError(f"{path}: row {number}: {problem}; delete that row") from problem
    return rows


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))
