"""`ipd log`: every record once, for TensorBoard and for W&B; the run's own files are only read."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ipd.cli import main
from ipd.config import sealed
from ipd.evaluation.scores import Row, add_rows
from ipd.runs import files
from ipd.runs.dashboards import Point, copy, identity, points
from ipd.runs.metrics import MetricsLog

SEEDS = (3, 5)
COMMAND = "import sys; from ipd.cli import main; sys.exit(main(sys.argv[1:]) or 'jax' in sys.modules)"
"""Fails where the follower, which runs beside a training, loads what could take its device."""


def say(run: Path, stage: str, steps: range) -> None:
    """What the training loop appends."""
    log = MetricsLog(run / "metrics.jsonl", SEEDS)
    for step in steps:
        log.append(stage, step, {"a": np.float32([step, step + 0.5]), "b": np.float32([7 * step, -step])})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two seeds, two stages, two evaluated policies."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("algo: ipd\nvalue: {steps: 40}\n")
    (folder / "manifest.json").write_text("{}")
    say(folder, "value", range(10, 50, 10))
    say(folder, "policy", range(5, 20, 5))
    rows = [
        Row(policy, seed, 15, episode, 100.0 * seed + 10 * episode, 7, score)
        for policy, scores in (("ipd", (0.0, 1.5)), ("cloning", (None, None)))
        for seed in SEEDS for episode, score in enumerate(scores)
    ]  # fmt: skip
    add_rows(folder / "evaluations.csv", rows)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*")}


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """Tag and step -> value, of the one event file in `folder`; what is there twice is refused."""
    from tensorboardX.proto.event_pb2 import Event

    (file,) = folder.iterdir()
    content, found = file.read_bytes(), dict[tuple[str, int], float]()
    while content:  # length, its checksum, an event, its checksum
        (size,) = struct.unpack_from("<Q", content)
        event = Event.FromString(content[12 : 12 + size])
        content = content[16 + size :]
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = value.simple_value
    return found


def test_event_files_hold_every_record_once(run: Path) -> None:
    before, out = contents(run), run.parent / "tensorboard" / "mine"
    for _ in range(2):  # a second call replaces what the first wrote
        subprocess.run([sys.executable, "-c", COMMAND, "log", str(run)], check=True, capture_output=True)
    assert contents(run) == before
    for seed in SEEDS:
        expected: dict[tuple[str, int], float] = {
            ("evaluate/ipd/return", 15): 100 * seed + 5, ("evaluate/ipd/normalized", 15): 0.75,
            ("evaluate/cloning/return", 15): 100 * seed + 5,
        }  # fmt: skip
        for line in (run / "metrics.jsonl").read_text().splitlines():
            record = json.loads(line)
            if record["seed"] == seed:
                for name in ("a", "b"):
                    expected[f"{record['stage']}/{name}", record["step"]] = record[name]
        assert scalars(out / f"seed-{seed}") == pytest.approx(expected)


class Kept:
    """A writer that keeps the points."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.closed = 0

    def write(self, point: Point) -> None:
        self.points.append(point)

    def flush(self) -> None:
        """Nothing."""

    def close(self) -> None:
        self.closed += 1


def test_a_run_at_work_is_followed_over_a_resume_to_its_end(run: Path) -> None:
    (run / "evaluations.csv").unlink()
    (run / "report.html").write_text("of `--until value`, before the run went on")
    os.utime(run / "report.html", (0, 0))
    log, kept = run / "metrics.jsonl", Kept()
    told = log.read_text().splitlines()

    def half_a_line() -> None:
        with log.open("a") as file:
            file.write('{"stage": "policy", "step": 20, "se')

    def killed_and_resumed() -> None:
        assert len(kept.points) == len(told)
        MetricsLog(log, SEEDS).resume("policy", 5)
        say(run, "policy", range(10, 30, 5))

    def ends() -> None:
        (run / "report.html").write_text("all of it")

    moments = iter((half_a_line, killed_and_resumed, ends))
    assert copy(run, kept, follow=True, wait=lambda seconds: next(moments)()) == (2 * (4 + 5), 2)
    assert kept.points == list(points(run)) and kept.closed == 1
    assert not list(moments)


