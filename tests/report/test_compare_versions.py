"""Runs that were tried in several versions of a simulator: it is told where they stand side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report.small_runs import OURS, WORSE, write_small_run

from ipd.report import compare, compare_page, compare_read, compare_tables, compare_versions
from ipd.report.read import ReportError

LATER = {2: [10.0, 30.0], 3: [20.0, 40.0]}


def told(run: Path, versions: object, later: object = None) -> Path:
    """The run's manifest says `versions`, and its evaluation `later`, if any."""
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"versions": versions}))
    stage = run / "stages" / "evaluate"
    stage.mkdir(parents=True)
    (stage / "done.json").write_text("{}")
    (stage / "summary.json").write_text(json.dumps({} if later is None else {"versions": later}))
    return run


def test_simulators_that_differ_are_told(tmp_path: Path) -> None:
    old = {"mujoco": "3.3.0", "gymnasium": "1.2.0", "jax": "0.8.0"}
    told(write_small_run(tmp_path / "ipd", OURS), old | {"jax": "0.7.0"})
    told(write_small_run(tmp_path / "dt", WORSE, "dt"), old)
    write_small_run(tmp_path / "bc", WORSE, "bc")  # it does not tell
    found = compare.load([tmp_path], tmp_path)
    assert compare_versions.differing(found) == [], "jax moves no robot"
    told(write_small_run(tmp_path / "cql", WORSE, "cql"), old, old | {"mujoco": "3.6.0"})
    found = compare.load([tmp_path], tmp_path)
    (said,) = compare_versions.differing(found)
    assert said == (
        "Versions of mujoco differ on hopper-medium-replay (regenerated), so returns do not compare: "
        "3.6.0: cql; 3.3.0: the other 2."
    )
    assert said in compare_tables.markdown(found) and said in compare_tables.terminal(found)
    assert ("no", said) in compare_page.checks(found) and said in compare_page.render(found)


def test_seeds_of_several_simulators_in_one_cell_are_told(tmp_path: Path) -> None:
    told(write_small_run(tmp_path / "dt" / "seeds-0-1", OURS, "dt"), {"mujoco": "3.3.0"})
    told(write_small_run(tmp_path / "dt" / "seeds-2-3", LATER, "dt"), {"mujoco": "3.6.0"})
    found = compare.load([tmp_path], tmp_path)
    assert len(found.cells) == 1
    (said,) = compare_versions.differing(found)
    assert said.endswith("3.6.0: dt/seeds-2-3; 3.3.0: the other 1. Seeds of several are put together in DT.")
    elsewhere = write_small_run(tmp_path / "walker", WORSE, "dt", data="walker2d-medium-replay.hdf5")
    told(elsewhere, {"mujoco": "3.9.0"})
    assert compare_versions.differing(compare.load([tmp_path], tmp_path)) == [said], "another data set"


def test_versions_that_are_none_take_a_run_out(tmp_path: Path) -> None:
    run = told(write_small_run(tmp_path / "ipd", OURS), {}, ["mujoco"])
    with pytest.raises(ReportError, match="versions in manifest"):
        compare_read.read_run(run, "ipd")
