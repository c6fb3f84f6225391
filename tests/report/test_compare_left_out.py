"""Runs that cannot be used, and sweeps that say so: each is named with the reason, the others count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from report.small_runs import write_small_run

from ipd.report import compare, compare_page, compare_read
from ipd.report.read import ReportError

FLAT = {0: [10.0, 10.0], 1: [30.0, 30.0]}
"""Two seeds that differ, without any spread within."""


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("ipd,1,200,1,955.0,10,30.0", "ipd,1,200,1,nan,10,30.0", "seed 1, step 200, episode 1: the ret"),
        ("ipd,1,200,1,955.0,10,30.0", "ipd,1,200,1,955.0,10,nan", "seed 1, .* no normalised score"),
        ("ipd,1,200,1,955.0,10,30.0", "ipd,1,200,1,955.0,10,", "seed 1, .* no normalised score"),
        ("ipd,0,100,0,142.5,10,5.0", "ipd,0,100,0,inf,10,5.0", "seed 0, step 100, episode 0"),
        ("ipd,1,200,", "ipd,1,150,", "unfinished: ipd has no episode of seed 1 at step 200"),
        ("ipd,1,", "ipd,0,", "unfinished: ipd has no episode of seed 1"),
        ("ipd,", "cloning,", "no episode of the policy ipd"),
        ("955.0", "many", "line 4 is no evaluation"),
    ],
)  # fmt: skip
def test_a_bad_or_missing_seed_takes_its_run_out(tmp_path: Path, old: str, new: str, reason: str) -> None:
    write_small_run(tmp_path / "good", {0: [50.0], 1: [50.0]})
    bad = write_small_run(tmp_path / "bad", FLAT, steps=(100, 200))
    text = (bad / "evaluations.csv").read_text()
    assert old in text
    (bad / "evaluations.csv").write_text(text.replace(old, new))
    found = compare.load([tmp_path], tmp_path)
    assert [entry.name for entry in found.entries] == ["good"]
    assert [left.name for left in found.left_out] == ["bad"]
    with pytest.raises(ReportError, match=reason):
        compare_read.read_run(bad, "bad")


def test_a_run_at_work_is_not_counted(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run", FLAT)
    (run / "stages" / "evaluate").mkdir(parents=True)
    with pytest.raises(ReportError, match="unfinished"):
        compare.load([run], tmp_path)
    (run / "stages" / "evaluate" / "done.json").write_text("{}")
    assert len(compare.load([run], tmp_path).entries) == 1
    (run / "evaluations.csv").unlink()
    with pytest.raises(ReportError, match=r"run: failed or unfinished: no evaluations\.csv"):
        compare.load([run], tmp_path)
    (run / "config.yaml").write_text("data: kitchen.hdf5\ntask: null\n")
    with pytest.raises(ReportError, match="trained, not evaluated"):
        compare.load([run], tmp_path)


def test_what_a_sweep_says_of_its_runs_is_listed(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    at = {name: f"hopper/{name}/seeds-0-1" for name in ("ipd", "early", "late", "next")}
    write_small_run(sweep / at["ipd"], FLAT)
    unfinished = write_small_run(sweep / at["late"], FLAT, algo="dt")
    (unfinished / "evaluations.csv").unlink()
    (sweep / "hopper" / "early").mkdir()
    for name, line in (("early", "no such task"), ("late", "loss is nan"), ("ipd", "")):
        told = {"state": "failed" if line else "done", "line": line}
        (sweep / f"{at[name]}.json").write_text(json.dumps(told))
    plan = {
        "runs": [{"run": run} for run in at.values()],
        "skipped": [{"set": "pen-cloned", "why": "no file"}],
    }
    (sweep / "plan.json").write_text(json.dumps(plan))
    found = compare.load([sweep], tmp_path)
    assert [entry.name for entry in found.entries] == [f"sweep/{at['ipd']}"]
    assert found.left_out == [
        (f"sweep/{at['late']}", "failed: loss is nan", "run"),
        (f"sweep/{at['early']}", "failed: no such task", "run"),
        (f"sweep/{at['next']}", "planned, not run yet", "run"),
        ("pen-cloned", "skipped: no file", "set"),
    ]
    assert ("open", "3 runs, 1 set left out, with reasons, at the end") in compare_page.checks(found)


def test_a_run_that_failed_when_it_was_made_again_is_left_out_with_its_old_scores(tmp_path: Path) -> None:
    write_small_run(tmp_path / "ipd" / "seeds-0-1", FLAT)
    write_small_run(tmp_path / "bc" / "seeds-0-1", FLAT, algo="bc")
    told = {"state": "failed", "line": "holds a run of another config"}
    (tmp_path / "bc" / "seeds-0-1.json").write_text(json.dumps(told))
    found = compare.load([tmp_path], tmp_path)
    assert [entry.algo for entry in found.entries] == ["ipd"]
    assert found.left_out == [("bc/seeds-0-1", "failed: holds a run of another config", "run")]


def damaged(place: Path, file: str, content: bytes) -> Path:
    """A sweep of two runs with one file of the second, or beside it, overwritten."""
    write_small_run(place / "ipd" / "s", FLAT)
    write_small_run(place / "bc" / "s", FLAT, algo="bc")
    (place / "bc" / file).write_bytes(content)
    return place


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("s/evaluations.csv", b"policy,\xff\n", "evaluations.csv: no table of text"),
        ("s/config.yaml", b"data: x\nalgo: bc\nseeds: three\n", "config.yaml: seeds are no list of numbers"),
        ("s/manifest.json", b'{"data": []}', "manifest.json: data tells no number of steps"),
        ("s/manifest.json", b'{"data": {"steps": null}}', "manifest.json: data tells no number of steps"),
        ("s/manifest.json", b'{"overrides": 3}', "damaged"),
    ],
)  # fmt: skip
def test_one_damaged_run_leaves_the_others_alone(
    tmp_path: Path, file: str, content: bytes, reason: str
) -> None:
    found = compare.load([damaged(tmp_path, file, content)], tmp_path)
    assert [entry.algo for entry in found.entries] == ["ipd"]
    (left,) = found.left_out
    assert left.name == "bc/s" and str(tmp_path) not in left.reason
    assert left.reason.startswith(reason)


@pytest.mark.parametrize("content", [b"{", b'{"state":'])
def test_half_a_word_about_a_run_is_none(tmp_path: Path, content: bytes) -> None:
    assert compare.load([damaged(tmp_path, "s.json", content)], tmp_path).left_out == []
    (tmp_path / "bc" / "s" / "evaluations.csv").unlink()
    (left,) = compare.load([tmp_path], tmp_path).left_out
    assert left.reason == "failed or unfinished: no evaluations.csv"


@pytest.mark.parametrize("content", [b'{"runs": [{}]}', b'{"runs":', b'{"runs": 3}', b'{"skipped": [{}]}'])
def test_a_damaged_plan_is_told(tmp_path: Path, content: bytes) -> None:
    found = compare.load([damaged(tmp_path, "../plan.json", content)], tmp_path)
    assert len(found.entries) == 2
    assert found.left_out == [("plan.json", "no plan of a sweep; delete it and sweep again", "plan")]


def test_rows_that_are_there_twice_or_not_at_all_take_a_run_out(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "twice", FLAT)
    lines = (run / "evaluations.csv").read_text().splitlines()
    (run / "evaluations.csv").write_text("\n".join([*lines, *lines[1:]]))
    with pytest.raises(ReportError, match="ipd, seed 0, step 100, episode 0 is there twice"):
        compare_read.read_run(run, "twice")
    (run / "evaluations.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(ReportError, match="unfinished: ipd has 1 to 2 episodes a seed at step 100"):
        compare_read.read_run(run, "short")
