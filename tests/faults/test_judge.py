"""`ipd judge` on a finished run."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

import ipd
from ipd.cli import main
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.rundir import read_job, write_job

from .conftest import unsign

QUICK = ["--members", "2", "--steps", "60", "--horizon", "8"]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A run of one's own to judge."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_finished_run_is_judged_without_its_task(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gymnasium.Env.step", _refuse)
    before = {path: path.read_bytes() for path in (copy / "stages").rglob("*") if path.is_file()}
    assert main(["judge", str(copy), *QUICK]) == 0
    assert all(path.read_bytes() == content for path, content in before.items())  # nothing trained anew
    told = json.loads((copy / "stages/judge/summary.json").read_text())
    assert list(told["policies"]) == [
        "behaviour",
        "cloning",
        "quasi_optimal",
        "quasi_optimal_refitted",
        "ipd",
    ]
    for name, each in told["policies"].items():
        for how in ("fqe", "logged" if name == "behaviour" else "model"):
            assert each[how]["low"] <= each[how]["mean"] <= each[how]["high"]
        if name != "behaviour":
            assert 0 <= each["model"]["reliable_share"] <= 1 and 0 <= each["model"]["length"] <= 8
            assert len(each["fqe"]["seeds"]) == 2 and math.isfinite(each["fqe"]["gain"]["mean"])
            assert each["actions"]["distance"] > 0
    assert told["policies"]["behaviour"]["logged"]["mean"] > 0
    out = capsys.readouterr().out
    assert told["verdict"][0] in out and "quasi_optimal_refitted" in out
    page = (copy / "report.html").read_text()
    assert "Without a simulator" in page and told["verdict"][-1] in page
    drawn = page.split("What the policies are worth")[1].split("</figure>")[0]
    assert drawn.count('<svg class="chart') == 2  # for a desk and for a phone
    # five policies by two estimates on each of them
    assert drawn.count('interval"') == 20 and "the data, as logged" in drawn and "in the model" in drawn


def test_a_judgement_is_made_once_and_again_with_other_settings(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", str(copy), *QUICK]) == 0
    first = (copy / "stages/judge/summary.json").read_bytes()
    assert main(["judge", str(copy), *QUICK]) == 0
    assert "judge: done before" in capsys.readouterr().err
    assert (copy / "stages/judge/summary.json").read_bytes() == first
    assert main(["judge", str(copy), *QUICK[:-1], "9"]) == 0
    assert (copy / "stages/judge/summary.json").read_bytes() != first


def test_what_cannot_be_judged_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", str(finished), "--members", "0"]) == 2
    assert "--members 0: must be at least 1" in capsys.readouterr().err
    assert main(["judge", str(tmp_path)]) == 2


def test_a_baseline_is_judged_alone_and_with_the_model_of_another_run(
    small: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, judged = tmp_path / "run", tmp_path / "run" / "stages" / "judge" / "summary.json"
    options = ["--env", "Hopper-v4", "--preset", "tiny", "--dt.steps", "12", "--evaluate.snapshots", "1"]
    options += ["--seeds", "3"]  # more than the other run has
    assert main(["train", "--data", str(small), "--algo", "dt", "--out", str(run), *options]) == 0
    assert ipd.load(run).needs_reward and not ipd.load(finished).needs_reward
    assert main(["judge", str(run), *QUICK]) == 0
    alone = json.loads(judged.read_text())
    assert list(alone["policies"]) == ["behaviour", "dt"] and "model" not in alone["policies"]["dt"]
    assert "No second estimate" in " ".join(alone["verdict"]) and "--model" in capsys.readouterr().out
    assert "in the model" not in (run / "report.html").read_text().split('id="judgement"')[1]
    assert main(["judge", str(run), *QUICK, "--model", str(finished)]) == 0
    both = json.loads(judged.read_text())["policies"]["dt"]
    assert both["fqe"] == alone["policies"]["dt"]["fqe"] and len(both["model"]["seeds"]) == 3
    assert main(["judge", str(run), *QUICK, "--model", str(run)]) == 2
    assert "has no stage value" in capsys.readouterr().err


def test_a_run_without_task_and_imagination_is_judged_by_fitted_q(
    copy: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = read_job(copy)  # what such a run has is in the finished one too
    config = dataclasses.replace(job.config, augment=dataclasses.replace(job.config.augment, enabled=False))
    write_job(copy, dataclasses.replace(job, task=None, config=config))
    assert main(["judge", str(copy), *QUICK]) == 0
    told = json.loads((copy / "stages/judge/summary.json").read_text())
    assert list(told["policies"]) == ["behaviour", "cloning", "quasi_optimal", "ipd"]
    assert not any("model" in each for each in told["policies"].values())
    assert told["rank_correlation"] is None and "No second estimate" in told["verdict"][1]
    for stage in ("value", "cloning", "policy"):
        unsign(copy, stage)
    scales = json.loads((copy / "normaliser.json").read_text())
    (copy / "normaliser.json").write_text(json.dumps(scales | {"reward_scale": 3.0}))
    assert main(["judge", str(copy), *QUICK, "--model", str(finished)]) == 2
    assert "scales observations or rewards otherwise" in capsys.readouterr().err


def _refuse(*_: object) -> None:
    raise AssertionError("the task was stepped")


def test_a_model_with_a_stopped_seed_judges_nothing(
    copy: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    CheckpointStore(copy / "stages" / "world", "f").fail({1: "tensor w is not finite at update 9"})
    assert main(["judge", str(finished), "--model", str(copy), *QUICK]) == 2
    assert "seed 1 was stopped (stage world: tensor w" in capsys.readouterr().err