class FakeWandb:
    """The client and a server: `step` of a run that is taken up again is behind its last record."""

    def __init__(self) -> None:
        self.records: dict[str, dict[int, dict[str, float]]] = {}
        self.begun: list[dict[str, Any]] = []

    def init(self, **given: Any) -> SimpleNamespace:
        self.begun.append(given)
        records = self.records.setdefault(given["id"], {})

        def log(values: dict[str, float], step: int) -> None:
            assert step >= len(records), "W&B drops what goes back"
            records[step] = values

        def nothing(*words: Any, **more: Any) -> None:
            """No answer."""

        return SimpleNamespace(step=len(records), log=log, define_metric=nothing, finish=nothing)


def test_wandb_keeps_its_run_and_is_told_each_record_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (run / "evaluations.csv").rename(run / "later.csv")
    assert main(["log", str(run), "--to", "wandb"]) == 0
    (run / "later.csv").rename(run / "evaluations.csv")
    monkeypatch.setenv("WANDB_MODE", "online")
    assert main(["log", str(run), "--to", "wandb"]) == 0
    first, again = fake.begun[:2], fake.begun[2:]
    assert [each["id"] for each in first] == [each["id"] for each in again] == list(fake.records)
    assert [each["mode"] for each in fake.begun] == ["offline"] * 2 + ["online"] * 2
    assert all(each["group"] == "mine" and each["dir"] == str(run.parent) for each in fake.begun)
    for seed, records in zip(SEEDS, fake.records.values(), strict=True):
        mine = [point for point in points(run) if point.seed == seed]
        assert list(records) == list(range(4 + 3 + 2))
        for point, values in zip(mine, records.values(), strict=True):
            assert values[f"{point.place}/step"] == point.step
        assert {"value/a", "value/b", "value/step"} == records[0].keys()


def test_identity_is_the_runs_own(run: Path) -> None:
    before = identity(run)
    say(run, "policy", range(20, 30, 5))
    assert identity(run) == before
    (run / "config.yaml").write_text("algo: bc\n")
    assert identity(run) != before


def test_what_cannot_be_logged_is_refused(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def last_line(*words: str) -> str:
        assert main(["log", *words]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "no config.yaml" in last_line(str(run.parent))
    for library, to in (("tensorboardX", "tensorboard"), ("wandb", "wandb")):
        monkeypatch.setitem(sys.modules, library, None)
        assert "pip install 'ipd[" in last_line(str(run), "--to", to)
    monkeypatch.undo()
    log = run / "metrics.jsonl"
    log.write_text("[]\n" + log.read_text())
    assert "metrics.jsonl: line 1" in last_line(str(run))
    log.write_text(json.dumps({"stage": "value", "step": 2**63, "seed": 3, "a": 1.0}) + "\n")
    assert "metrics.jsonl: line 1" in last_line(str(run))
    log.unlink()
    whole = (run / "evaluations.csv").read_text()
    (run / "evaluations.csv").write_text(whole.replace(",15,", f",{2**63},"))
    assert "evaluations.csv: step 9.22e+18" in last_line(str(run))
    (run / "evaluations.csv").write_text("policy,seed\nipd,0\n")
    assert "evaluations.csv" in last_line(str(run))


def test_what_was_changed_since_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, csv, done = (
        run / "config.yaml",
        run / "evaluations.csv",
        run / "stages" / "evaluate" / "done.json",
    )
    files.write_json(done, {"fingerprint": "f", "sha256": {csv.name: files.digest_of(csv)}})
    config.write_text(sealed(config.read_text()))
    command = ["log", str(run), "--to", "tensorboard"]
    assert main(command) == 0
    whole = csv.read_text()
    csv.write_text(whole.replace("300.0", "900.0"))
    assert csv.read_text() != whole
    assert main(command) == 2
    assert "evaluations.csv: damaged" in capsys.readouterr().err
    csv.write_text(whole)
    config.write_text(config.read_text().replace("steps: 40", "steps: 41"))
    assert main(command) == 2
    assert "config.yaml: not the settings" in capsys.readouterr().err
