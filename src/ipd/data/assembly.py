"""Arrays that were found, cut into episodes: what is refused, where they end, what follows them.

Keys (D4RL's): ``observations`` (N, obs), ``actions`` (N, act), ``rewards`` (N,), ``terminals`` (N,),
and where there are any ``timeouts`` (N,), ``next_observations`` (N, obs), ``lengths`` (E,) in place
of end flags, ``final_observations`` (E, obs): the observation after each episode's last step.

Where an episode ends (``ipd.data.ends``): at a terminal, at a timeout, where ``lengths`` says so,
without ``lengths`` where ``observations[i + 1] != next_observations[i]`` (replay files do not mark every
timeout), and at the last row. An end without a terminal is a truncation.

Without ``next_observations`` and ``final_observations`` the observation after an episode's last step
is unknown, and the next row belongs to another episode. A truncated episode then loses its last step
(its observation becomes the last next observation); a terminated one keeps it, since nothing is
bootstrapped from there and the terminal must not be lost, and the row is marked in
``Episodes.unlogged_next``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipd.data.columns import BoolArray, IntArray, Storage, column, pieces
from ipd.data.ends import find_ends
from ipd.data.errors import DataError

NEEDED = ("observations", "actions", "rewards")
OPTIONAL = ("terminals", "timeouts", "next_observations", "lengths", "final_observations", "unlogged_next")
MATRICES = ("observations", "actions", "next_observations", "final_observations")
SIZE_FREE = 2**29
"""Bytes that a set may take in memory whatever the size of its files."""
PACKED_MOST = 100
"""A larger set is believed to be packed this much: deflate reaches 1,032 with nothing but zeros."""


class Entry(NamedTuple):
    """An array in a file, not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[slice], npt.NDArray[Any]]
    """Some of its rows."""


class Found(NamedTuple):
    """What a reader found in a source."""

    entries: Mapping[str, Entry]
    """By D4RL's keys; and ``times`` (N,), the clock."""
    source: str
    """As the user named it."""
    task: str | None = None
    stored: int | None = None
    """Bytes of its files, which bound what can be in it."""
    observation_names: Sequence[str] = ()
    action_names: Sequence[str] = ()
    keys: Mapping[str, str] = {}
    """What the source calls a key, where it is something else."""
    columns: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()

    def error(self, message: str, key: str, row: int | None = None, cure: str | None = None) -> DataError:
        """An error about ``key``, by the name that the source has for it."""
        return DataError(message, file=self.source, key=self.keys.get(key, key), row=row, cure=cure)

    def dimension(self, key: str, number: int) -> str:
        """A dimension of ``key`` for a reader: its number, and its name where it has one."""
        names = self.action_names if key == "actions" else self.observation_names
        return f"dimension {number}" + (f" ('{names[number]}')" if key in MATRICES and names else "")


EVERY = slice(None)


def require_size(stored: int, size: int, shape: tuple[int, ...], source: str, key: str) -> None:
    """Raises DataError where ``shape``, part of ``size`` bytes, is not believed to be in ``stored`` bytes."""
    if size > max(SIZE_FREE, PACKED_MOST * stored):
        message = f"claims shape {shape}, of {size:,} bytes in all, which {stored:,} bytes cannot hold"
        cure = f"the file is damaged; or, if packed over {PACKED_MOST} times, store it with less compression"
        raise DataError(message, file=source, key=key, cure=cure)


def _require_shapes(found: Found) -> None:
    """Refuse by shape and type, before anything is read."""
    entries = found.entries
    for key in NEEDED:
        if key not in entries:
            raise found.error("is missing", key, cure=f"a dataset has {', '.join(NEEDED)}")
    if "terminals" not in entries and "lengths" not in entries:
        cure = "store where the task ended (all 0 if it never does), or lengths of the episodes"
        raise found.error("is missing", "terminals", cure=cure)
    rows = (entries["observations"].shape or (0,))[0]
    for key, (shape, dtype, _) in entries.items():
        ranks = 2 if key in MATRICES else 1
        an_episode = key in ("lengths", "final_observations")
        want = f"({'E' if an_episode else rows}{', size' if ranks == 2 else ','})"
        if len(shape) != ranks or (not an_episode and shape[0] != rows):
            raise found.error(f"has shape {shape}, expected {want}", key, cure="reshape it")
        if dtype.kind not in "biuf":
            raise found.error(f"holds {dtype}, not numbers", key, cure="store it as float32")
        if 0 in shape:
            raise found.error(f"zero episodes (shape {shape})", key, cure="record at least one step")
        if found.stored is not None:
            require_size(found.stored, 4 * math.prod(shape), shape, found.source, key)
    if found.stored is not None:
        cells = {key: math.prod(entry.shape) for key, entry in entries.items()}
        most = max(cells, key=cells.__getitem__)
        size = 4 * sum(cells.values())  # float32; each alone may be possible, all of them not
        require_size(found.stored, size, entries[most].shape, found.source, most)
    size = entries["observations"].shape[1]
    for key in ("next_observations", "final_observations"):
        if key in entries and entries[key].shape[1] != size:
            message = f"has {entries[key].shape[1]} dimensions, observations have {size}"
            raise found.error(message, key, cure="store both with the same dimensions")
    for key, names in (("observations", found.observation_names), ("actions", found.action_names)):
        different = {name for name in names if isinstance(name, str)}
        if names and not len(different) == len(names) == entries[key].shape[1]:
            dimensions = entries[key].shape[1]
            message = (
                f"has {dimensions} dimensions and {len(names)} names for them, {len(different)} different"
            )
            raise found.error(message, key, cure="give each dimension a name of its own, or none")


