"""A sweep on a real Ray cluster of two nodes: a worker is killed, a run fails, a run waits for another."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import h5py
import pytest

from ipd.data.sources import load
from ipd.runs import files, plans, ray_engine, rundir, sweep
from ipd.runs.errors import InputError
from ipd.runs.stages import execute
from ipd.runs.suites import Suite, Variant

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"cloning.steps": 1_500, "evaluate.snapshots": 1}
SUITE = Suite(
    ("hopper-medium-replay",),
    (
        Variant("bc", "bc", overrides=STEPS),
        Variant("broken", "bc", overrides=STEPS | {"cloning.learning_rate": 1e38}),
        Variant("longer", "bc", overrides=STEPS | {"evaluate.final_episodes": 3}),
    ),
)
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray forks before it executes
UNEQUAL = {"timing.jsonl", "lock"}
"""Clock times, and a file that is only there to be locked."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of two nodes with one processor each; whatever Ray writes lies in a short temporary folder."""
    folder = tempfile.mkdtemp(prefix="ray")  # sockets have short names
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for patience in ("raylet_start_wait_time_s", "worker_register_timeout_seconds"):
        monkeypatch.setenv(f"RAY_{patience}", "300")  # other tests run beside this one
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=size)
    try:
        nodes.add_node(**size)
        yield nodes.address
    finally:
        nodes.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def planned(tmp_path: Path) -> plans.Plan:
    """Three runs of thirty episodes of the bundled data."""
    small_set(tmp_path)
    return plans.plan(SUITE, "tiny", seeds=1, group=3, root=tmp_path)


