"""Files that are either whole or not there: temporary file, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ipd.runs.errors import InputError

PARTIAL = ".partial"
"""Suffix of a file that is being written; a run that starts deletes what a killed one left."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on leaving without an error it is synced and takes the name."""
    partial = path.with_name(path.name + PARTIAL)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes renames and deletions in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Readable and reproducible: the same value is the same bytes. Refuses NaN and infinity."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The value in `path`; an `InputError` that names it where it is not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        cure = "delete its folder and run the same command again"
        raise InputError(f"{path}: cannot be read as JSON ({error}); {cure}") from error


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def remove_partial(folder: Path) -> None:
    """Deletes what a killed process left half-written anywhere below `folder`."""
    for leftover in folder.rglob("*" + PARTIAL):
        leftover.unlink()
