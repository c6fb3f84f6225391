"""A log as an HDF5 file with D4RL's keys, and where it came from as attributes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ipd.collect.recording import Log
from ipd.runs import files
from ipd.runs.errors import InputError

KEYS = {
    "observations": "observation",
    "actions": "action",
    "rewards": "reward",
    "next_observations": "next_observation",
    "terminals": "terminated",
    "timeouts": "truncated",
}
"""D4RL's key -> field of the log."""


def write(path: Path, flat: Log, attributes: dict[str, Any]) -> None:
    """Writes the file whole or not at all; ``flat`` is (rows,), episodes one after another."""
    with files.replacing(path) as partial, h5py.File(partial, "w", track_order=True) as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        for key, field in KEYS.items():
            array = np.ascontiguousarray(flat[field])
            # One chunk a column: bytes of one quantity pack best together.
            chunks = (len(array), *(1 for _ in array.shape[1:]))
            file.create_dataset(key, data=array, chunks=chunks, compression="gzip", shuffle=True)


def require_same(path: Path, settings: dict[str, Any]) -> None:
    """``InputError`` where the file at ``path`` was not made by this command with these settings."""
    cure = "choose another --out"
    try:
        with h5py.File(path, "r") as file:
            old = json.loads(str(file.attrs["settings"]))
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: exists and was not made by ipd collect ({error}); {cure}") from error
    refuse_other(path, old, settings, cure)


def steps_short_of_the_score(path: Path) -> int | None:
    """The training steps that were not enough for the file at ``path``; None where they were."""
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("medium_reached", True):
                return None
            return int(json.loads(str(file.attrs["settings"]))["training_steps"])
    except (OSError, KeyError, ValueError):  # not a file of this command, which is told elsewhere
        return None


def refuse_other(path: Path, old: dict[str, Any], new: dict[str, Any], cure: str) -> None:
    """``InputError`` that names the settings that differ."""
    changed = [f"{name}: {old.get(name)} -> {new[name]}" for name in new if old.get(name) != new[name]]
    if changed:
        raise InputError(f"{path}: holds other settings ({'; '.join(changed[:4])}); {cure}")