class _Rounding:
    """How far numbers move when they are stored as float32, against their range, dimension by dimension."""

    def __init__(self) -> None:
        self._low, self._high, self._moved = np.float64(np.inf), np.float64(-np.inf), np.float64(0)

    def see(self, raw: npt.NDArray[Any], stored: npt.NDArray[Any]) -> None:
        """Some of the rows, as they were and as they are."""
        if np.can_cast(raw.dtype, stored.dtype):
            return
        with np.errstate(all="ignore"):  # what is not finite is refused
            moved = np.abs(raw - stored.astype(np.float64)).max(0)
        self._moved = np.maximum(self._moved, moved)
        self._low, self._high = np.minimum(self._low, raw.min(0)), np.maximum(self._high, raw.max(0))

    def dimensions(self) -> list[int]:
        """Those that lose more than a hundredth of their range."""
        with np.errstate(all="ignore"):
            size = self._high - self._low
            found: list[int] = np.flatnonzero((size > 0) & (self._moved > 0.01 * size)).tolist()
            return found


def _numbers(
    found: Found,
    key: str,
    disk: Path | None,
    dtype: npt.DTypeLike = np.float32,
    rounding: _Rounding | None = None,
) -> npt.NDArray[Any]:
    shape, _, read = found.entries[key]
    values = column(shape, dtype, disk)
    first, count = None, 0
    for piece in pieces(shape[0]):
        raw = read(piece)
        with np.errstate(over="ignore"):  # too large for float32 becomes Inf and is refused below
            values[piece] = raw
        if rounding is not None:
            rounding.see(raw, values[piece])
        bad = ~np.isfinite(values[piece])
        if bad.any():
            row, *dimension = (int(i) for i in np.argwhere(bad)[0])
            first = first or (piece.start + row, dimension, raw[(row, *dimension)])
            count += int(bad.reshape(len(raw), -1).any(1).sum())
    if first:
        row, dimension, value = first
        where = f"{found.dimension(key, dimension[0])} is" if dimension else "is"
        message = f"{where} {value} ({count} rows of {len(values)} are not finite in float32)"
        raise found.error(message, key, row, cure="drop or mend the episode that holds it")
    return values


