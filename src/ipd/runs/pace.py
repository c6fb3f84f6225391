"""How long a run will take: from the clock times of runs like it, else from rough constants."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ipd.runs import rundir
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.errors import InputError
from ipd.runs.plans import Entry
from ipd.runs.rundir import Job
from ipd.runs.sweep import OTHER

UPDATES: Mapping[str, float] = {
    "value": 200.0,
    "world": 65.0,
    "cloning": 400.0,
    "refit": 180.0,
    "policy": 30.0,
    "cql": 45.0,
    "rebrac": 80.0,
    "mobile": 20.0,
    "dt": 7.0,
    "qdt": 7.0,
    "edt": 7.0,
    "reinformer": 25.0,
    "qt": 10.0,
    "dd": 10.0,
}
"""Updates a second, rough: preset `cpu`, three seeds side by side, two cores."""
SECONDS: Mapping[str, float] = {"augment": 120.0, "evaluate": 40.0, "audit": 20.0}
"""Of stages that are not counted in updates, rough, as above."""
START = 20.0
"""Seconds until a run has loaded what it needs and compiled its first program."""


_READS = {
    "refit": ("refit", "value"),
    "augment": ("augment", "world", "value"),
    "mobile": ("mobile", "world"),
    "evaluate": ("evaluate", "algo"),
    "audit": ("augment", "world", "value"),
}
"""Stage -> sections whose settings decide how fast it is; of all others, their own."""


class Timed(NamedTuple):
    """What a run took."""

    job: Job
    work: Mapping[str, tuple[float, float]]
    """Stage -> its updates, or 1 for all of it where it is not counted in them, and seconds."""


class Estimate(NamedTuple):
    """How long a run will take."""

    seconds: float = 0.0
    rough: frozenset[str] = frozenset()
    """Stages that no run like it has been timed for."""


def timed(out: Path) -> list[Timed]:
    """Every run below `out` that tells what it is and what it took."""
    found = []
    for path in sorted(out.glob("*/*/*/timing.jsonl")):
        with contextlib.suppress(InputError, OSError):
            found.append(Timed(rundir.read_job(path.parent), _work(path)))
    return found


def _work(path: Path) -> dict[str, tuple[float, float]]:
    work = defaultdict[str, tuple[float, float]](lambda: (0.0, 0.0))
    for told in _records(path):
        amount, seconds = work[told["stage"]]
        more = told["to"] - told["from"] + amount if told["unit"] == "updates" else 1.0
        work[told["stage"]] = more, seconds + told["seconds"]
    return dict(work)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a timing.jsonl; one that a killed run left half-written is passed over."""
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            told = json.loads(line)
            numbers = {name: float(told[name]) for name in ("from", "to", "seconds")}
            yield {"stage": str(told["stage"]), "unit": str(told["unit"]), **numbers}


def estimate(entry: Entry, status: Mapping[str, str], runs: Sequence[Timed], folder: Path) -> Estimate:
    """How long `entry` will take in `folder`; `status` is `sweep.status`'s, `runs` are `timed`'s.

    A stage takes what it took in runs with its settings, whatever their numbers of updates, and with
    as many seeds. What its last checkpoint holds is done.
    """
    if OTHER in status.values():  # it is not started
        return Estimate()
    stages = [stage for stage, state in status.items() if state == "new"]
    stages += ["evaluate"] if entry.job.task else []
    stages += ["audit"] if entry.job.task and "augment" in status else []
    total, rough = START, set[str]()
    for stage in stages:
        like = [run.work[stage] for run in runs if stage in run.work and _like(stage, run.job, entry.job)]
        amount, seconds = (sum(column) for column in zip(*like, strict=True)) if like else (0.0, 0.0)
        if not amount or not seconds:
            rough.add(stage)
            amount, seconds = (UPDATES[stage], 1.0) if stage in UPDATES else (1.0, SECONDS[stage])
        left = 1.0
        if stage in UPDATES:
            kept = CheckpointStore(folder / "stages" / stage, "").steps()
            left = max(getattr(entry.job.config, stage).steps - max(kept, default=0), 0)
        total += left * seconds / amount
    return Estimate(total, frozenset(rough))


def _like(stage: str, one: Job, other: Job) -> bool:
    """Whether a stage should be as fast in one run as in the other."""

    def settings(job: Job) -> list[Any]:
        parts = [getattr(job.config, name) for name in _READS.get(stage, (stage,))]
        return [dataclasses.replace(part, steps=0) if hasattr(part, "steps") else part for part in parts]

    return len(one.seeds) == len(other.seeds) and settings(one) == settings(other)