def small_set(folder: Path) -> None:
    """Thirty episodes of the bundled data."""
    whole = load("bundled:hopper-medium-replay")
    episodes = whole.select(range(0, whole.num_episodes, whole.num_episodes // 30))
    with h5py.File(folder / "hopper-medium-replay.hdf5", "w") as file:
        for key in ("observations", "actions", "rewards", "next_observations"):
            file[key] = getattr(episodes, key)
        file["terminals"], file["timeouts"] = episodes.terminated, episodes.truncated


def process_with(path: Path) -> int | None:
    """The process that has a file open."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            files = Path("/proc") / process / "fd"
            if str(path) in (os.readlink(files / name) for name in os.listdir(files)):
                return int(process)
    return None


def kill_worker_of(folder: Path, killed: list[int]) -> None:
    """SIGKILL for the process that works on a run, once it has a checkpoint and is not done."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        done = (folder / "stages" / "cloning" / "done.json").exists()
        worker = process_with(folder / "lock")
        if list(folder.glob("stages/cloning/step-*.json")) and worker and not done:
            os.kill(worker, signal.SIGKILL)
            killed.append(worker)
            return
        time.sleep(0.01)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in UNEQUAL)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_killed_worker_is_retried_and_a_failed_run_stops_nothing(
    cluster: str, planned: plans.Plan, tmp_path: Path
) -> None:
    out, said, killed = tmp_path / "out", list[str](), list[int]()
    bc, broken, longer = (entry.key for entry in planned.entries)
    killer = threading.Thread(target=kill_worker_of, args=(out / bc, killed), daemon=True)
    with pytest.raises(InputError, match="no node has as much; there are: 1 CPUs, 0 GPUs"):
        ray_engine.run(planned, out, said.append, cluster, cpus=2.0)
    killer.start()
    outcomes = ray_engine.run(planned, out, said.append, cluster, checkpoint_seconds=0.0)
    killer.join()
    assert killed, "nothing was killed"
    assert {key: outcome.state for key, outcome in outcomes.items()} == {
        bc: "done", broken: "failed", longer: "done"
    }  # fmt: skip
    assert "going on from" in (out / f"{bc}.log").read_text()
    assert "not finite" in outcomes[broken].line
    assert any(broken in line and "not finite" in line for line in said)
    assert f"cloning: taken from {out / bc}" in (out / f"{longer}.log").read_text()

    undisturbed = tmp_path / "undisturbed" / "seeds-0"
    execute(undisturbed, planned.entries[0].job, checkpoint_seconds=0.0)
    before, after = contents(undisturbed), contents(out / bc)
    assert after.keys() == before.keys()
    assert [name for name in before if before[name] != after[name]] == []

    assert [sweep.finished(out, entry) for entry in planned.entries] == [True, False, True]


@pytest.mark.skipif(os.environ.get("IPD_FAULTS") != "long", reason="minutes; `make faults` does it")
def test_64_runs_with_workers_killed_at_random_end_as_in_turn(
    cluster: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    small_set(tmp_path)
    steps = {"cloning.steps": 300, "evaluate.snapshots": 1, "evaluate.final_episodes": 2}
    suite = Suite(("hopper-medium-replay",), (Variant("bc", "bc", overrides=steps),))
    planned = plans.plan(suite, "tiny", seeds=64, group=1, root=tmp_path)
    assert len(planned.entries) == 64
    killed, over = Counter[Path](), threading.Event()

    def kill() -> None:
        draw = random.Random()
        while not over.wait(draw.uniform(0.5, 4)):
            locks = [path for path in (tmp_path / "out").rglob("lock") if killed[path] < 2]
            if killed.total() == 40:  # else it never ends
                return
            draw.shuffle(locks)
            for lock in locks:
                worker = process_with(lock)
                if worker:
                    with contextlib.suppress(ProcessLookupError):  # it has just ended
                        os.kill(worker, signal.SIGKILL)
                        killed[lock] += 1
                    break

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    said: list[str] = []
    try:
        outcomes = ray_engine.run(
            planned, tmp_path / "out", said.append, cluster, retries=50, checkpoint_seconds=0.0
        )
    finally:
        over.set()
        killer.join()
    record_property("runs at once on Ray", len(planned.entries))
    record_property("runs at once on Ray, workers killed", killed.total())
    assert killed.total() >= 10
    for entry in planned.entries:
        assert outcomes[entry.key].state == "done"
        told = (tmp_path / "out" / f"{entry.key}.log").read_text().splitlines()
        assert told.count("done") == 1, entry.key
        execute(tmp_path / "in-turn" / entry.key, entry.job, checkpoint_seconds=0.0)
        before, after = contents(tmp_path / "in-turn" / entry.key), contents(tmp_path / "out" / entry.key)
        assert before.keys() == after.keys()
        # only where a run lies differs, and the page says that
        assert [name for name in before if before[name] != after[name] and name != "report.html"] == []


class Lost(Exception):
    """Stands for `ray.exceptions.RayError`."""


class FakeRay:
    """Tasks end at once, the last one first; those in `doomed`, and those that wait for them, are lost."""

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, doomed: set[str]) -> None:
        self.doomed = doomed
        self.submitted: list[tuple[str, int]] = []

    def options(self, name: str, **more: object) -> SimpleNamespace:
        def remote(entry: plans.Entry, out: str, seconds: float, *after: str) -> str:
            self.submitted.append((name, len(after)))
            ref = f"{name} {len(self.submitted)}"
            if name in self.doomed or self.doomed & set(after):
                self.doomed.add(ref)
            return ref

        return SimpleNamespace(remote=remote)

    def wait(self, refs: list[str]) -> tuple[list[str], list[str]]:
        return refs[-1:], refs[:-1]

    def get(self, ref: str) -> sweep.Outcome:
        if ref in self.doomed:
            raise Lost(f"{ref} crashed")
        return sweep.Outcome("done")


def test_what_waits_for_a_lost_run_makes_its_own_stages(planned: plans.Plan, tmp_path: Path) -> None:
    bc, broken, longer = (entry.key for entry in planned.entries)
    assert planned.entries[2].makers == (bc,)
    ray, out = FakeRay({bc}), tmp_path / "out"
    (out / bc).parent.mkdir(parents=True)
    outcomes = ray_engine._drive(ray, ray, {}, planned, out, print, 0.0)
    assert {key: told.state for key, told in outcomes.items()} == {
        bc: "failed",
        broken: "done",
        longer: "done",
    }
    assert outcomes[bc].line == f"Lost: {bc} 1 crashed"
    assert ray.submitted == [(bc, 0), (broken, 0), (longer, 1), (longer, 0)]
    both = FakeRay({bc, longer})
    again = ray_engine._drive(both, both, {}, planned, out, print, 0.0)
    assert again[longer].state == "failed" and both.submitted[-1] == (longer, 0)


class Changing(FakeRay):
    """While a run goes, something is done to its data; it says that it ended well."""

    def __init__(self, change: Callable[[], None], out: Path, entry: plans.Entry) -> None:
        super().__init__(set())
        self.change, self.run, self.entry = change, out / entry.key, entry

    def wait(self, refs: list[str]) -> tuple[list[str], list[str]]:
        for stage in (*self.entry.stages, "evaluate"):
            files.write_json(self.run / "stages" / stage / "done.json", {})
        rundir.write_job(self.run, self.entry.job)
        (self.run / "report.html").touch()
        self.change()
        return super().wait(refs)


def test_data_that_change_or_vanish_while_a_run_goes(planned: plans.Plan, tmp_path: Path) -> None:
    data, one = Path(planned.entries[0].job.data), planned._replace(entries=planned.entries[:1])
    for case, change in (("kept", lambda: None), ("touched", data.touch), ("gone", data.unlink)):
        ray = Changing(change, tmp_path / case, one.entries[0])
        outcomes = ray_engine._drive(ray, ray, {}, one, tmp_path / case, print, 0.0)
        assert [told.state for told in outcomes.values()] == ["done"]
        assert sweep.finished(tmp_path / case, one.entries[0]) == (case == "kept")


def test_a_run_of_another_config_is_not_submitted(planned: plans.Plan, tmp_path: Path) -> None:
    bc, broken, longer = (entry.key for entry in planned.entries)
    rundir.write_job(tmp_path / bc, planned.entries[1].job)
    ray, said = FakeRay(set()), list[str]()
    outcomes = ray_engine._drive(ray, ray, {}, planned, tmp_path, said.append, 0.0)
    assert outcomes[bc] == sweep.Outcome("failed", "holds a run of another config; choose another --out")
    assert said[0].startswith(f"[1/3] {bc}: failed: holds a run")
    assert ray.submitted == [(broken, 0), (longer, 0)] and not (tmp_path / f"{bc}.json").exists()


def test_no_cluster_is_told(planned: plans.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # `auto` looks for processes as well: another test's cluster may be running beside this one
    monkeypatch.setattr("ray._private.services._find_address_from_flag", lambda flag: set())
    with pytest.raises(InputError, match=r"--address auto: no Ray cluster .*ray start --head"):
        ray_engine.run(planned, tmp_path / "out", print)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'ipd\[cluster\]'"):
        ray_engine.run(planned, tmp_path / "out", print)
