"""Stopped anywhere, the same command again ends with the files of a run that was never stopped.

`make test` does a short form of this; `make faults` the long one (IPD_FAULTS=long).
"""

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
TWICE = {"augment", "policy"}
"""Stages that are also asked to stop."""
LONG = os.environ.get("IPD_FAULTS") == "long"
INJECTED = Path(__file__).with_name("injected.py")


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


def works(stage: str, out: Path, how: signal.Signals) -> bool:
    """Whether a stage is at work; what an earlier process left does not count where the signal is heard."""
    if how == signal.SIGKILL:
        return bool(list(out.glob(MOMENTS[stage])))
    said = out.with_suffix(".stderr").read_text().splitlines()
    return any(line.startswith(f"{stage}: ") and "done before" not in line for line in said)


def stop_in(
    stage: str, small: Path, out: Path, delay: float, more: list[str], how: signal.Signals = signal.SIGKILL
) -> bool:
    """Whether the stage was still unfinished when its process ended."""
    child = start(small, out, more)
    deadline = time.monotonic() + 240
    try:
        while not works(stage, out, how):
            assert child.poll() is None, out.with_suffix(".stderr").read_text()
            assert time.monotonic() < deadline, f"{stage} never began"
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        child.send_signal(how)
        code = child.wait(60)
    within = not (out / "stages" / stage / "done.json").exists()
    if how == signal.SIGTERM:
        assert code == 0, out.with_suffix(".stderr").read_text()
        if within:
            said = out.with_suffix(".stderr").read_text().splitlines()[-1]
            assert "stopped (SIGTERM); what was done is saved" in said
    return within


def same(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []


@pytest.mark.parametrize("round_", range(17 if LONG else 1))
def test_stopped_in_every_stage_ends_as_if_never_stopped(
    round_: int, small: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    draw = random.Random()
    out = tmp_path / "finished-run"
    within = [
        stop_in(stage, small, out, draw.uniform(0, 0.3), [], how)
        for stage in MOMENTS
        for how in ((signal.SIGKILL, signal.SIGTERM) if stage in TWICE else (signal.SIGKILL,))
    ]
    assert main(train(small, out, [])) == 0
    finished: Path = request.getfixturevalue("finished")  # only now: another worker may be making it
    same(contents(finished), contents(out))
    print(f"{len(within)} stops, {sum(within)} within the stage that was aimed at")
    assert sum(within) >= 4, f"most came too late to test anything: {within}"


@pytest.mark.parametrize(("kind", "code", "every"), [("kill", -signal.SIGKILL, 80), ("full", 1, 60)])
def test_fault_at_every_write_ends_as_if_there_was_none(
    kind: str, code: int, every: int, small: Path, finished: Path, tmp_path: Path
) -> None:
    # a run's folder is named in its page
    out, seen = tmp_path / finished.name, tmp_path / "seen"
    command = [sys.executable, INJECTED, out, seen, kind, 1 if LONG else every, *train(small, out, [])]
    environment = os.environ | {"XDG_CACHE_HOME": str(CACHE), "JAX_PLATFORMS": "cpu"}
    before = 0
    for _ in range(1_000):
        ended = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
        points = seen.read_text().splitlines() if seen.exists() else []
        if len(points) == before:
            break
        before = len(points)  # on the way out of one fault there may be another
        assert ended.returncode == code, f"{points[-1]}: {ended.returncode}\n{ended.stderr[-3000:]}"
        if kind == "full":
            last = ended.stderr.splitlines()[-1]
            assert "No space left on device" in last and "Traceback" not in ended.stderr, (points[-1], last)
            assert ("is whole as far as it was saved" in last) or not (out / "lock").exists(), points[-1]
    assert ended.returncode == 0, ended.stderr
    same(contents(finished), contents(out))
    print(f"{len(points)} points, kind {kind}")
    assert len(points) >= (100 if LONG else 1)


STREAMED = [f"--stream.{name}-steps={steps}" for name, steps in
            {"above": 100, "window": 512, "block": 64}.items()]  # fmt: skip


def test_streamed_run_killed_ends_as_if_never_killed(small: Path, tmp_path: Path) -> None:
    draw, out = random.Random(), tmp_path / "killed" / "run"
    out.parent.mkdir()
    for stage in ("value", "world", "refit", "policy") if LONG else ("policy",):
        stop_in(stage, small, out, draw.uniform(0, 0.2), STREAMED)
        assert {path.name for path in out.parent.iterdir()} == {"run", "run.stderr"}  # columns have no name
    assert main(train(small, out, STREAMED)) == 0
    whole = tmp_path / "whole" / "run"
    assert main(train(small, whole, STREAMED)) == 0
    same(contents(whole), contents(out))


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
