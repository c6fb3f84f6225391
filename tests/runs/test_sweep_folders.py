"""What a sweep finds in its folder and at its data, and what it makes of that: it may have changed since."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from ipd.cli import main
from ipd.runs import files, plans, rundir, sweep
from ipd.runs.suites import SUITES, Suite, Variant

HOPPER = ("hopper-medium-replay",)
BC, IQL = (f"{HOPPER[0]}/{algo}/seeds-0" for algo in ("bc", "iql"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data" / f"{HOPPER[0]}.hdf5"
    path.parent.mkdir()
    path.write_text("never read: the runs of these tests are shell scripts")
    return path


def script(tmp_path: Path, patch: pytest.MonkeyPatch, work: str) -> None:
    """`work` in place of `ipd train`, with $run as its folder."""
    path = tmp_path / "python"
    words = 'while [ "$1" != --out ]; do shift; done; run=$2; mkdir -p "$run"'
    path.write_text(f"#!/bin/sh\n{words}\n{work}\n")
    path.chmod(0o755)
    patch.setattr(sys, "executable", str(path))


def planned(data: Path) -> plans.Plan:
    two = Suite(HOPPER, (Variant("bc", "bc"), Variant("iql", "iql")))
    return plans.plan(two, "tiny", 1, 1, data.parent)


def begin(out: Path, plan: plans.Plan) -> plans.Plan:
    """What `ipd train` leaves in the folders of the plan's runs, but for their pages."""
    for entry in plan.entries:
        put(out, entry, *entry.stages, "evaluate")
    return plan


def put(out: Path, entry: plans.Entry, *stages: str) -> None:
    """A run that has finished some stages, as it lies on disk."""
    rundir.write_job(out / entry.key, entry.job)
    for stage in stages:
        files.write_json(out / entry.key / "stages" / stage / "done.json", {})


def test_data_that_vanish_fail_their_runs_and_no_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", begin(tmp_path / "out", planned(data))
    script(tmp_path, monkeypatch, f'rm -f {data}; touch "$run/report.html"; echo no data; exit 2')
    outcomes = sweep.run_local(whole, out, print)
    assert {key: told[:2] for key, told in outcomes.items()} == dict.fromkeys(
        (BC, IQL), ("failed", "no data")
    )
    for key in (BC, IQL):
        assert files.read_json(out / f"{key}.json")["state"] == "failed"
    data.touch()
    sweep.record(out, whole.entries[0], sweep.Outcome("done"), sweep.seal(whole.entries[0]))
    assert sweep.finished(out, whole.entries[0])
    data.unlink()
    assert not sweep.finished(out, whole.entries[0])


