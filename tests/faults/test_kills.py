"""SIGKILL in every stage: the same command again ends with the files of a run that was never killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipd.cli import main

from .conftest import CACHE, OPTIONS

UNEQUAL = {"timing.jsonl", "lock"}
"""Clock times, and a file that is only there to be locked."""
MOMENTS = {
    "value": "stages/value/step-*.json",
    "world": "stages/world/step-*.json",
    "augment": "augmented.hdf5.partial",
    "refit": "stages/refit/step-*.json",
    "policy": "stages/policy/step-*.json",
    "evaluate": "evaluations.csv",
    "audit": "stages/audit",
}
"""Stage -> what is there once it works."""


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in UNEQUAL)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def train(small: Path, out: Path, more: list[str]) -> list[str]:
    return ["train", "--data", str(small), "--out", str(out), *OPTIONS, *more]


def start(small: Path, out: Path, more: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ipd", *train(small, out, more)]
    environment = os.environ | {"XDG_CACHE_HOME": str(CACHE), "JAX_PLATFORMS": "cpu"}
    with out.with_suffix(".stderr").open("wb") as said:
        return subprocess.Popen(command, env=environment, stderr=said, stdout=subprocess.DEVNULL)


def kill_in(stage: str, small: Path, out: Path, delay: float, more: list[str]) -> bool:
    """Whether the stage was still unfinished when its process died."""
    child = start(small, out, more)
    deadline = time.monotonic() + 120
    try:
        while not list(out.glob(MOMENTS[stage])):
            assert child.poll() is None, out.with_suffix(".stderr").read_text()
            assert time.monotonic() < deadline, f"{stage} never began"
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    return not (out / "stages" / stage / "done.json").exists()


def test_killed_in_every_stage_ends_as_if_never_killed(
    small: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    draw = random.Random()
    out = tmp_path / "finished-run"
    within = {stage: kill_in(stage, small, out, draw.uniform(0, 0.2), []) for stage in MOMENTS}
    assert main(train(small, out, [])) == 0
    finished: Path = request.getfixturevalue("finished")  # only now: another worker may be making it
    before, after = contents(finished), contents(out)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []
    assert sum(within.values()) >= 3, f"most kills came too late to test anything: {within}"


STREAMED = [f"--stream.{name}-steps={steps}" for name, steps in
            {"above": 100, "window": 512, "block": 64}.items()]  # fmt: skip


def test_streamed_run_killed_ends_as_if_never_killed(small: Path, tmp_path: Path) -> None:
    draw, out = random.Random(), tmp_path / "killed" / "run"
    out.parent.mkdir()
    for stage in ("value", "world", "refit", "policy"):
        kill_in(stage, small, out, draw.uniform(0, 0.2), STREAMED)
        assert {path.name for path in out.parent.iterdir()} == {"run", "run.stderr"}  # columns have no name
    assert main(train(small, out, STREAMED)) == 0
    whole = tmp_path / "whole" / "run"
    assert main(train(small, whole, STREAMED)) == 0
    before, after = contents(whole), contents(out)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []


def test_second_process_is_refused(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    child = start(small, out, [])
    try:
        while not (out / "config.yaml").exists():
            assert child.poll() is None, out.with_suffix(".stderr").read_text()
            time.sleep(0.01)
        assert main(train(small, out, [])) == 2
    finally:
        child.kill()
        child.wait()
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(out) in last and "another process" in last