def _flags(found: Found, key: str, rows: int) -> BoolArray:
    if key not in found.entries:
        return np.zeros(rows, np.bool_)
    flags = found.entries[key].read(EVERY)
    bad = (flags != 0) & (flags != 1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise found.error(f"is {flags[row]}, not 0 or 1", key, row, cure="store flags")
    return flags.astype(np.bool_)


def _lengths(found: Found, rows: int) -> IntArray:
    lengths = found.entries["lengths"].read(EVERY)
    whole = lengths.dtype.kind in "iu"
    if not whole or (lengths < 1).any() or (lengths > rows).any() or lengths.sum() != rows:
        message = f"are not whole numbers of at least 1 that add up to {rows} rows"
        raise found.error(message, "lengths", cure="store the number of steps of each episode")
    return lengths.astype(np.int64)


def _require_order(found: Found, times: npt.NDArray[np.float64], ends: BoolArray) -> None:
    for piece in pieces(len(times) - 1):
        back = (times[1:][piece] < times[:-1][piece]) & ~ends[:-1][piece]
        if back.any():
            row = piece.start + int(np.flatnonzero(back)[0]) + 1
            message = f"goes back from {times[row - 1]:.10g} to {times[row]:.10g} inside an episode"
            cure = "sort the rows, or mark where episodes end (terminated, truncated or an episode column)"
            raise found.error(message, "times", row, cure)


def assemble(found: Found, storage: Storage | None = None) -> dict[str, Any]:
    """Read what was found and cut the rows into episodes by the rules at the top of this file.

    Returns the fields of ``Episodes``, whose module imports this one.

    Raises DataError where the arrays do not fit each other or hold what is no number.
    """
    _require_shapes(found)
    entries = found.entries
    rows = entries["observations"].shape[0]
    disk = storage and storage.of(rows)
    rounding = {key: _Rounding() for key in NEEDED}
    values = {
        key: _numbers(found, key, disk, rounding=rounding.get(key))
        for key in dict.fromkeys((*NEEDED, *MATRICES))
        if key in entries
    }
    times = _numbers(found, "times", disk, np.float64) if "times" in entries else None
    observations = values["observations"]
    terminated, timeouts = (_flags(found, key, rows) for key in ("terminals", "timeouts"))
    lengths = _lengths(found, rows) if "lengths" in entries else None
    following = values.get("next_observations")
    cut = find_ends(terminated, timeouts, lengths, observations, following, found.keys)
    ends, latched, remarks = cut.ends, cut.latched, [*found.remarks, *cut.remarks]
    if cut.marked and not {"timeouts", "lengths", "next_observations"} & set(entries):
        remarks.append("neither timeouts nor next_observations: only terminals tell where episodes end")

    if times is not None:
        _require_order(found, times, ends | latched)
    last = np.flatnonzero(ends)
    keep, unlogged = ~latched, None
    if following is not None:
        next_observations = following
        unlogged = _flags(found, "unlogged_next", rows) if "unlogged_next" in entries else None
    else:
        next_observations = column(observations.shape, np.float32, disk)
        next_observations[:-1] = observations[1:]
        last_known = np.append(latched[1:], False)  # what follows a terminal is there, in a row left out
        if "final_observations" in values:
            if len(values["final_observations"]) != len(last):
                message = f"has {len(values['final_observations'])} rows for {len(last)} episodes"
                raise found.error(message, "final_observations", cure="store one row an episode")
            next_observations[last] = np.where(
                last_known[last, None], next_observations[last], values["final_observations"]
            )
        else:
            unlogged = ends & terminated & ~last_known
            next_observations[unlogged] = observations[unlogged]
            cut_short = ends & ~terminated
            keep &= ~cut_short
            lost, unknown = int(cut_short.sum()), int(unlogged.sum())
            remarks.append(
                f"no next_observations: {lost} truncated episodes lose their last step"
                + (f", and nothing is known of what followed {unknown} terminations" if unknown else "")
            )
            # The step before a dropped one now ends its episode. (One-step episodes vanish.)
            ends = (ends & keep) | np.append(cut_short[1:], False)
    if not keep.any():
        raise DataError(
            "zero episodes of more than one step", file=found.source, cure="store next_observations as well"
        )

    def kept(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if keep.all():
            return values
        fewer = column((int(keep.sum()), *values.shape[1:]), values.dtype, disk)
        ahead = np.concatenate([[0], np.cumsum(keep)])
        for piece in pieces(rows):
            fewer[ahead[piece.start] : ahead[piece.stop]] = values[piece][keep[piece]]
        return fewer

    ends = ends[keep]
    terminated = terminated[keep]
    return {
        "observations": kept(observations),
        "actions": kept(values["actions"]),
        "rewards": kept(values["rewards"]),
        "next_observations": kept(next_observations),
        "terminated": terminated,
        "truncated": (ends & ~terminated) | timeouts[keep],
        "starts": np.concatenate([[0], np.flatnonzero(ends) + 1]).astype(np.int64),
        "source": found.source,
        "task": found.task,
        "unlogged_next": None if unlogged is None else unlogged[keep],
        "remarks": tuple(remarks),
        "doubts": cut.doubts,
        "rounded": tuple(
            key if key == "rewards" else f"{key}, {found.dimension(key, at)}"
            for key, each in rounding.items()
            for at in each.dimensions()
        ),
        "observation_names": tuple(found.observation_names),
        "action_names": tuple(found.action_names),
        "times": None if times is None else kept(times),
        "columns": found.columns,
        "disk": disk,
    }


def found_in(
    arrays: Mapping[str, npt.ArrayLike], names: tuple[Sequence[str], Sequence[str]], task: str | None
) -> Found:
    """Arrays in memory, by D4RL's keys; ``names`` are of the observation's and of the action's dimensions."""

    def entry(key: str, values: npt.ArrayLike) -> Entry:
        try:
            array = np.asarray(values)
        except ValueError as error:  # rows of different lengths
            cure = "give one number, or one row of as many numbers, a step"
            raise DataError(
                f"is no array ({error})", file="arrays", key=keys.get(key, key), cure=cure
            ) from error
        return Entry(array.shape, array.dtype, lambda rows: array[rows])

    keys = {"terminals": "terminated", "timeouts": "truncated"}
    entries = {key: entry(key, values) for key, values in arrays.items()}
    for key, given in zip(("observation_names", "action_names"), names, strict=True):
        if isinstance(given, str) or not isinstance(given, Sequence):
            cure = "give a list of strings, one a dimension, or none"
            raise DataError(f"is {given!r:.100}", file="arrays", key=key, cure=cure)
    return Found(entries, "arrays", task, None, *names, keys=keys)
