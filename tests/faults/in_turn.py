"""One fault after another: at every place of writing a run's files, each process stopped at the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .conftest import OPTIONS

UNEQUAL = {"timing.jsonl", "lock"}
"""Clock times, and a file that is only there to be locked."""
LONG = os.environ.get("IPD_FAULTS") == "long"
INJECTED = Path(__file__).with_name("injected.py")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in UNEQUAL)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def train(small: Path, out: Path, more: list[str]) -> list[str]:
    return ["train", "--data", str(small), "--out", str(out), *OPTIONS, *more]


def same(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []


def faults_in_turn(
    kind: str,
    every: int,
    expect: Callable[[str, subprocess.CompletedProcess[str]], None],
    small: Path,
    finished: Path,
    tmp_path: Path,
) -> list[str]:
    """Runs the command until no fault is left; its files are those of an undisturbed run then.

    One in `every` places of writing has a fault, after which `expect` is told of the place and of how the
    process ended. Returns the places.
    """
    # a run's folder is named in its page
    out, seen = tmp_path / finished.name, tmp_path / "seen"
    command = [sys.executable, INJECTED, out, seen, kind, every, *train(small, out, [])]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    before = 0
    for _ in range(1_000):
        ended = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
        points = seen.read_text().splitlines() if seen.exists() else []
        if len(points) == before:
            break
        before = len(points)  # on the way out of one fault there may be another
        expect(points[-1], ended)
    assert ended.returncode == 0, ended.stderr
    same(contents(finished), contents(out))
    return points
