"""How long the runs of a sweep will take: what counts as timed, and what is done already."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from ipd.cli import main
from ipd.presets import override
from ipd.runs import files, plans, rundir, sweep
from ipd.runs.pace import SECONDS, START, UPDATES, Estimate, estimate, timed
from ipd.runs.suites import SUITES

HOPPER = ("hopper-medium-replay",)
WORDS = ["sweep", "table1", "--tasks", *HOPPER, "--algos", "bc", "--dry-run"]


def one(algo: str, preset: str = "cpu", seeds: int = 3) -> plans.Entry:
    (entry,) = plans.plan(SUITES["table1"].narrowed(HOPPER, (algo,)), preset, seeds, seeds).entries
    return entry


def write_times(out: Path, entry: plans.Entry, *records: tuple[str, int, int, str, float]) -> None:
    """A run that took so long, as it lies on disk; its last line was cut short when it was killed."""
    names = ("stage", "from", "to", "unit", "seconds")
    lines = [json.dumps(dict(zip(names, record, strict=True))) + "\n" for record in records]
    rundir.write_job(out / entry.key, entry.job)
    (out / entry.key / "timing.jsonl").write_text("".join(lines) + '{"stage": "clon')


def test_time_is_taken_from_runs_with_the_same_settings(tmp_path: Path) -> None:
    entry = one("bc")
    steps = entry.job.config.cloning.steps
    rough = estimate(entry, {"cloning": "new"}, timed(tmp_path), tmp_path)
    assert rough.rough == {"cloning", "evaluate"}
    assert rough.seconds == pytest.approx(START + steps / UPDATES["cloning"] + SECONDS["evaluate"])

    tiny = one("bc", "tiny")
    write_times(tmp_path, tiny, ("cloning", 0, 60, "updates", 0.1), ("evaluate", 0, 7, "episodes", 0.1))
    assert estimate(entry, {"cloning": "new"}, timed(tmp_path), tmp_path) == rough, "of other sizes"
    write_times(tmp_path, one("bc", seeds=2), ("cloning", 0, 60, "updates", 0.1))
    assert estimate(entry, {"cloning": "new"}, timed(tmp_path), tmp_path) == rough, "of fewer seeds"

    shorter = dataclasses.replace(entry.job, config=override(entry.job.config, {"cloning.steps": 60}))
    write_times(
        tmp_path,
        dataclasses.replace(entry, key="another/run/seeds-0-2", job=shorter),
        ("cloning", 0, 30, "updates", 2.0),
        ("cloning", 30, 60, "updates", 1.0),
        ("evaluate", 0, 7, "episodes", 5.0),
    )
    told = estimate(entry, {"cloning": "new"}, timed(tmp_path), tmp_path)
    assert told == Estimate(pytest.approx(START + steps / 20.0 + 5.0), frozenset())
    assert estimate(entry, {"cloning": "done"}, timed(tmp_path), tmp_path).seconds == START + 5.0
    # the same evaluation of another algorithm may take ten times as long
    assert "evaluate" in estimate(one("iql"), {"value": "new"}, timed(tmp_path), tmp_path).rough


def test_what_a_checkpoint_holds_is_done(tmp_path: Path) -> None:
    entry = one("bc")
    stage = tmp_path / "stages" / "cloning"
    whole = estimate(entry, {"cloning": "new"}, [], tmp_path).seconds
    for step in (4_000, 8_000):
        files.write_json(stage / f"step-{step}.json", {})
        (stage / f"step-{step}.safetensors").touch()
    left = estimate(entry, {"cloning": "new"}, [], tmp_path).seconds
    assert whole - left == pytest.approx(8_000 / UPDATES["cloning"])


def test_a_folder_with_another_config_is_not_called_done_and_takes_no_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = one("bc")
    folder = tmp_path / entry.key
    files.write_json(folder / "stages" / "cloning" / "done.json", {})
    rundir.write_job(folder, entry.job)
    assert sweep.status(tmp_path, entry) == {"cloning": "done"}
    assert main([*WORDS, "--out", str(tmp_path), "--preset", "tiny"]) == 0
    told = capsys.readouterr().out
    assert "other config: cloning  0.0 " in told and "1 runs, about 0.0 hours" in told
    assert "rough" not in told
    rundir.write_job(folder, one("iql").job)
    assert sweep.status(tmp_path, entry) == {"cloning": "other config"}, "nor with another algorithm"
    nowhere = dataclasses.replace(entry, job=dataclasses.replace(entry.job, task=None))
    rundir.write_job(folder, entry.job)
    assert sweep.status(tmp_path, nowhere) == {"cloning": "done"}, "the data file may name the task"
