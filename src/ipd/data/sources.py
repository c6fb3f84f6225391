"""Readers: D4RL HDF5, plain .npz and the bundled set, all of them into ``Episodes``.

Keys (D4RL's): ``observations`` (N, obs), ``actions`` (N, act), ``rewards`` (N,), ``terminals`` (N,),
and where there are any ``timeouts`` (N,), ``next_observations`` (N, obs), ``lengths`` (E,) in place
of end flags, ``final_observations`` (E, obs): the observation after each episode's last step.

Where an episode ends: at a terminal, at a timeout, where ``lengths`` says so, where
``observations[i + 1] != next_observations[i]`` (replay files do not mark every timeout), and at the
last row. An end without a terminal is a truncation.

Without ``next_observations`` and ``final_observations`` the observation after an episode's last step
is unknown, and the next row belongs to another episode. A truncated episode then loses its last step
(its observation becomes the last next observation); a terminated one keeps it, since nothing is
bootstrapped from there and the terminal must not be lost, and the row is marked in
``Episodes.unlogged_next``.
"""

from __future__ import annotations

import importlib.resources
import math
import zipfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipd.data.columns import Storage, column, pieces
from ipd.data.episodes import BoolArray, DataError, Episodes, FloatArray, IntArray

NEEDED = ("observations", "actions", "rewards")
OPTIONAL = ("terminals", "timeouts", "next_observations", "lengths", "final_observations")
MATRICES = ("observations", "actions", "next_observations", "final_observations")
MAKING = ("recipe", "maker", "note")
"""Attributes of files that were collected."""
SIZE_FREE = 64 * 2**20
"""Bytes an array may take whatever the size of its file."""
DEFLATE_LIMIT = 1_032
"""Deflate packs at most this much; an array that claims more is not in the file."""
UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
)


class Entry(NamedTuple):
    """An array in a file, not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[slice], npt.NDArray[Any]]
    """Some of its rows."""


EVERY = slice(None)


def load(source: str, task: str | None = None, storage: Storage | None = None) -> Episodes:
    """Read a dataset.

    Args:
        source: path of a D4RL ``.hdf5``, of an ``.npz`` with the same keys, or ``bundled:NAME``.
        task: Gymnasium id the data were recorded in; None takes the file's own word, if any.
        storage: where the columns of large sets go; None keeps every set in memory.

    Raises DataError, in one line, for whatever cannot be used; nothing is unpickled, and no array is
    read whose link, type or size is not what a dataset has.
    """
    with ExitStack() as stack:
        if source.startswith("bundled:"):
            bundled = importlib.resources.files("ipd.data") / "bundled"
            names = sorted(
                item.name.removesuffix(".hdf5") for item in bundled.iterdir() if item.name.endswith(".hdf5")
            )
            if source.removeprefix("bundled:") not in names:
                raise DataError(
                    "no such bundled set", file=source, cure="there is bundled:" + ", bundled:".join(names)
                )
            member = bundled / f"{source.removeprefix('bundled:')}.hdf5"
            path = stack.enter_context(importlib.resources.as_file(member))
        else:
            path = Path(source)
        if not path.is_file():
            raise DataError(
                "no such file", file=source, cure="give the path of a .hdf5 or .npz file, or bundled:NAME"
            )
        readers = {".hdf5": _read_hdf5, ".h5": _read_hdf5, ".npz": _read_npz}
        if path.suffix.lower() not in readers:
            raise DataError(
                f"unknown kind of file '{path.suffix}'", file=source, cure="give a .hdf5 or .npz file"
            )
        try:
            return readers[path.suffix.lower()](path, source, task, storage)
        except DataError:
            raise
        except UNREADABLE as error:
            raise DataError(
                f"cannot be read ({type(error).__name__}: {error})",
                file=source,
                cure="the file is damaged or cut short, or no dataset; fetch it again",
            ) from error


def making(source: str) -> dict[str, str]:
    """What an HDF5 file at ``source`` says of how it was made: D4RL's own say nothing."""
    if Path(source).suffix.lower() not in (".hdf5", ".h5"):
        return {}
    import h5py

    with h5py.File(source, "r") as file:
        return {name: str(file.attrs[name]) for name in MAKING if name in file.attrs}


