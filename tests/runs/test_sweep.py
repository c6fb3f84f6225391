"""Suites: what they expand to, what their runs share, and the runs in turn with one that fails."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ipd.cli import main
from ipd.data.sources import load
from ipd.runs import plans, stages, suites, sweep
from ipd.runs.errors import InputError
from ipd.runs.stopping import SAID
from ipd.runs.suites import SETS, SUITES, Suite, Variant

HOPPER = ("hopper-medium-replay",)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder with every official file name; the files are as long as they should be, and hold nothing."""
    root = tmp_path / "data"
    root.mkdir()
    for dataset in SETS.values():
        with h5py.File(root / dataset.file, "w") as file:
            file.create_dataset("observations", (dataset.steps, 1), np.float32, chunks=True)
    return root


def entries(name: str, root: Path | None = None, preset: str = "cpu", **more: Any) -> dict[str, plans.Entry]:
    """Variant (of the first set and seeds) -> its run."""
    planned = plans.plan(SUITES[name].narrowed(**more), preset, 3, 3, root)
    return {entry.variant.name: entry for entry in reversed(planned.entries)}


def test_table1_is_every_task_and_algorithm_in_groups_of_seeds(official: Path) -> None:
    planned = plans.plan(SUITES["table1"], "paper", seeds=7, group=3, root=official)
    assert len(planned.entries) == 10 * 12 * 3 and not planned.skipped
    assert len({entry.key for entry in planned.entries}) == len(planned.entries)
    first = [entry for entry in planned.entries if entry.dataset == "walker2d-medium"]
    assert [entry.job.seeds for entry in first[::12]] == [(0, 1, 2), (3, 4, 5), (6,)]
    assert first[0].key == "walker2d-medium/ipd/seeds-0-2" and first[-1].key == "walker2d-medium/dd/seeds-6"
    assert [entry.job.config.algo for entry in first[:12]][:4] == ["ipd", "bc", "iql", "cql"]
    tasks = {entry.dataset: entry.job.task for entry in planned.entries}
    assert (
        tasks["halfcheetah-medium-replay"] == "HalfCheetah-v4" and tasks["pen-cloned"] == "AdroitHandPen-v1"
    )
    assert tasks["kitchen-partial"] is None and tasks["hammer-human"] == "AdroitHandHammer-v1"
    assert {entry.origin for entry in planned.entries} == {"D4RL"}
    assert [remark.split(":")[0] for remark in planned.remarks] == ["kitchen-complete", "kitchen-partial"]
    weights = {entry.dataset: entry.job.config.policy.q_weight for entry in planned.entries}
    assert (weights["kitchen-complete"], weights["kitchen-partial"]) == (0.001, 0.01)


def test_figures_and_ablations(official: Path) -> None:
    fig2 = entries("fig2", official, tasks=(), names=())
    volumes = {
        name: (entry.job.config.augment.enabled, entry.job.config.augment.augment_ratio,
               entry.job.config.augment.num_plans, entry.job.config.augment.plan_noise)
        for name, entry in fig2.items()
    }  # fmt: skip
    assert volumes["mpc-0.25"] == (True, 0.25, 3, 1.0) and volumes["greedy-2"] == (True, 2.0, 1, 0.0)
    assert not volumes["none"][0] and len(volumes) == 9
    assert fig2["none"].dataset == "walker2d-medium-replay"
    (prompts,) = entries("fig3", official, tasks=(), names=()).values()
    assert prompts.key == "halfcheetah-medium-replay/hindsight/seeds-0-2"
    assert prompts.job.config.policy.prompt == "hindsight"
    assert prompts.job.config.evaluate.prompts == (0.25, 0.5, 0.75, 1.0, 1.5)
    ablations = plans.plan(SUITES["ablations"], "cpu", 3, 3, official).entries
    assert {entry.dataset for entry in ablations} == {f"{r}-medium-replay" for r in
                                                      ("hopper", "halfcheetah", "walker2d")}  # fmt: skip
    # `cpu` has disagreement already, `paper` primal: a run of it would be `ipd` again
    assert ablations[0].variant.name == "ipd" and len(ablations) == 3 * len(suites.ABLATIONS)
    for preset, same in (("cpu", "disagreement"), ("paper", "primal")):
        planned = plans.plan(SUITES["ablations"].narrowed(HOPPER, ()), preset, 1, 1)
        assert same not in {entry.variant.name for entry in planned.entries}
        assert f"{same}: left out, equal to another run under preset {preset}" in "; ".join(planned.remarks)
    # asked for alone, it is still the run of another
    with pytest.raises(InputError, match="nothing to run: disagreement: left out, equal to another run"):
        plans.plan(SUITES["ablations"].narrowed(HOPPER, ("disagreement",)), "cpu", 1, 1)


