"""A small real dataset, and one undisturbed run of it that every test here compares with."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import jax
import pytest

from ipd.cli import main

OPTIONS = ["--env", "Hopper-v4", "--preset", "tiny", "--seeds", "2", "--checkpoint-seconds", "0"]
OPTIONS += ["--value.steps", "300", "--world.steps", "300", "--policy.steps", "300"]
CACHE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "xdg"


@pytest.fixture(autouse=True)
def cache_of_tests() -> Iterator[None]:
    """Compiled programs are kept with the tests, not in the user's cache folder."""
    before = os.environ.get("XDG_CACHE_HOME"), jax.config.values["jax_compilation_cache_dir"]
    os.environ["XDG_CACHE_HOME"] = str(CACHE)
    yield
    os.environ.pop("XDG_CACHE_HOME") if before[0] is None else os.environ.update(XDG_CACHE_HOME=before[0])
    jax.config.update("jax_compilation_cache_dir", before[1])


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 40 episodes of the bundled Hopper data."""
    from ipd.data.sources import load

    whole = load("bundled:hopper-medium-replay")
    episodes = whole.select(range(0, whole.num_episodes, max(whole.num_episodes // 40, 1)))
    path = tmp_path_factory.mktemp("data") / "small.hdf5"
    keys = ("observations", "actions", "rewards", "next_observations")
    ends = {"terminals": episodes.terminated, "timeouts": episodes.truncated}
    write(path, {key: getattr(episodes, key) for key in keys} | ends)
    return path


def write(path: Path, arrays: dict[str, Any]) -> None:
    """D4RL keys."""
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file.create_dataset(key, data=array, track_times=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Path:
    """The undisturbed run; made once for all workers of one test session."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "finished-run"
    with (shared / "finished-run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "report.html").exists():
            shutil.rmtree(folder, ignore_errors=True)
            os.environ["XDG_CACHE_HOME"] = str(CACHE)
            assert main(["train", "--data", str(small), "--out", str(folder), *OPTIONS]) == 0
    return folder