def _read_hdf5(path: Path, source: str, task: str | None, storage: Storage | None) -> Episodes:
    import h5py

    def entry(file: h5py.File, key: str) -> Entry:
        cure = "copy the data itself into the file"
        if not isinstance(file.get(key, getlink=True), h5py.HardLink):
            raise DataError("is a link to elsewhere", file=source, key=key, cure=cure)
        dataset = file[key]
        if not isinstance(dataset, h5py.Dataset):
            raise DataError(
                "is not an array", file=source, key=key, cure="store the arrays at the top of the file"
            )
        if dataset.is_virtual or dataset.external:
            raise DataError("keeps its values in another file", file=source, key=key, cure=cure)
        # A chunk is unpacked whole, so its declared size counts too.
        chunk = math.prod(dataset.chunks or (1,)) * dataset.dtype.itemsize
        _require_size(path, chunk, dataset.chunks or (1,), source, key)
        return Entry(dataset.shape or (), dataset.dtype, lambda rows: np.asarray(dataset[rows]))

    with h5py.File(path, "r") as file:
        entries = {key: entry(file, key) for key in (*NEEDED, *OPTIONAL) if key in file}
        own = file.attrs.get("task")
        return _episodes(entries, path, source, task or (own if isinstance(own, str) else None), storage)


def _read_npz(path: Path, source: str, task: str | None, storage: Storage | None) -> Episodes:
    def entry(archive: zipfile.ZipFile, key: str) -> Entry:
        with archive.open(f"{key}.npy") as member:
            version = np.lib.format.read_magic(member)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = header(member)

        @cache  # a packed array can only be read from its start
        def whole() -> npt.NDArray[Any]:
            with archive.open(f"{key}.npy") as member:
                return np.asarray(np.lib.format.read_array(member, allow_pickle=False))

        return Entry(shape, dtype, lambda rows: whole()[rows])

    with zipfile.ZipFile(path) as archive:
        present = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
        entries = {key: entry(archive, key) for key in (*NEEDED, *OPTIONAL) if key in present}
        return _episodes(entries, path, source, task, storage)


def _require_size(path: Path, size: int, shape: tuple[int, ...], source: str, key: str) -> None:
    if size > max(SIZE_FREE, DEFLATE_LIMIT * path.stat().st_size):
        message = (
            f"claims shape {shape}, {size:,} bytes, which a file of {path.stat().st_size:,} bytes cannot hold"
        )
        raise DataError(message, file=source, key=key, cure="the file is damaged; fetch it again")


def _require_shapes(entries: Mapping[str, Entry], path: Path, source: str) -> None:
    """Refuse by shape and type, before anything is read."""
    for key in NEEDED:
        if key not in entries:
            raise DataError("is missing", file=source, key=key, cure=f"a dataset has {', '.join(NEEDED)}")
    if "terminals" not in entries and "lengths" not in entries:
        cure = "store where the task ended (all 0 if it never does), or lengths of the episodes"
        raise DataError("is missing", file=source, key="terminals", cure=cure)
    rows = (entries["observations"].shape or (0,))[0]
    for key, (shape, dtype, _) in entries.items():
        ranks = 2 if key in MATRICES else 1
        want = (
            f"({'E' if key in ('lengths', 'final_observations') else rows}{', size' if ranks == 2 else ','})"
        )
        if len(shape) != ranks or (key not in ("lengths", "final_observations") and shape[0] != rows):
            raise DataError(f"has shape {shape}, expected {want}", file=source, key=key, cure="reshape it")
        if dtype.kind not in "biuf":
            raise DataError(f"holds {dtype}, not numbers", file=source, key=key, cure="store it as float32")
        if 0 in shape:
            raise DataError(
                f"zero episodes (shape {shape})", file=source, key=key, cure="record at least one step"
            )
        _require_size(path, math.prod(shape) * max(dtype.itemsize, 4), shape, source, key)
    for key in ("next_observations", "final_observations"):
        size = entries["observations"].shape[1]
        if key in entries and entries[key].shape[1] != size:
            message = f"has {entries[key].shape[1]} dimensions, observations have {size}"
            raise DataError(message, file=source, key=key, cure="store both with the same dimensions")


def _numbers(entries: Mapping[str, Entry], key: str, source: str, disk: Path | None) -> FloatArray:
    shape, _, read = entries[key]
    found = column(shape, np.float32, disk)
    first, count = None, 0
    for piece in pieces(shape[0]):
        raw = read(piece)
        with np.errstate(over="ignore"):  # too large for float32 becomes Inf and is refused below
            found[piece] = raw
        bad = ~np.isfinite(found[piece])
        if bad.any():
            row, *dimension = (int(i) for i in np.argwhere(bad)[0])
            first = first or (piece.start + row, dimension, raw[(row, *dimension)])
            count += int(bad.reshape(len(raw), -1).any(1).sum())
    if first:
        row, dimension, value = first
        where = f"dimension {dimension[0]} is" if dimension else "is"
        message = f"{where} {value} ({count} rows of {len(found)} are not finite in float32)"
        raise DataError(message, file=source, key=key, row=row, cure="drop or mend the episode that holds it")
    return found