def test_data_are_found_by_name_and_regenerated_sets_are_called_so(tmp_path: Path) -> None:
    dataset = SETS["hopper-medium-replay"]
    bundled = suites.find(dataset, tmp_path)
    assert bundled == suites.Source("bundled:hopper-medium-replay", "regenerated")
    assert suites.find(SETS["hopper-medium"], tmp_path) is None
    plain, own = tmp_path / "hopper-medium-replay.hdf5", tmp_path / dataset.file
    plain.touch()
    unreadable = f"{plain.name} cannot be read as a D4RL file"
    assert suites.find(dataset, tmp_path) == suites.Source(str(plain), "regenerated", unreadable)

    def write(steps: int, **attributes: str) -> None:
        with h5py.File(own, "w") as file:
            file["observations"] = np.zeros((steps, 1), np.float32)
            file.attrs.update(attributes)

    write(401_000)
    assert suites.find(dataset, tmp_path) == suites.Source(str(own), "D4RL")
    write(90_000)
    found = suites.find(dataset, tmp_path)
    assert found is not None and found.remark is not None and "90,000 steps" in found.remark
    assert found.origin == "regenerated"
    write(402_000, recipe="medium-replay")  # `ipd collect` made it, whatever it is called
    assert suites.find(dataset, tmp_path) == suites.Source(str(own), "regenerated")
    write(402_000, recipe="random")
    found = suites.find(dataset, tmp_path)
    assert found is not None and found.origin == "regenerated"
    assert found.remark is not None and found.remark.endswith("collected with recipe random")
    write(402_000, note="by hand")
    assert suites.find(dataset, tmp_path) == suites.Source(str(own), "regenerated")


def test_what_is_absent_is_skipped_and_what_is_unknown_is_refused(tmp_path: Path) -> None:
    planned = plans.plan(SUITES["table1"].narrowed((), ("bc",)), "tiny", 1, 1, tmp_path)
    assert "hopper-medium-replay" in {entry.dataset for entry in planned.entries}
    assert planned.skipped["pen-cloned"] == f"neither pen-cloned-v1.hdf5 nor pen-cloned.hdf5 in {tmp_path}"
    with pytest.raises(InputError, match="no data: pen-cloned: neither"):
        plans.plan(SUITES["table1"].narrowed(("pen-cloned",), ()), "tiny", 1, 1, tmp_path)
    with pytest.raises(InputError, match="--algos sarsa: not in this suite; there are: ipd, bc"):
        SUITES["table1"].narrowed((), ("sarsa",))
    with pytest.raises(InputError, match=r"--data-root \S+nowhere: not a folder"):
        plans.plan(SUITES["table1"], "tiny", 1, 1, tmp_path / "nowhere")
    with pytest.raises(InputError, match="--preset: unknown preset 'big'"):
        plans.plan(SUITES["table1"].narrowed(HOPPER, ()), "big", 1, 1)
    with pytest.raises(InputError, match="--seeds and --group"):
        plans.plan(SUITES["table1"], "tiny", 1, 0)


def test_runs_take_over_exactly_what_is_equal() -> None:
    found = entries("ablations", tasks=HOPPER, names=())
    makers = {name: {stage: maker.split("/")[1] for stage, maker in entry.stages.items()}
              for name, entry in found.items()}  # fmt: skip
    own = dict.fromkeys(("value", "world", "cloning", "augment", "refit", "policy"), "ipd")
    assert makers["ipd"] == own
    assert makers["no-q-term"] == own | {"policy": "no-q-term"}
    assert makers["logged-refit"] == own | {"refit": "logged-refit", "policy": "logged-refit"}
    assert makers["greedy"] == own | dict.fromkeys(("augment", "refit", "policy"), "greedy")
    changed = ("world", "augment", "refit", "policy")
    assert makers["dual"] == own | dict.fromkeys(changed, "dual")
    assert makers["no-augmentation"] == {"value": "ipd", "cloning": "ipd", "policy": "no-augmentation"}
    assert found["greedy"].makers == ("hopper-medium-replay/ipd/seeds-0-2",)

    table = entries("table1", tasks=HOPPER, names=())
    # an algorithm that is judged keeps snapshots on the way, so its stage is not the method's own
    assert table["bc"].stages == {"cloning": table["bc"].key}
    assert table["qdt"].stages == {"value": table["ipd"].key, "qdt": table["qdt"].key}
    assert table["mobile"].stages == {"world": table["ipd"].key, "mobile": table["mobile"].key}
    groups = plans.plan(SUITES["ablations"].narrowed(HOPPER, ("ipd", "greedy")), "cpu", 2, 1).entries
    assert groups[3].makers == ("hopper-medium-replay/ipd/seeds-1",)


@pytest.mark.parametrize(
    ("suite", "variant"),
    [("fig2", "greedy-0.25"), ("fig3", "hindsight"), ("table1", "dd"), ("ablations", "no-augmentation")],
)
def test_the_command_is_the_job(
    suite: str, variant: str, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: dict[str, Any] = {}

    def execute(folder: Path, job: Any, **more: Any) -> Path:
        ran.update(more, folder=folder, job=job)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "execute", execute)
    chosen = SUITES[suite].narrowed((), ())
    entry = next(e for e in plans.plan(chosen, "tiny", 5, 3, official).entries
                 if e.variant.name == variant and e.job.seeds == (3, 4))  # fmt: skip
    assert main(entry.command(tmp_path)) == 1
    assert ran["folder"] == tmp_path / entry.key and ran["job"] == entry.job
    assert ran["reuse"] == tuple(tmp_path / maker for maker in entry.makers)


