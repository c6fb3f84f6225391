"""``load``: a dataset of any kind that is read, by its name, into ``Episodes``."""

from __future__ import annotations

import csv
import importlib.resources
import re
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ipd.data.arrays import read_hdf5, read_npz, recorded_hdf5
from ipd.data.columns import Storage
from ipd.data.delimited import read_csv
from ipd.data.episodes import DataError, Episodes
from ipd.data.lerobot import is_lerobot, read_lerobot
from ipd.data.minari import find_minari, is_minari, read_minari
from ipd.data.minari import recorded as recorded_minari
from ipd.data.parquet import read_parquet, recorded_parquet

MAKING = ("recipe", "maker", "note")
"""Attributes of files that were collected."""
KINDS = ".hdf5, .npz, .parquet or .csv file, a folder of Minari or LeRobot, minari:ID or bundled:NAME"
UNREADABLE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    csv.Error,
    SyntaxError,  # both of the header of an .npz
    tokenize.TokenError,
)
_OF_MODULE = re.compile(r"[A-Za-z_][\w.]*:")
"""Gymnasium imports the module before the colon: the user's to say, not a file's."""
ARRAYS = {".hdf5": read_hdf5, ".h5": read_hdf5, ".npz": read_npz}
TABLES = {".parquet": read_parquet, ".csv": read_csv}


def load(
    source: str, task: str | None = None, storage: Storage | None = None, columns: str | Path | None = None
) -> Episodes:
    """Read a dataset.

    Args:
        source: path of a D4RL ``.hdf5``, of an ``.npz`` with the same keys, of a ``.parquet`` or ``.csv``
            table, of a folder of Minari or LeRobot; or ``minari:ID``, or ``bundled:NAME``.
        task: Gymnasium id the data were recorded in; None takes the file's own word, if any.
        storage: where the columns of large sets go; None keeps every set in memory.
        columns: a YAML file that says what the columns of a table are (``columnmap``); None takes
            ``FILE.columns.yaml`` beside the table, or what the columns' names suggest.

    Raises DataError, in one line, for whatever cannot be used; nothing is unpickled, and no array is
    read whose link, type or size is not what a dataset has.
    """
    try:
        with _place(source) as path:
            found = _read(path, source, task, storage, None if columns is None else str(columns))
    except DataError:
        raise
    except UNREADABLE as error:
        raise _unreadable(source, error) from error
    if task is None and _OF_MODULE.match(found.task or ""):
        message = f"names the task {found.task}, which would import a module"
        raise DataError(message, file=source, key="task", cure="name the task yourself (--env)")
    return found


class Recorded(NamedTuple):
    """What a set says of the task that it was recorded in."""

    task: str | None = None
    options: Mapping[str, Any] = {}
    """Of ``gymnasium.make``, in JSON's types."""


def recorded(source: str) -> Recorded:
    """A set's own word, read without its steps; empty where it has none, or cannot be read."""
    try:
        with _place(source) as path:
            suffix = path.suffix.lower()
            if path.is_dir() and is_minari(path) and not is_lerobot(path):
                return Recorded(*recorded_minari(path))
            if path.is_file() and suffix == ".parquet":
                return Recorded(recorded_parquet(path, source))
            if path.is_file() and ARRAYS.get(suffix) is read_hdf5:
                import h5py

                with h5py.File(path, "r") as file:
                    return Recorded(recorded_hdf5(file))
    except UNREADABLE:  # the reader says so
        pass
    return Recorded()


@contextmanager
def _place(source: str) -> Iterator[Path]:
    """Where a set lies. Raises DataError where a name is none."""
    if source.startswith("bundled:"):
        with importlib.resources.as_file(_bundled(source)) as path:
            yield path
    else:
        yield find_minari(source) if source.startswith("minari:") else Path(source)


def _read(
    path: Path, source: str, task: str | None, storage: Storage | None, columns: str | None
) -> Episodes:
    suffix = path.suffix.lower()
    if not path.exists():
        raise DataError("no such file", file=source, cure=f"give the path of a {KINDS}")
    if not (path.is_dir() or path.is_file()):
        raise DataError("is no plain file", file=source, cure=f"give the path of a {KINDS}")
    if path.is_dir():
        if is_lerobot(path):
            return read_lerobot(path, source, task, storage, columns)
        if not is_minari(path):
            cure = "a set of Minari has data/main_data.hdf5 in it, one of LeRobot meta/info.json"
            raise DataError("no such file, but a folder without a dataset", file=source, cure=cure)
    elif suffix in TABLES:
        return TABLES[suffix](path, source, task, storage, columns)
    elif suffix not in ARRAYS:
        raise DataError(f"unknown kind of file '{path.suffix}'", file=source, cure=f"give a {KINDS}")
    if columns is not None:
        cure = "leave out the map; only .parquet, .csv and LeRobot have columns"
        raise DataError("is no table", file=source, cure=cure)
    return (read_minari if path.is_dir() else ARRAYS[suffix])(path, source, task, storage)


def _bundled(source: str) -> importlib.resources.abc.Traversable:
    folder = importlib.resources.files("ipd.data") / "bundled"
    names = sorted(
        item.name.removesuffix(".hdf5") for item in folder.iterdir() if item.name.endswith(".hdf5")
    )
    if source.removeprefix("bundled:") not in names:
        cure = "there is bundled:" + ", bundled:".join(names)
        raise DataError("no such bundled set", file=source, cure=cure)
    return folder / f"{source.removeprefix('bundled:')}.hdf5"


def making(source: str) -> dict[str, str]:
    """What an HDF5 file at ``source`` says of how it was made: D4RL's own say nothing. Raises DataError."""
    if Path(source).suffix.lower() not in (".hdf5", ".h5"):
        return {}
    import h5py

    try:
        with h5py.File(source, "r") as file:
            return {name: str(file.attrs[name]) for name in MAKING if name in file.attrs}
    except UNREADABLE as error:
        raise _unreadable(source, error) from error


def _unreadable(source: str, error: BaseException) -> DataError:
    cure = "the file is damaged or cut short, or no dataset; fetch it again"
    return DataError(f"cannot be read ({type(error).__name__}: {error})", file=source, cure=cure)
