"""Runs and exports of every format there was: read as what they were, or refused with a way out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import ipd
from ipd.cli import main
from ipd.config import FORMAT
from ipd.export import runner
from ipd.report import compare_read, read
from ipd.runs import files, rundir
from ipd.runs.errors import InputError

from .record import HERE, TRAIN, answers, exported, observations

RUNS = sorted(path for path in HERE.glob("run-*") if path.is_dir())
EXPORTS = sorted(HERE.glob("export-*"))
REFUSED = {"run-0"}
"""Their page is written and `ipd train` goes on, but weights cannot be read: 0.1.0 kept them transposed."""


@pytest.fixture(params=RUNS, ids=lambda path: path.name)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a kept run beside its data, seen from there."""
    shutil.copy(HERE / "data.hdf5", tmp_path)
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(request.param, tmp_path / request.param.name))


def test_there_is_a_small_run_of_every_format() -> None:
    kept = {path.name: json.loads((path / "manifest.json").read_text()).get("format", 0) for path in RUNS}
    assert kept == {f"run-{number}": number for number in range(FORMAT + 1)}
    for folder in (*RUNS, *EXPORTS):
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 320_000


@pytest.mark.parametrize("run", [path for path in RUNS if path.name not in REFUSED], indirect=True)
def test_a_kept_run_says_what_it_said(run: Path) -> None:
    told = json.loads((HERE / f"{run.name}.json").read_text())
    found = answers(run)
    assert found.keys() == told.keys() and np.ptp(told["actions"], axis=0).min() > 1e-3
    for name, values in told.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("run", [path for path in RUNS if path.name in REFUSED], indirect=True)
def test_weights_of_an_older_layout_are_refused_with_the_way_out(run: Path) -> None:
    for load in (ipd.load, ipd.load_world, ipd.load_values):
        with pytest.raises(InputError, match=r"expected .*; .* run the same `ipd train` again"):
            load(run)


def test_a_kept_run_has_its_page_and_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", run.name]) == 0
    assert (run / "report.html").stat().st_size > 10_000 and "IPD" in capsys.readouterr().out
    (entry,), left_out = compare_read.read_all([run], run.parent)
    assert entry.algo == "ipd" and not left_out
    # its stages are done before, or done again where their code has changed since
    assert main([*TRAIN, "--out", run.name, "--until", "value"]) == 0
    assert re.search(r"^value: ", capsys.readouterr().err, re.MULTILINE)
    assert np.isfinite(ipd.load_values(run).v(observations())).all()
    assert main([*TRAIN, "--out", run.name, "--value.expectile", "0.6"]) == 2


def later(run: Path) -> str:
    """Makes the run one of a later version, whose settings are others too; what is said of it."""
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"format": FORMAT + 1}))
    (run / "config.yaml").write_text("everything: else\n")
    only = f"this ipd reads formats up to {FORMAT}; upgrade it"
    return f"{run.name}/manifest.json: a run of format {FORMAT + 1}, {only}"


@pytest.mark.parametrize("run", RUNS[-1:], indirect=True)
def test_a_run_of_a_later_format_is_refused_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = later(run)
    before = sorted(path.name for path in run.rglob("*"))
    commands = [["report"], ["evaluate"], ["audit"], ["judge"], ["view"], ["export"], ["render"], ["log"]]
    for command in [*([*words, run.name] for words in commands), [*TRAIN, "--out", run.name]]:
        assert main(command) == 2, command
        assert said in capsys.readouterr().err.strip().splitlines()[-1], command
    assert main([*TRAIN, "--out", "new", "--reuse", run.name]) == 2 and not Path("new").exists()
    for load in (ipd.load, ipd.load_world, ipd.load_values, rundir.read_job):
        with pytest.raises(InputError, match=re.escape(said)):
            load(run)
    with pytest.raises(read.ReportError, match=re.escape(said)):
        read.load(run)
    entries, (left_out,) = compare_read.read_all([run], run.parent)
    assert not entries and said.partition("/")[2] in left_out.reason
    assert sorted(path.name for path in run.rglob("*")) == before


@pytest.mark.parametrize("found", ["2", None, 1.5])
def test_a_format_that_is_no_number_is_refused(tmp_path: Path, found: object) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format": found}))
    with pytest.raises(InputError, match=r"manifest\.json: its format is .*, expected a whole number"):
        files.require_format(tmp_path)


@pytest.mark.parametrize("folder", EXPORTS, ids=lambda path: path.name)
def test_a_kept_export_acts_as_it_did_or_names_its_own_runner(folder: Path) -> None:
    if folder.name == f"export-{runner.FORMAT}":
        told = json.loads((folder / "actions.json").read_text())
        np.testing.assert_allclose(exported(folder), told, atol=1e-5)
    else:
        with pytest.raises(ValueError, match=r"use the runner\.py beside it"):
            runner.Runner(folder)
