"""JSON and bytes of a run, written whole or not at all (`ipd.data.atomic`)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ipd.config import format_problem
from ipd.data.atomic import PARTIAL, remove, replacing
from ipd.runs.errors import InputError

__all__ = ["PARTIAL", "digest", "read_json", "remove_partial", "replacing", "require_format", "write_bytes",
           "write_json"]  # fmt: skip


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