def _flags(entries: Mapping[str, Entry], key: str, rows: int, source: str) -> BoolArray:
    if key not in entries:
        return np.zeros(rows, np.bool_)
    flags = entries[key].read(EVERY)
    bad = (flags != 0) & (flags != 1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"is {flags[row]}, not 0 or 1", file=source, key=key, row=row, cure="store flags")
    return flags.astype(np.bool_)


def _lengths(lengths: npt.NDArray[Any], rows: int, source: str) -> IntArray:
    if (
        lengths.dtype.kind not in "iu"
        or (lengths < 1).any()
        or (lengths > rows).any()
        or lengths.sum() != rows
    ):
        message = f"are not whole numbers of at least 1 that add up to {rows} rows"
        raise DataError(message, file=source, key="lengths", cure="store the number of steps of each episode")
    return lengths.astype(np.int64)


def _episodes(
    entries: Mapping[str, Entry], path: Path, source: str, task: str | None, storage: Storage | None
) -> Episodes:
    """Read what ``entries`` name and cut the rows into episodes by the rules at the top of this file."""
    _require_shapes(entries, path, source)
    rows = entries["observations"].shape[0]
    disk = storage and storage.of(rows)
    values = {key: _numbers(entries, key, source, disk) for key in (*NEEDED, *MATRICES) if key in entries}
    observations = values["observations"]
    terminated, timeouts = (_flags(entries, key, rows, source) for key in ("terminals", "timeouts"))
    marked = terminated | timeouts
    if "lengths" in entries:
        marked[np.cumsum(_lengths(entries["lengths"].read(EVERY), rows, source)) - 1] = True
    ends, remarks = marked.copy(), []
    if "next_observations" in values:
        for piece in pieces(rows - 1):
            differs = observations[1:][piece] != values["next_observations"][:-1][piece]
            ends[:-1][piece] |= differs.any(1)
    ends[-1] = True
    unmarked = np.flatnonzero(ends & ~marked)
    if len(unmarked):
        remarks.append(
            f"{len(unmarked)} of {int(ends.sum())} episode ends are not marked in the file and were taken as "
            f"truncations, the first at row {unmarked[0]}"
        )
    elif "timeouts" not in entries and "lengths" not in entries and "next_observations" not in values:
        remarks.append("neither timeouts nor next_observations: only terminals tell where episodes end")

    last = np.flatnonzero(ends)
    keep, unlogged = np.ones(rows, np.bool_), None
    if "next_observations" in values:
        next_observations = values["next_observations"]
    else:
        next_observations = column(observations.shape, np.float32, disk)
        next_observations[:-1] = observations[1:]
        if "final_observations" in values:
            if len(values["final_observations"]) != len(last):
                message = f"has {len(values['final_observations'])} rows for {len(last)} episodes"
                raise DataError(
                    message, file=source, key="final_observations", cure="store one row an episode"
                )
            next_observations[last] = values["final_observations"]
        else:
            next_observations[last] = observations[last]
            keep = ~ends | terminated
            unlogged = ends & terminated
            lost, unknown = int((~keep).sum()), int(unlogged.sum())
            remarks.append(
                f"no next_observations: {lost} truncated episodes lose their last step"
                + (f", and nothing is known of what followed {unknown} terminations" if unknown else "")
            )
            # The step before a dropped one now ends its episode. (One-step episodes vanish.)
            ends = (ends & keep) | np.append(~keep[1:], False)
    if not keep.any():
        raise DataError(
            "zero episodes of more than one step", file=source, cure="store next_observations as well"
        )

    def kept(values: FloatArray) -> FloatArray:
        if keep.all():
            return values
        found = column((int(keep.sum()), *values.shape[1:]), np.float32, disk)
        ahead = np.concatenate([[0], np.cumsum(keep)])
        for piece in pieces(rows):
            found[ahead[piece.start] : ahead[piece.stop]] = values[piece][keep[piece]]
        return found

    ends = ends[keep]
    terminated = terminated[keep]
    return Episodes(
        observations=kept(observations),
        actions=kept(values["actions"]),
        rewards=kept(values["rewards"]),
        next_observations=kept(next_observations),
        terminated=terminated,
        truncated=(ends & ~terminated) | timeouts[keep],
        starts=np.concatenate([[0], np.flatnonzero(ends) + 1]).astype(np.int64),
        source=source,
        task=task,
        unlogged_next=None if unlogged is None else unlogged[keep],
        remarks=tuple(remarks),
        disk=disk,
    )
