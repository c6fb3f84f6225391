"""``load``: a dataset of any kind that is read, by its name, into ``Episodes``."""

from __future__ import annotations

import importlib.resources
import zipfile
from contextlib import ExitStack
from pathlib import Path

from ipd.data.arrays import read_hdf5, read_npz
from ipd.data.columns import Storage
from ipd.data.episodes import DataError, Episodes

MAKING = ("recipe", "maker", "note")
"""Attributes of files that were collected."""


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
        readers = {".hdf5": read_hdf5, ".h5": read_hdf5, ".npz": read_npz}
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
