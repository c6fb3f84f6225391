"""Columns with a row a step: in memory, or in an unnamed file on disk for sets that do not fit."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

PIECE = 2**18
"""Rows that are worked on at once where a whole column may not fit into memory."""


class Storage(NamedTuple):
    """Where the columns of large sets go."""

    folder: Path
    above_steps: int
    """Sets of more steps are kept on disk."""

    def of(self, steps: int) -> Path | None:
        """The folder for a set of so many steps; None where it stays in memory."""
        return self.folder if steps > self.above_steps else None


def column(
    shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32, disk: Path | None = None
) -> npt.NDArray[Any]:
    """Zeros in memory, or, where ``disk`` names a folder, mapped from a file there.

    The file has no name, so that nothing is left of it once the array is gone or the process is dead.
    Raises OSError where the disk is full or the folder cannot be written to.
    """
    if disk is None:
        return np.zeros(shape, dtype)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    with tempfile.TemporaryFile(dir=disk) as file:
        _reserve(file.fileno(), max(size, 1))
        pages = mmap.mmap(file.fileno(), max(size, 1))
    _mapped.add(pages)
    return np.ndarray(shape, dtype, buffer=pages)


def _reserve(file: int, size: int) -> None:
    """A full disk is an OSError now; a write to a page that has no place on it would kill the process."""
    try:
        os.posix_fallocate(file, 0, size)
    except AttributeError:  # not on every system
        os.ftruncate(file, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not on every disk
            raise
        os.ftruncate(file, size)


_mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def release() -> None:
    """Let go of what was read or written of columns on disk; until then it counts as memory in use."""
    for pages in list(_mapped):
        if hasattr(mmap, "MADV_DONTNEED"):  # elsewhere the system takes pages back when it must
            pages.madvise(mmap.MADV_DONTNEED)


def pieces(rows: int) -> Iterator[slice]:
    """Slices of at most ``PIECE`` rows that together are all ``rows``; after each, ``release``."""
    for start in range(0, rows, PIECE):
        yield slice(start, min(start + PIECE, rows))
        release()


def moments(
    values: npt.NDArray[Any], less: npt.NDArray[Any] | None = None, rows: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each dimension of ``values`` (steps, size), minus ``less`` if given.

    Over ``rows`` alone where they are given.
    """
    count = len(values) if rows is None else len(rows)

    def part(piece: slice) -> npt.NDArray[np.float64]:
        at = piece if rows is None else rows[piece]
        found = values[at].astype(np.float64)
        return found if less is None else found - less[at]

    def total(of: Iterator[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        return np.sum([array.sum(axis=0) for array in of], axis=0) / count

    mean = total(part(piece) for piece in pieces(count))
    return mean, np.sqrt(total((part(piece) - mean) ** 2 for piece in pieces(count)))
