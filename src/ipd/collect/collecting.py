"""`ipd collect`: from a recipe to a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ipd.collect import writing
from ipd.collect.recording import Environments, Log, flatten, record_type
from ipd.collect.settings import Settings
from ipd.collect.training import ACT, Outcome, Training, sample, to_task, uniform
from ipd.evaluation.tasks import Task
from ipd.runs import files
from ipd.runs.errors import InputError, RunFailed
from ipd.runs.progress import Progress
from ipd.runs.rundir import locked, versions
from ipd.value.networks import SquashedGaussianPolicy

STREAMS = {"random": 10, "medium": 11, "expert": 12}
"""Of the environments each policy acts in."""


def collect(
    task: Task, settings: Settings, out: Path, checkpoint_seconds: float = 30.0, quiet: bool = False
) -> bool:
    """Makes the file at ``out``; returns False where it was there already.

    ``out``.part holds what a killed run goes on from, and one with more ``training_steps`` than were
    enough to reach the score. Raises ``InputError`` where either holds other settings, ``RunFailed``
    where training does not get to a policy the recipe needs.
    """
    if out.suffix != ".hdf5":
        raise InputError(f"--out {out}: must end in .hdf5")
    part = out.with_name(out.name + ".part")
    if out.exists():
        short = writing.steps_short_of_the_score(out)
        goes_on = short is not None and settings.training_steps > short and part.exists()
        writing.require_same(out, settings.plain() | ({"training_steps": short} if goes_on else {}))
        if not goes_on:
            if short is None:
                shutil.rmtree(part, ignore_errors=True)
            return False
    part.mkdir(parents=True, exist_ok=True)
    with locked(part), Progress(quiet=quiet) as progress:
        _claim(part, settings)
        outcome = Training(task, settings, part, progress).run(checkpoint_seconds) if settings.goals else None
        log = _rows(task, settings, outcome, progress)
        writing.write(out, log, _attributes(task, settings, outcome, log))
        if outcome is not None and not outcome.policies:  # medium-replay: the other recipes have failed
            progress.say(
                "the score was not reached within --training-steps: the file's attribute medium_reached is "
                f"false; a larger --training-steps goes on from {part}"
            )
            return True
    shutil.rmtree(part)
    return True


def _claim(part: Path, settings: Settings) -> None:
    """Makes the folder this run's, or checks that it is; the budget of training may have been raised."""
    path = part / "settings.json"
    new = settings.plain()
    if path.exists():
        old = files.read_json(path) | {"training_steps": new["training_steps"]}
        writing.refuse_other(part, old, new, "delete the folder or choose another --out")
    files.write_json(path, new)


def _rows(task: Task, settings: Settings, outcome: Outcome | None, progress: Progress) -> Log:
    """The rows of the file, flat."""
    if outcome is not None and settings.recipe == "medium-replay":
        return flatten(outcome.log)
    if settings.steps is None or outcome is None:
        return act(task, settings, "random", None, settings.steps or 0, progress)
    shares = np.diff(np.linspace(0, settings.steps, len(settings.goals) + 1).astype(int)).tolist()
    logs = []
    for (name, goal), rows in zip(settings.goals, shares, strict=True):
        if name not in outcome.policies:
            best = max((value for _, value in outcome.curve), default=float("nan"))
            raise RunFailed(
                f"{task.id}: training did not reach {goal:g} in {len(outcome.log) * settings.environments} "
                f"steps, the best evaluation was {best:.1f}; a larger --training-steps goes on from there"
            )
        logs.append(act(task, settings, name, outcome.policies[name][2], rows, progress))
    return np.concatenate(logs)


def act(
    task: Task,
    settings: Settings,
    name: str,
    policy: SquashedGaussianPolicy | None,
    rows: int,
    progress: Progress,
) -> Log:
    """``rows`` steps of a policy's sampled actions, or of uniform ones without a policy; flat."""
    size, stream = settings.environments, STREAMS[name]
    log: Log = np.zeros((-(-rows // size), size), record_type(task))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(settings.seed), ACT), stream)
    progress.begin(name, 0, len(log) * size, "steps")
    with Environments(task, size, settings.seed, stream) as environments:
        for step in range(len(log)):
            if policy is None:
                actions = uniform(task, size, (settings.seed, stream, step))
            else:
                actions = to_task(task, sample(policy, environments.observations, key, step))
            environments.step(actions, log[step])
            progress.advance((step + 1) * size)
    progress.end()
    return flatten(log, rows)


def _attributes(task: Task, settings: Settings, outcome: Outcome | None, log: Log) -> dict[str, Any]:
    ends = log["terminated"] | log["truncated"]
    attributes: dict[str, Any] = {
        "maker": "ipd collect",
        "note": "regenerated, not D4RL",
        "task": task.id,
        "recipe": settings.recipe,
        "seed": settings.seed,
        "steps": len(log),
        "episodes": int(ends.sum()),
        **(versions() | task.versions),
    }
    if outcome is not None:
        # Of each policy: what it had to reach, whether it did, and at which step and mean return.
        for name, goal in settings.goals:
            attributes[f"{name}_goal"] = goal
            attributes[f"{name}_reached"] = name in outcome.policies
            if name in outcome.policies:
                attributes[f"{name}_step"], attributes[f"{name}_return"] = outcome.policies[name][:2]
        attributes["training_curve"] = np.asarray(outcome.curve, np.float64).reshape(-1, 2)
    return attributes | {"settings": json.dumps(settings.plain())}
