"""What somebody changed behind the software's back: files of a finished run, or where a run lies."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipd.cli import main
from ipd.evaluation import tasks
from ipd.report import read
from ipd.runs import files, learning, rundir
from ipd.runs.errors import InputError, RunFailed
from ipd.runs.metrics import MetricsLog
from ipd.runs.opened import open_run

from .conftest import OPTIONS


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A run of one's own to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_other_units_are_noticed_where_a_run_is_opened(
    copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "normaliser.json"
    mean = files.read_object(path)["observation_mean"][0]
    change(path, repr(mean), repr(mean + 8))
    before = (copy / "evaluations.csv").read_bytes()
    for words in (["evaluate", str(copy)], ["export", str(copy), "--to", str(tmp_path / "export")]):
        assert main(words) == 2
        assert f"{path}: damaged, its sha256" in capsys.readouterr().err
    assert (copy / "evaluations.csv").read_bytes() == before and not (tmp_path / "export").exists()
    path.unlink()  # as the message says
    assert main(["train", "--data", rundir.read_job(copy).data, "--out", str(copy), *OPTIONS]) == 0
    assert "policy: done before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new"), [("\n- 0\n", "\n- 7\n"), ("discount: 0.99", "discount: 0.9"), ("Hopper-v4", "Hopper-v5")]
)
def test_settings_that_the_run_was_not_made_with_are_refused(
    old: str, new: str, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copy / "config.yaml", old, new)
    (tmp_path / "plain").mkdir()
    for words in (["evaluate", str(copy)], ["report", str(copy)], ["view", str(copy)]):
        assert main(words) == 2
        assert "not the settings that the run was made with" in capsys.readouterr().err
    assert main(["report", str(copy), str(copy), "--out", str(tmp_path / "page")]) != 0
    assert "not the settings that the run was made with" in "".join(capsys.readouterr())


def test_other_returns_are_no_result(copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy / "evaluations.csv"
    before = path.read_bytes()
    change(path, "\nipd,0,300,0,", "\nipd,0,300,0,9")
    assert main(["report", str(copy)]) == 2
    assert f"{path}: damaged, its sha256" in capsys.readouterr().err
    with pytest.raises(read.ReportError, match="damaged"):
        read.evaluations(copy)

    made = open_run(copy).made("evaluate")
    new = dataclasses.replace(open_run(copy), folder=tmp_path / "new", reuse=(copy,))
    new.keep_normaliser()

    def work() -> dict[str, Any]:
        (new.folder / "evaluations.csv").write_bytes(before)
        return {}

    assert made is not None and new.finish("evaluate", made, work) == made
    assert (tmp_path / "new" / "evaluations.csv").read_bytes() == before, "they were taken over"
    assert main(["evaluate", str(copy)]) == 0
    assert path.read_bytes() == before


def test_a_run_that_was_moved_or_deleted_writes_nothing_into_another(tmp_path: Path) -> None:
    folder, late = tmp_path / "run", tmp_path / "late"
    folder.mkdir()
    with (
        pytest.raises(RunFailed, match=r"run: was moved or deleted while it was worked on"),
        rundir.locked(folder),
    ):
        files.write_json(folder / "stages" / "value" / "done.json", {})
        folder.rename(late)
        with pytest.raises(RunFailed):
            files.write_json(folder / "manifest.json", {})
        assert not folder.exists()
        folder.mkdir()
        with rundir.locked(folder):  # another run has the name now
            pass
        MetricsLog(folder / "metrics.jsonl", (0,)).append("value", 1, {"loss": np.zeros(1)})
    assert [path.name for path in folder.iterdir()] == ["lock"]
    with rundir.locked(late):
        files.write_json(late / "manifest.json", {})


def test_a_move_while_a_file_is_written_leaves_the_other_run_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with (
        rundir.locked(folder),
        pytest.raises(RunFailed),
        files.replacing(folder / "evaluations.csv") as partial,
    ):
        folder.rename(tmp_path / "late")
        folder.mkdir()
        (folder / "evaluations.csv").write_text("of the other")
        partial.write_text("of the first")
    assert (folder / "evaluations.csv").read_text() == "of the other"
    assert [path.name for path in folder.iterdir()] == ["evaluations.csv"]


def test_what_only_reads_a_run_never_trains_it(copy: Path) -> None:
    run = open_run(copy)
    shutil.rmtree(copy / "stages" / "cloning")  # by another process, since
    with pytest.raises(InputError, match="stage cloning is not finished; run the same `ipd train` again"):
        learning.cloning(run)
    assert not (copy / "stages" / "cloning").exists()


def test_a_page_is_written_over_pages_only(
    copy: Path, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for to in (copy / "config.yaml", small, copy / "metrics.html"):
        if not to.exists():
            shutil.copyfile(copy / "metrics.jsonl", to)
        before = to.read_bytes()
        assert main(["view", str(copy), "--count", "1", "--to", str(to)]) == 2
        assert f"--to {to}: " in capsys.readouterr().err and to.read_bytes() == before
    assert main(["view", str(copy), "--count", "1", "--to", str(copy / "report.html")]) == 0
    words = ["augment", "--data", str(small), "--out", str(copy), "--to", str(copy / "new" / "more.hdf5")]
    assert main(words) == 2
    assert "lies in the run's folder" in capsys.readouterr().err


def test_a_later_trial_tells_its_own_simulator(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(stage: str) -> dict[str, str]:
        found: dict[str, str] = json.loads((copy / "stages" / stage / "summary.json").read_text())["versions"]
        return found

    was = json.loads((copy / "manifest.json").read_text())["versions"]
    assert told("evaluate") == told("audit") == {name: was[name] for name in ("gymnasium", "mujoco")}
    now, every = {"gymnasium": was["gymnasium"], "mujoco": "99.1"}, rundir.versions
    monkeypatch.setattr(tasks, "_versions", lambda robotics: now)
    monkeypatch.setattr(rundir, "versions", lambda: every() | now)
    assert main(["evaluate", str(copy), "--episodes", "1"]) == 0
    assert capsys.readouterr().err.count("note: since") == 1
    assert told("evaluate") == now and told("audit")["mujoco"] == was["mujoco"]
    said = (copy / "report.html").read_text()
    assert said.count("<dd>99.1</dd>") == 1 and said.count(f"<dd>{was['mujoco']}</dd>") == 1  # the audit's
    assert json.loads((copy / "manifest.json").read_text())["versions"] == was