def test_dry_run_tells_stages_commands_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["sweep", "ablations", "--out", str(out), "--tasks", *HOPPER, "--algos", "ipd,no-refit"]
    assert main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert not out.exists()
    (row,) = (line for line in told if "no-refit/seeds-0-2 " in line)
    assert "new: policy" in row and "from ipd/seeds-0-2: value, world, cloning, augment" in row
    assert row.endswith(f"--reuse {out}/{HOPPER[0]}/ipd/seeds-0-2 --out {out}/{HOPPER[0]}/no-refit/seeds-0-2")
    rough = "rough: nothing here has been timed with these settings for audit, augment, cloning, evaluate"
    assert "2 runs, about" in told[-2] and told[-1].startswith(rough)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with thirty episodes of Hopper, and a set that cannot be read."""
    whole = load("bundled:hopper-medium-replay")
    episodes = whole.select(range(0, whole.num_episodes, whole.num_episodes // 30))
    with h5py.File(tmp_path / "hopper-medium-replay.hdf5", "w") as file:
        for key in ("observations", "actions", "rewards", "next_observations"):
            file[key] = getattr(episodes, key)
        file["terminals"], file["timeouts"] = episodes.terminated, episodes.truncated
        file.attrs["recipe"] = "thirty"
    (tmp_path / "hopper-medium.hdf5").write_text("no data")
    return tmp_path


def test_killed_sweep_goes_on_and_a_failed_run_stops_nothing(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["sweep", "table1", "--tasks", "hopper-medium,hopper-medium-replay", "--algos", "bc"]
    words += ["--preset", "tiny", "--seeds", "1", "--data-root", str(small), "--out", str(out)]
    child = subprocess.Popen([sys.executable, "-m", "ipd", *words], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("hopper-medium-replay/bc/seeds-0/config.yaml")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()

    assert main(words) == 1
    told = capsys.readouterr().out
    assert re.search(r"^hopper-medium/bc/seeds-0 +failed .*hopper-medium\.hdf5: ", told, re.MULTILINE)
    assert re.search(r"^hopper-medium-replay/bc/seeds-0 +done", told, re.MULTILINE)
    assert "comparison.html" in told and (out / "comparison.html").exists()
    plan = json.loads((out / "plan.json").read_text())
    assert [run["origin"] for run in plan["runs"]] == ["regenerated"] * 2

    planned = plans.plan(SUITES["table1"].narrowed(HOPPER, ("bc",)), "tiny", 1, 3, small)
    for broken in ('{"runs": [', "{}", "[]"):  # a damaged record of the plan is written anew
        (out / "plan.json").write_text(broken)
        plans.write_plan(out, "table1", "tiny", planned)
        assert [run["run"] for run in json.loads((out / "plan.json").read_text())["runs"]] == [
            entry.key for entry in planned.entries
        ]
    monkeypatch.setattr(subprocess, "Popen", None)  # a finished run is recognised without a process
    key = planned.entries[0].key
    assert sweep.run_local(planned, out, print) == {key: sweep.Outcome("done", "before")}
    told, whole = out / f"{key}.json", (out / f"{key}.json").read_text()
    for broken in (whole[:20], "{}", "[]"):
        told.write_text(broken)
        assert not sweep.finished(out, planned.entries[0]), "half a word is none"
    told.write_text(whole)
    manifest = json.loads((out / key / "manifest.json").read_text())
    assert manifest["overrides"] == [] and manifest["data"]["made"] == {"recipe": "thirty"}
    (small / "hopper-medium-replay.hdf5").touch()  # but not when its data may have changed
    assert not sweep.finished(out, planned.entries[0])


def test_what_kills_a_run_is_told(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho value: 3 updates >&2\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    two = Suite(HOPPER, (Variant("bc", "bc"), Variant("iql", "iql")))
    planned = plans.plan(two, "tiny", 1, 1, small)
    outcomes = sweep.run_local(planned, tmp_path / "out", print)
    assert [outcome.state for outcome in outcomes.values()] == ["failed", "failed"]
    line = outcomes["hopper-medium-replay/iql/seeds-0"].line
    assert line == "killed by signal 9 after: value: 3 updates (out of memory?)"


def test_a_run_that_was_told_to_end_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends `ipd train` with 0; a sweep that outlives it has that run still to do."""
    script = tmp_path / "ipd.py"
    script.write_text(f"print('ipd train: {SAID}; what was done is saved')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sweep, "begun", lambda out, entry: ())
    entry = plans.plan(SUITES["table1"], "tiny", seeds=1, group=1).entries[0]
    assert SAID in sweep._in_process(entry, tmp_path, lambda text: None, 1.0)
    script.write_text("print('done')\n")
    assert sweep._in_process(entry, tmp_path, lambda text: None, 1.0) == ""
