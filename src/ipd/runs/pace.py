"""How long a sweep will take: from the clock times of runs that are there, else from rough constants."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ipd.runs.sweep import Entry

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


class Pace(NamedTuple):
    """Rates of the stages."""

    updates: Mapping[str, float]
    """Stage -> updates a second."""
    seconds: Mapping[str, float]
    """Stage that is not counted in updates -> seconds."""
    measured: frozenset[str]
    """Stages whose numbers come from runs that are there."""

    def of(self, entry: Entry, status: Mapping[str, str]) -> float:
        """Seconds that `entry` will take; `status` is `sweep.status`'s."""
        config = entry.job.config
        stages = [stage for stage, state in status.items() if state == "new"]
        stages += ["evaluate"] if entry.job.task else []
        stages += ["audit"] if entry.job.task and "augment" in status else []
        total = START
        for stage in stages:
            if stage in self.updates:
                total += getattr(config, stage).steps / self.updates[stage]
            else:
                total += self.seconds[stage]
        return total


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a timing.jsonl; one that a killed run left half-written is passed over."""
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def pace(out: Path) -> Pace:
    """Means over every run below `out`, and rough constants for stages that none of them had."""
    updates, whole = defaultdict[str, list[tuple[float, float]]](list), defaultdict[str, list[float]](list)
    for path in sorted(out.glob("*/*/*/timing.jsonl")):
        once: dict[str, float] = defaultdict(float)
        for told in _records(path):
            if told["unit"] == "updates":
                updates[told["stage"]].append((told["to"] - told["from"], told["seconds"]))
            else:
                once[told["stage"]] += told["seconds"]
        for stage, seconds in once.items():
            whole[stage].append(seconds)
    rates = {
        stage: sum(count for count, _ in found) / max(sum(seconds for _, seconds in found), 1e-9)
        for stage, found in updates.items()
    }
    rates = {stage: rate for stage, rate in rates.items() if rate > 0}
    flat = {stage: sum(found) / len(found) for stage, found in whole.items()}
    return Pace(dict(UPDATES) | rates, dict(SECONDS) | flat, frozenset(rates) | frozenset(flat))
