"""JSON and bytes of a run, written whole or not at all (`ipd.data.atomic`)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from ipd.config import format_problem
from ipd.data import atomic
from ipd.data.atomic import PARTIAL, remove
from ipd.data.errors import DataError
from ipd.runs.errors import InputError, RunFailed

__all__ = [
    "PARTIAL",
    "digest",
    "digest_of",
    "held",
    "read_json",
    "read_object",
    "remove_partial",
    "replacing",
    "require_format",
    "require_held",
    "write_bytes",
    "write_json",
]


_held: list[tuple[Path, int]] = []


@contextmanager
def held(folder: Path, lock: int) -> Iterator[None]:
    """What is written below `folder` is written as long as `lock`, open, is that of the lock in it."""
    entry = folder.absolute(), lock
    _held.append(entry)
    try:
        yield
    finally:
        _held.remove(entry)


def require_held(path: Path) -> None:
    """`RunFailed` where the run that `path` lies in was moved or deleted while this process works on it.

    A lock is of a file, and all that is written is of a name, which another run may have by now.
    """
    for folder, lock in _held:
        if path.absolute().is_relative_to(folder):
            there = folder / "lock"
            if not (there.exists() and os.path.samestat(there.stat(), os.fstat(lock))):
                raise RunFailed(
                    f"{folder}: was moved or deleted while it was worked on; nothing more is written; "
                    "where it lies now, the same `ipd train` goes on"
                )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """As `ipd.data.atomic.replacing`, in a run that is still where it was."""
    require_held(path)
    with atomic.replacing(path) as partial:
        yield partial
        require_held(path)


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
        if path.exists() and not path.is_file():
            raise ValueError("no plain file")
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        of_stage = path.parent.parent.name == "stages"
        cure = "delete its folder and run the same command again" if of_stage else "restore it"
        raise InputError(f"{path}: cannot be read as JSON ({error}); {cure}") from error


def read_object(path: Path) -> dict[str, Any]:
    """As `read_json`, of what must be an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds a {type(value).__name__}, no object; restore the file")
    return value


@contextmanager
def understood(folder: Path) -> Iterator[None]:
    """What cannot be made of the values in the files of a run comes out as an `InputError` that names it."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, DataError):
            raise
        raise InputError(
            f"{folder}: a file of the run does not hold what it should ({type(error).__name__}: {error}); "
            "restore it, or run the same `ipd train` again in another folder"
        ) from error


@cache
def _digest_of(path: Path, stamp: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 of a file; of a large one once a process, as long as it is not written to."""
    stat = path.stat()
    return _digest_of(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


def require_format(folder: Path) -> None:
    """`InputError` where the run in `folder` is of a format that only a later version reads."""
    path = folder / "manifest.json"
    manifest = read_json(path) if path.exists() else {}
    problem = format_problem(manifest) if isinstance(manifest, dict) else "holds no object; restore it"
    if problem:
        raise InputError(f"{path}: {problem}")


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def remove_partial(folder: Path) -> None:
    """Deletes what a killed process left half-written anywhere below `folder`."""
    for leftover in list(folder.rglob("*" + PARTIAL)):
        remove(leftover)
