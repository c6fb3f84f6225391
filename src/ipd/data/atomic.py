"""Files and folders that are either whole or not there: temporary name, fsync, rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"
"""Suffix of what is being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for a file or a folder; left without an error it is synced and renamed.

    A file takes the place of an older one; a folder's name must be free. What a killed process left
    under the temporary path is deleted first.
    """
    partial = path.with_name(path.name + PARTIAL)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(partial)
    try:
        yield partial
        for written in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
            sync(written)
        partial.replace(path)
    finally:
        remove(partial)
    sync(path.parent)


def remove(path: Path) -> None:
    """Deletes a file, or a folder with all that is in it; nothing where there is neither."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Makes a file durable, or in a folder names, renames and deletions."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
