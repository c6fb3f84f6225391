"""Where episodes end, by flags, lengths and next observations, and where these contradict each other.

With lengths (a label of each row counts as such) nothing else than a flag cuts inside one of them: a
next observation that is not the next row's was measured apart. A terminal that stays up behind the
first one tells no more of its episode, and those rows are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ipd.data.columns import BoolArray, FloatArray, IntArray, moments, pieces
from ipd.data.findings import Finding

ROUNDING = 1e-4
"""Standard deviations up to which two observations are one, stored twice."""
RUNS_SHARE = 0.05
"""Share of terminals directly behind another one above which the flag is held to stay up."""


class Ends(NamedTuple):
    """Of N rows as they lie in the file."""

    ends: BoolArray
    """(N,) the last step of each episode."""
    latched: BoolArray
    """(N,) behind their episode's terminal, with the flag still up: no steps of it."""
    marked: bool
    """Whether flags or lengths tell all ends."""
    remarks: tuple[str, ...]
    doubts: tuple[Finding, ...]


def find_ends(
    terminated: BoolArray,
    timeouts: BoolArray,
    lengths: IntArray | None,
    observations: FloatArray,
    next_observations: FloatArray | None,
    names: Mapping[str, str],
) -> Ends:
    """Cut by the rules of ``ipd.data.assembly``; ``names`` is what the source calls a key."""
    if lengths is not None:
        return _labelled(terminated, timeouts, lengths, observations, next_observations, names)
    marked = terminated | timeouts
    ends = marked.copy()
    if next_observations is not None:
        for piece in pieces(len(ends) - 1):
            ends[:-1][piece] |= (observations[1:][piece] != next_observations[:-1][piece]).any(1)
    ends[-1] = True
    remarks, doubts = [], []
    unmarked = np.flatnonzero(ends & ~marked)
    if len(unmarked):
        said = (
            f"{len(unmarked)} of {int(ends.sum())} episode ends are not marked in the file and were taken as "
            f"truncations, the first at row {unmarked[0]}"
        )
        usual = float(np.median(np.diff(np.flatnonzero(ends), prepend=-1)))
        inner = int((unmarked < len(ends) - 1).sum())
        if inner and (2 * inner > ends.sum() or usual == 1):
            message = f"{said}, for the next row is not what followed; the median length is {usual:g}"
            cure = "name the episode of each row (or store lengths), which then counts, or mark the ends"
            doubts.append(Finding("ends", "warning", "episode ends", message, cure))
        else:
            remarks.append(said)
    again = np.flatnonzero(terminated[1:] & terminated[:-1]) + 1
    if len(again) > max(1, RUNS_SHARE * terminated.sum()):
        message = (
            f"{len(again)} terminals directly follow another one, each an episode of one step: the flag may "
            "stay up behind the end, and lengths and returns would be wrong"
        )
        cure = "mark only the step that ended the task, or name the episode of each row"
        doubts.append(Finding("ends", "warning", _where(names, "terminals", again), message, cure))
    return Ends(ends, np.zeros(len(ends), np.bool_), not len(unmarked), tuple(remarks), tuple(doubts))


def _labelled(
    terminated: BoolArray,
    timeouts: BoolArray,
    lengths: IntArray,
    observations: FloatArray,
    next_observations: FloatArray | None,
    names: Mapping[str, str],
) -> Ends:
    closes = np.zeros(len(terminated), np.bool_)
    closes[np.cumsum(lengths) - 1] = True
    behind = np.append(False, terminated[:-1] & ~closes[:-1])
    latched = behind & terminated
    ends = (terminated | timeouts | closes) & ~latched
    doubts = []
    if latched.any():
        message = f"{latched.sum()} rows behind their episode's terminal have the flag still up: left out"
        cure = "mark only the step that ended the task"
        where = _where(names, "terminals", np.flatnonzero(latched))
        doubts.append(Finding("ends", "warning", where, message, cure))
    again = np.flatnonzero(behind & ~terminated)
    if len(again):
        message = f"{len(again)} episodes go on behind their terminal: what follows counts as another episode"
        cure = "drop what follows, or give it an episode of its own"
        doubts.append(Finding("ends", "warning", _where(names, "terminals", again), message, cure))
    apart, remarks = _apart(observations, next_observations, ends | latched), []
    if apart is not None:
        rows, size = apart
        message = (
            f"in {len(rows)} steps inside an episode not the next row's observation, by up to {size:.2g} of "
            "the spread"
        )
        if size <= ROUNDING:
            remarks.append(f"next_observations are {message}, the first at row {rows[0]}")
        else:
            message += ": values and models learn from it, and what a policy sees next is another"
            cure = "leave it out, or store what the next row holds; if the task was reset there, mark an end"
            where = _where(names, "next_observations", rows)
            doubts.append(Finding("next observation", "warning", where, message, cure))
    return Ends(ends, latched, True, tuple(remarks), tuple(doubts))


def _apart(
    observations: FloatArray, next_observations: FloatArray | None, ends: BoolArray
) -> tuple[IntArray, float] | None:
    """Rows inside an episode whose next observation is another row's, and the most in standard deviations."""
    if next_observations is None:
        return None
    rows, most = [], np.zeros(observations.shape[1])
    for piece in pieces(len(ends) - 1):
        differs = np.abs(observations[1:][piece].astype(np.float64) - next_observations[:-1][piece])
        differs[ends[:-1][piece]] = 0
        rows.append(piece.start + np.flatnonzero(differs.any(1)))
        most = np.maximum(most, differs.max(0))
    if not most.any():
        return None
    return np.concatenate(rows), float((most / np.maximum(moments(observations)[1], 1e-12)).max())


def _where(names: Mapping[str, str], key: str, rows: IntArray) -> str:
    return f"{names.get(key, key)}, row {rows[0]}"
