"""A small D4RL file of three episodes whose every number is different."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

Arrays = dict[str, np.ndarray[Any, Any]]
LENGTHS = (4, 3, 5)
"""The first episode ends in a terminal, the second in a timeout, the third with the recording."""


@pytest.fixture
def arrays() -> Arrays:
    """12 steps, 3 observation and 2 action dimensions; the last step is marked as a timeout too."""
    states = np.arange(15 * 3, dtype=np.float32).reshape(15, 3)  # 5 + 4 + 6 states, one more than steps
    first = np.array([0, 5, 9])
    now = np.concatenate([start + np.arange(length) for start, length in zip(first, LENGTHS, strict=True)])
    return {
        "observations": states[now],
        "actions": np.linspace(-1, 1, 24, dtype=np.float32).reshape(12, 2),
        "rewards": np.arange(12, dtype=np.float32) + 100,
        "next_observations": states[now + 1],
        "terminals": np.isin(np.arange(12), [3]),
        "timeouts": np.isin(np.arange(12), [6, 11]),
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Arrays -> path of a new file, HDF5 unless the name says .npz."""

    def to_file(arrays: Arrays, name: str = "data.hdf5") -> str:
        path = tmp_path / name
        if path.suffix == ".npz":
            np.savez(path, **arrays)  # type: ignore[arg-type]
        else:
            with h5py.File(path, "w") as file:
                for key, array in arrays.items():
                    file[key] = array
        return str(path)

    return to_file