def test_a_run_is_finished_with_the_data_and_the_software_that_it_began_with(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    script(tmp_path, monkeypatch, 'touch "$run/report.html"')
    sweep.run_local(begin(out, planned(data)), out, print)
    assert [sweep.finished(out, entry) for entry in planned(data).entries] == [True, True]

    # bc changes the data, so it is not of them; iql begins after that
    script(tmp_path, monkeypatch, f'touch "$run/report.html"; case $run in */bc/*) echo >> {data};; esac')
    data.write_text("others")
    assert {told.state for told in sweep.run_local(planned(data), out, print).values()} == {"done"}
    assert [sweep.finished(out, entry) for entry in planned(data).entries] == [False, True]

    before = planned(data)
    monkeypatch.setattr(rundir, "software", lambda: "edited meanwhile")
    sweep.run_local(before, out, print)
    assert [sweep.finished(out, entry) for entry in planned(data).entries] == [False, False]


def test_a_run_that_was_tried_in_other_numbers_of_episodes_since_is_not_finished(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    script(tmp_path, monkeypatch, 'touch "$run/report.html"')
    entry, other = begin(out, planned(data)).entries
    sweep.run_local(planned(data), out, print)
    evaluation = dataclasses.replace(entry.job.config.evaluate, final_episodes=1)
    config = dataclasses.replace(entry.job.config, evaluate=evaluation)
    rundir.write_job(out / entry.key, dataclasses.replace(entry.job, config=config))  # as `ipd evaluate` does
    assert not sweep.refusal(out, entry), "`ipd train` takes it again"
    assert not sweep.finished(out, entry) and sweep.finished(out, other)
    (out / other.key / "stages" / "evaluate" / "done.json").unlink()  # a trial that was cut short
    assert not sweep.finished(out, other)


def test_a_run_of_another_config_is_left_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    script(tmp_path, monkeypatch, 'touch "$run/report.html"')
    entry = planned(data).entries[0]
    put(out, entry, *entry.stages, "evaluate")
    (out / BC / "report.html").touch()
    sweep.record(out, entry, sweep.Outcome("done"), sweep.seal(entry))
    old = (out / f"{BC}.json").read_bytes()
    words = ["sweep", "table1", "--out", str(out), "--data-root", str(data.parent), "--seeds", "1"]
    words += ["--tasks", *HOPPER, "--algos", "bc,iql"]
    assert main([*words, "--preset", "cpu"]) == 1
    told = capsys.readouterr().out
    line = "holds a run of another config; choose another --out"
    assert f"[1/2] {BC}: failed: {line}" in told and f"[2/2] {IQL}: done" in told
    assert not (out / f"{BC}.log").exists(), "it was started"
    assert (out / f"{BC}.json").read_bytes() == old and sweep.finished(out, entry)
    # nor where the other config came while this run waited
    other = dataclasses.replace(entry, job=planned(data).entries[1].job)
    sweep.record(out, other, sweep.Outcome("failed"), "")
    assert (out / f"{BC}.json").read_bytes() == old
    (out / BC / "config.yaml").write_text("algo: bc\n")
    assert main([*words, "--preset", "cpu"]) == 1
    assert "config.yaml: data, task or seeds cannot be read" in capsys.readouterr().out
    assert (out / f"{BC}.json").read_bytes() == old


def narrowed(out: Path, suite: str, *names: str, sets: tuple[str, ...] = HOPPER) -> dict[str, plans.Entry]:
    """Variant -> its run in a plan of these, with what is found below `out`."""
    made = plans.plan(SUITES[suite].narrowed(sets, names), "cpu", 3, 3)
    return {entry.variant.name: entry for entry in plans.with_found(made, out).entries}


def test_stages_of_runs_outside_the_plan_are_taken_over(tmp_path: Path) -> None:
    ipd = narrowed(tmp_path, "table1", "ipd")["ipd"]
    qdt = narrowed(tmp_path, "table1", "qdt")["qdt"]
    assert sweep.status(tmp_path, qdt) == {"value": "new", "qdt": "new"}, "nobody has made it"
    put(tmp_path, ipd)
    assert narrowed(tmp_path, "table1", "qdt")["qdt"] == qdt, "begun is not finished"
    put(tmp_path, ipd, "value", "world")
    qdt = narrowed(tmp_path, "table1", "qdt")["qdt"]
    assert sweep.status(tmp_path, qdt) == {"value": f"from {ipd.key}", "qdt": "new"}
    assert qdt.makers == (ipd.key,) and str(tmp_path / ipd.key) in qdt.command(tmp_path)
    assert sweep.begun(tmp_path, qdt) == (ipd.key,)

    # another suite: the first that needs a stage fetches it, those behind take it from there
    found = narrowed(tmp_path, "ablations", "no-q-term", "greedy")
    assert found["no-q-term"].found == {"value": ipd.key, "world": ipd.key}
    assert found["greedy"].found == {} and found["greedy"].stages["world"] == found["no-q-term"].key
    assert narrowed(tmp_path, "ablations", "dual")["dual"].found == {"value": ipd.key}

    alone = plans.plan(SUITES["table1"].narrowed(HOPPER, ("qdt",)), "cpu", 2, 2)
    assert plans.with_found(alone, tmp_path) == alone, "of other seeds"
    (tmp_path / ipd.key / "config.yaml").write_text("{}")
    assert narrowed(tmp_path, "table1", "qdt")["qdt"].found == {}, "not to be read"


def test_figures_take_over_what_the_table_made_and_the_newest_wins(tmp_path: Path) -> None:
    walker = ("walker2d-medium-replay",)
    ipd = narrowed(tmp_path, "table1", "ipd", sets=walker)["ipd"]
    put(tmp_path, ipd, *ipd.stages)
    fig2 = narrowed(tmp_path, "fig2", sets=walker)
    assert set(sweep.status(tmp_path, fig2["mpc-0.25"]).values()) == {f"from {ipd.key}", "new"}
    assert set(fig2["mpc-1"].found) == {"augment", "refit", "policy"}, "it is the method itself"
    none = narrowed(tmp_path, "fig2", "none", sets=walker)["none"]
    put(tmp_path, fig2["mpc-2"], "value")
    assert none.found["value"] == ipd.key
    assert narrowed(tmp_path, "fig2", "none", sets=walker)["none"].found["value"] == fig2["mpc-2"].key


def test_runs_equal_to_one_that_is_not_asked_for_are_left_out(tmp_path: Path) -> None:
    made = plans.plan(SUITES["ablations"].narrowed(HOPPER, ("disagreement", "greedy")), "cpu", 1, 1)
    assert [entry.variant.name for entry in made.entries] == ["greedy"]
    assert made.remarks == ("disagreement: left out, equal to another run under preset cpu",)
    assert set(made.entries[0].stages.values()) == {made.entries[0].key}, "it makes them itself"


@pytest.mark.parametrize("mode", [[], ["--dry-run"], ["--engine", "ray"]])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cpus", "-1"], "--cpus -1: must be at least 0"),
        (["--gpus", "-1"], "--gpus -1: must be at least 0"),
        (["--retries", "-5"], "--retries -5: must be at least 0"),
        (["--out", "FILE"], "FILE is a file; choose another --out"),
        (["--out", "FILE/below"], "FILE is a file; choose another --out"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    words: list[str],
    told: str,
    mode: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    whole = ["sweep", "table1", "--tasks", *HOPPER, "--algos", "bc", "--out", "out", *mode, *words]
    assert main(whole) == 2
    assert told in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]
