"""A finished run, opened again: its policy to act with, another trial, another audit."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np

from ipd.data.episodes import Normaliser
from ipd.data.fit import require_order
from ipd.evaluation.tasks import task as find_task
from ipd.policy.act import Controller
from ipd.report import page
from ipd.runs import files, imagination, judging, learning, made_of, modelling, rundir, trials
from ipd.runs.context import Run
from ipd.runs.errors import InputError
from ipd.runs.progress import Progress
from ipd.runs.stages import load_episodes, require_task, stages_of, try_baseline, try_method, write_page
from ipd.runs.trained import Trained
from ipd.types import Spec


def open_run(folder: Path, task: bool = True, needs: tuple[str, ...] | None = None) -> Run:
    """A run with every learned stage finished (or those it `needs`), as its files say.

    Without `task` none is looked up. Raises `InputError` where it is no run or not finished. The data are
    read only when asked for.
    """
    job = rundir.read_job(folder)
    needs = stages_of(job.config) if needs is None else needs
    for stage in needs:
        if stage not in stages_of(job.config):
            raise InputError(f"{folder}: its {job.config.algo} has no stage {stage}")
    missing = [stage for stage in needs if not (folder / "stages" / stage / "done.json").exists()]
    if missing:
        raise InputError(f"{folder}: stage {missing[0]} is not finished; run the same `ipd train` again")
    manifest = files.read_object(folder / "manifest.json")
    found = find_task(job.task) if task and job.task else None
    with files.understood(folder / "manifest.json"):
        digest, spec = str(manifest["data"]["digest"]), Spec(**manifest["spec"])
        if found is not None:
            names = [str(name) for name in manifest["data"].get("observation_names", ())]
            require_order(names, found.observation_names, found.id, str(folder))
        if not all(isinstance(size, int) and 0 < size < 2**31 for size in spec):
            raise ValueError(f"{spec}: sizes are whole numbers above 0")
    with files.understood(folder / made_of.MADE_IN):
        normaliser = Normaliser.from_dict(files.read_object(folder / made_of.MADE_IN))
        sizes = {"observation": (spec.observation_size,), "action": (spec.action_size,), "reward": ()}
        for name, value in normaliser._asdict().items():
            if np.shape(value) != sizes[name.partition("_")[0]] or not np.isfinite(value).all():
                raise ValueError(f"{name} is not one finite number a dimension")
    run = Run(
        folder,
        job,
        found,
        partial(load_episodes, folder, job),
        digest,
        normaliser,
        spec,
        Progress(folder / "timing.jsonl"),
        trusted=True,
    )
    for stage in needs:
        run.verify(folder / made_of.MADE_IN, stage)
    return run


def evaluate(folder: Path, episodes: int | None = None) -> Path:
    """Tries the finished policies of a run again, with `episodes` each if given; returns the page's path."""
    run = open_run(folder)
    require_task(run)
    if episodes is not None:
        if episodes < 1:
            raise InputError(f"--episodes {episodes}: must be at least 1")
        evaluation = dataclasses.replace(run.config.evaluate, final_episodes=episodes)
        config = dataclasses.replace(run.config, evaluate=evaluation)
        run = dataclasses.replace(run, job=dataclasses.replace(run.job, config=config))
    with rundir.locked(folder), run.progress, trials.Early(run) as early:
        _note_versions(run)
        rundir.write_job(folder, run.job)
        name = run.config.algo
        if name == "ipd":
            values = learning.value(run)
            guide = guide_of(run, values)
            try_method(run, values, guide, learning.cloning(run), policy_of(run, guide), early)
        else:
            try_baseline(run, learning.baseline(run, name), early)
        return write_page(run, run.failed_in(("evaluate",)))


def audit(folder: Path) -> Path:
    """Compares imagination with the simulator for a finished run; returns the page's path."""
    run = open_run(folder)
    if "augment" not in stages_of(run.config):
        raise InputError(f"{folder}: the run imagined nothing; audit one that did")
    with rundir.locked(folder), run.progress:
        _note_versions(run)
        values = learning.value(run)
        world, split = modelling.world(run)
        augmented = imagination.augment(run, values, world, split)
        judging.audit(run, require_task(run), values, world, split, augmented)
        return page.write(folder)


def _note_versions(run: Run) -> None:
    """Says which packages are others than when the run began, if it tells: returns change with them."""
    path = run.folder / "manifest.json"
    with files.understood(path):
        was = dict(files.read_object(path).get("versions", {}))
    for change in rundir.changed_versions(was, rundir.versions()) if was else []:
        run.progress.say(f"note: since this run began, {change}")


def guide_of(run: Run, values: Trained) -> Trained:
    """The values that the policy learned from: the refitted ones where there are any."""
    return learning.refit(run, values, "trusted") if learning.refits(run.config) else values


def policy_of(run: Run, values: Trained) -> Trained:
    """The finished sequence policy that learned from `values`."""
    return learning.policy(run, values, "trusted" if run.config.augment.enabled else None)


def load(folder: str | Path, seed: int | None = None) -> Controller:
    """The finished policy of a run, ready to act: `reset()`, then `act(observation)` step by step.

    `seed` is one of the run's seeds (default: the first). Observations and actions are in the
    task's units, one vector or `(rows, obs)` after `reset(rows)`. A policy with `needs_reward` counts down
    the return it was asked for: `act(observation, reward of the step before)`. Raises `InputError`.
    """
    run, row = open_seed(Path(folder), seed)
    name = run.config.algo
    with files.understood(run.folder):
        if name != "ipd":
            return judging.acting(run, name, learning.baseline(run, name).state, row)
        guide = guide_of(run, learning.value(run))
        return judging.controller(run, guide, policy_of(run, guide).state, row)


def open_seed(folder: Path, seed: int | None = None) -> tuple[Run, slice]:
    """A finished run that says nothing, and the place of one of its seeds (default: the first) among them.

    Raises `InputError` as `open_run` does, and where the run has no such seed.
    """
    run = dataclasses.replace(open_run(folder, task=False), progress=Progress(quiet=True))
    row = run.row(seed)
    return run, slice(row, row + 1)
