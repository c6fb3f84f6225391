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
from typing import NamedTuple

import pytest

from ipd.cli import main

from .conftest import Figure
from .in_turn import LONG, contents, faults_in_turn, same, train

MOMENTS = {
    "value": "stages/value/step-*.json",
    "world": "stages/world/step-*.json",
    "cloning": "stages/cloning/step-*.json",
    "augment": "augmented.hdf5.partial",
    "view": "stages/view",
    "refit": "stages/refit/step-*.json",
    "policy": "stages/policy/step-*.json",
    "evaluate": "stages/evaluate",
    "audit": "stages/audit",
    "report": "stages/audit/done.json",
}
"""Stage -> what is there once it works."""
TWICE = ("augment", "policy")
"""Stages that are also asked to stop."""
SHORT = ("value", "augment", "policy", "audit", "report")
"""Stages that are stopped in the short form; the long one stops in each twice."""


def start(small: Path, out: Path, more: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ipd", *train(small, out, more)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with out.with_suffix(".stderr").open("wb") as said:
        return subprocess.Popen(command, env=environment, stderr=said, stdout=subprocess.DEVNULL)


class Stop(NamedTuple):
    """How a process was stopped."""

    aimed: str
    """The stage."""
    how: signal.Signals
    killed: bool
    """By SIGKILL, while it still ran."""
    within: bool
    """Before the stage was finished."""
    seconds: float
    """From the signal to the end."""


def made(stage: str, out: Path) -> Path:
    """The last file of a stage."""
    return out / "report.html" if stage == "report" else out / "stages" / stage / "done.json"


def works(stage: str, out: Path, again: bool) -> bool:
    """Whether a stage is at work; what an earlier process left does not count where it was stopped there."""
    if not again:
        return bool(list(out.glob(MOMENTS[stage])))
    said = out.with_suffix(".stderr").read_text().splitlines()
    before = {"view": "augment", "report": "audit"}.get(stage)  # they say nothing themselves
    if before is not None:
        return f"{before}: done before" in said
    return any(line.startswith(f"{stage}: ") and "done before" not in line for line in said)


def stop_in(
    stage: str,
    small: Path,
    out: Path,
    delay: float,
    more: list[str],
    how: signal.Signals = signal.SIGKILL,
    again: bool = False,
) -> Stop:
    """Starts the command, and stops it some time after a stage began."""
    again = again or works(stage, out, again=False)  # a kill that came late left it there
    child = start(small, out, more)
    deadline = time.monotonic() + 240
    try:
        while not works(stage, out, again):
            assert child.poll() is None, out.with_suffix(".stderr").read_text()
            assert time.monotonic() < deadline, f"{stage} never began"
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        sent = time.monotonic()
        child.send_signal(how)
        code = child.wait(60)
    seconds = time.monotonic() - sent
    stop = Stop(stage, how, code == -signal.SIGKILL, not made(stage, out).exists(), seconds)
    if how == signal.SIGTERM:
        assert code == 0, out.with_suffix(".stderr").read_text()
        if stop.within:
            said = out.with_suffix(".stderr").read_text().splitlines()[-1]
            assert "stopped (SIGTERM); what was done is saved" in said
    return stop


@pytest.mark.parametrize("round_", range(12 if LONG else 1))
def test_stopped_in_every_stage_ends_as_if_never_stopped(
    round_: int, small: Path, tmp_path: Path, request: pytest.FixtureRequest, figure: Figure
) -> None:
    draw = random.Random()
    out = tmp_path / "finished-run"
    stops: list[Stop] = []
    for stage in MOMENTS if LONG else SHORT:
        stops.append(stop_in(stage, small, out, draw.uniform(0, 0.3), []))
        for how in [signal.SIGKILL] * LONG + [signal.SIGTERM] * (stage in TWICE):
            if not made(stage, out).exists():
                stops.append(stop_in(stage, small, out, draw.uniform(0, 0.5), [], how, again=True))
    assert main(train(small, out, [])) == 0
    finished: Path = request.getfixturevalue("finished")  # only now: another worker may be making it
    same(contents(finished), contents(out))
    asked = [stop for stop in stops if stop.how == signal.SIGTERM]
    figure("killed at random instants", sum(stop.killed for stop in stops))
    figure(
        "killed at random instants, within the stage aimed at",
        sum(stop.killed and stop.within for stop in stops),
    )
    figure("asked to stop by SIGTERM", len(asked))
    figure("seconds from SIGTERM to the end, most", max((stop.seconds for stop in asked), default=0.0))
    assert sum(stop.within for stop in stops) >= 3, f"most came too late to test anything: {stops}"
    assert not LONG or all(stop.seconds < 5 for stop in asked), asked


def test_killed_at_every_write_ends_as_if_never_killed(
    small: Path, finished: Path, tmp_path: Path, figure: Figure
) -> None:
    def killed(place: str, ended: subprocess.CompletedProcess[str]) -> None:
        assert ended.returncode == -signal.SIGKILL, f"{place}: {ended.returncode}\n{ended.stderr[-3000:]}"

    places = faults_in_turn("kill", 1 if LONG else 80, killed, small, finished, tmp_path)
    figure("places of writing killed at", len(places))
    assert len(places) >= (100 if LONG else 1)


STREAMED = [f"--stream.{name}-steps={steps}" for name, steps in
            {"above": 100, "window": 512, "block": 64}.items()]  # fmt: skip


def test_streamed_run_killed_ends_as_if_never_killed(small: Path, tmp_path: Path, figure: Figure) -> None:
    draw, out = random.Random(), tmp_path / "killed" / "run"
    out.parent.mkdir()
    more = STREAMED if LONG else [*STREAMED, "--until", "world"]
    for stage in ("value", "world", "refit", "policy") if LONG else ("world",):
        stop = stop_in(stage, small, out, draw.uniform(0, 0.2), more)
        figure("killed at random instants", stop.killed)
        figure("killed at random instants, within the stage aimed at", stop.killed and stop.within)
        assert {path.name for path in out.parent.iterdir()} == {"run", "run.stderr"}  # columns have no name
    assert main(train(small, out, more)) == 0
    whole = tmp_path / "whole" / "run"
    assert main(train(small, whole, more)) == 0
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
