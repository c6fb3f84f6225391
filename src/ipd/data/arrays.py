"""Readers of files that hold one array a key: D4RL HDF5 and plain ``.npz``."""

from __future__ import annotations

import json
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipd.data.assembly import NEEDED, OPTIONAL, Entry, Found, require_size
from ipd.data.columns import Storage
from ipd.data.episodes import DataError, Episodes
from ipd.data.hdf5 import array

NAMES = ("observation_names", "action_names")
"""Attributes of an HDF5 file: JSON lists of text."""


def read_hdf5(path: Path, source: str, task: str | None, storage: Storage | None) -> Episodes:
    """A D4RL file; its attributes ``task``, ``observation_names`` and ``action_names`` (JSON lists) count."""
    import h5py

    def entry(file: h5py.File, key: str) -> Entry:
        dataset = array(file, key, source)
        return Entry(dataset.shape or (), dataset.dtype, lambda rows: np.asarray(dataset[rows]))

    with h5py.File(path, "r") as file:
        entries = {key: entry(file, key) for key in (*NEEDED, *OPTIONAL) if key in file}
        task = task or recorded_hdf5(file)
        named, named_actions = (_names(file, key, source) for key in NAMES)
        found = Found(entries, source, task, path.stat().st_size, named, named_actions)
        return Episodes.from_found(found, storage)


def recorded_hdf5(file: Any) -> str | None:
    """The task that an open file names."""
    own = file.attrs.get("task")
    return own if isinstance(own, str) else None


def read_npz(path: Path, source: str, task: str | None, storage: Storage | None) -> Episodes:
    """An archive of arrays under D4RL's keys."""

    stored = path.stat().st_size

    def entry(archive: zipfile.ZipFile, key: str) -> Entry:
        # a header may claim any length, and no more than this is unpacked
        size = archive.getinfo(f"{key}.npy").file_size
        require_size(stored, size, (size,), source, key)
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
        return Episodes.from_found(Found(entries, source, task, stored), storage)


def _names(file: Any, key: str, source: str) -> list[str]:
    text = file.attrs.get(key, "[]")
    try:
        names = json.loads(text)
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names
    except (TypeError, ValueError, RecursionError):
        pass
    raise DataError(f"is {text!r}, no JSON list of names", file=source, key=key, cure="mend the attribute")
