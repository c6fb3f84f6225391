"""The runs of a sweep on a Ray cluster: one task a run, on whichever node has room.

A run whose worker or node is lost is started again by Ray, `retries` times, and goes on from the
checkpoints in its folder; so the sweep's folder, the data and this package lie under the same paths
on every node (a shared file system). A run that takes over stages waits for those that make them.
"""

from __future__ import annotations

import contextlib
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from ipd.runs.errors import InputError, RunFailed
from ipd.runs.plans import Entry, Plan
from ipd.runs.sweep import Outcome, Say, begun, finished, record, refusal, seal, wait_until_free


def run(
    planned: Plan,
    out: Path,
    say: Say,
    address: str = "auto",
    cpus: float = 1.0,
    gpus: float = 0.0,
    retries: int = 3,
    checkpoint_seconds: float = 30.0,
) -> dict[str, Outcome]:
    """Runs every entry of the plan below `out`, an absolute path; returns how each ended, by its key.

    `address` is a cluster's, `auto` for the one of this machine, or `local` to start one that ends with
    the sweep. Raises `InputError` where there is no Ray, no cluster, or no node with `cpus` and `gpus`.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anyone
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise InputError("--engine ray: Ray is not installed; pip install 'ipd[cluster]'") from error
    alone = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **alone)
    except (ConnectionError, RuntimeError, ValueError) as error:
        cure = "start one with `ray start --head`, or take --address local"
        told = " ".join(str(error).split())
        raise InputError(f"--address {address}: no Ray cluster ({told}); {cure}") from error
    try:
        _require_room(ray, cpus, gpus)
        # A process a run: memory and GPU are given back, and a crash is of one run.
        task = ray.remote(max_calls=1)(_work)
        options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": retries}
        return _drive(ray, task, options, planned, out, say, checkpoint_seconds)
    finally:
        ray.shutdown()


def _require_room(ray: Any, cpus: float, gpus: float) -> None:
    """`InputError` where no node could ever run a task: Ray would wait for one without end."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        there = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InputError(f"--cpus {cpus:g} --gpus {gpus:g}: no node has as much; there are: {there}")


def _drive(
    ray: Any, task: Any, options: dict[str, Any], planned: Plan, out: Path, say: Say, seconds: float
) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    refs: dict[str, Any] = {}
    seals: dict[str, str] = {}
    waiting: dict[Any, tuple[Entry, tuple[str, ...]]] = {}
    count = len(planned.entries)

    def submit(entry: Entry, after: tuple[str, ...]) -> None:
        seals[entry.key] = seal(entry)
        named = task.options(name=entry.key, **options)
        ref = named.remote(entry, str(out), seconds, *(refs[key] for key in after))
        refs[entry.key] = ref
        waiting[ref] = entry, after

    def ended(entry: Entry, outcome: Outcome) -> None:
        record(out, entry, outcome, seals.get(entry.key, ""))
        outcomes[entry.key] = outcome
        told = f": {outcome.line}" if outcome.line else ""
        say(f"[{len(outcomes)}/{count}] {entry.key}: {outcome.state}{told}")

    def lost(key: str) -> bool:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(refs[key])
            return False
        return True

    for entry in planned.entries:
        if finished(out, entry):
            outcomes[entry.key] = Outcome("done", "before")
        elif line := refusal(out, entry):
            ended(entry, Outcome("failed", line))
        else:
            submit(entry, tuple(key for key in entry.makers if key in refs))
    while waiting:
        (ref,), _ = ray.wait(list(waiting))
        entry, after = waiting.pop(ref)
        try:
            outcome: Outcome = ray.get(ref)
        except ray.exceptions.RayError as error:
            there = tuple(key for key in after if not lost(key))
            if there != after:  # Ray starts nothing that waits for what is lost; it makes its own stages then
                submit(entry, there)
                continue
            outcome = Outcome("failed", f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")
        ended(entry, outcome)
    return outcomes


def _work(entry: Entry, out: str, seconds: float, *after: object) -> Outcome:
    """One run, in a worker; a run that fails is told, not raised: those that wait for it still run."""
    del after  # their being here is what was waited for
    folder, log = Path(out) / entry.key, Path(out) / f"{entry.key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    began, line = time.monotonic(), ""
    with log.open("a", buffering=1) as file, contextlib.redirect_stderr(file):
        from ipd.data.episodes import DataError
        from ipd.evaluation.tasks import TaskError
        from ipd.runs.stages import execute

        wait_until_free(folder, lambda text: print(text, file=file))
        makers = tuple(Path(out) / maker for maker in begun(Path(out), entry))
        try:
            execute(folder, entry.job, checkpoint_seconds=seconds, reuse=makers)
        except (InputError, RunFailed, DataError, TaskError) as error:
            line = str(error)
        except Exception as error:
            line = f"{type(error).__name__}: {error}"
        line = " ".join(line.split())
        print(line or "done", file=file)
    return Outcome("failed" if line else "done", line, time.monotonic() - began)
