"""A small real dataset, and one undisturbed run of it that every test here compares with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest
from network import offline

from ipd.cli import main
from ipd.data.sources import load

OPTIONS = ["--env", "Hopper-v4", "--preset", "tiny", "--seeds", "2", "--checkpoint-seconds", "0"]
OPTIONS += [word for stage in ("value", "world", "refit", "policy") for word in (f"--{stage}.steps", "300")]
Figure = Callable[[str, float], None]
"""What was counted, and how many: `tests/faults/figures.py` makes the table of a run of the tests."""


def write(path: Path, arrays: dict[str, Any]) -> None:
    """D4RL keys."""
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, track_times=False)


def unsign(run: Path, stage: str) -> None:
    """Lets a file that a stage made be another one."""
    done = run / "stages" / stage / "done.json"
    told = json.loads(done.read_text())
    done.write_text(json.dumps({key: value for key, value in told.items() if key != "sha256"}))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Notes a figure, in the report of the tests and on the terminal."""

    def note(what: str, value: float) -> None:
        record_property(what, float(value))
        print(f"{what}: {value:.4g}")

    return note


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of one test session have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@contextlib.contextmanager
def alone(shared: Path) -> Iterator[None]:
    """One worker at a time."""
    with (shared / "fixtures.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def small(shared: Path) -> Path:
    """Some 40 episodes of the bundled Hopper data; one file, because a run keeps its name."""
    path = shared / "small.hdf5"
    with alone(shared):
        if not path.exists():
            whole = load("bundled:hopper-medium-replay")
            episodes = whole.select(range(0, whole.num_episodes, max(whole.num_episodes // 40, 1)))
            keys = ("observations", "actions", "rewards", "next_observations")
            ends = {"terminals": episodes.terminated, "timeouts": episodes.truncated}
            write(path, {key: getattr(episodes, key) for key in keys} | ends)
    return path


@pytest.fixture(scope="session")
def finished(shared: Path, small: Path) -> Path:
    """The undisturbed run; made once for all workers."""
    folder = shared / "finished-run"
    with alone(shared):
        if not (folder / "report.html").exists():
            shutil.rmtree(folder, ignore_errors=True)
            with offline():
                assert main(["train", "--data", str(small), "--out", str(folder), *OPTIONS]) == 0
    return folder
