"""`ipd judge` on a finished run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from ipd.cli import main

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
        for how in ("fqe", "model"):
            assert each[how]["low"] <= each[how]["mean"] <= each[how]["high"]
        if name != "behaviour":
            assert 0 <= each["model"]["reliable_share"] <= 1 and 0 <= each["model"]["length"] <= 8
            assert len(each["fqe"]["seeds"]) == 2 and math.isfinite(each["fqe"]["gain"]["mean"])
            assert each["actions"]["distance"] > 0
    out = capsys.readouterr().out
    assert told["verdict"][0] in out and "quasi_optimal_refitted" in out
    page = (copy / "report.html").read_text()
    assert "Without a simulator" in page and told["verdict"][-1] in page


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


def _refuse(*_: object) -> None:
    raise AssertionError("the task was stepped")
