"""The pipeline: value | world -> augment -> policy -> evaluate -> audit -> page, cloning beside it.

A baseline (`--algo`) is the stages it needs and its own, then evaluate and the page.

`execute` may be killed at any instant; called again with the same job it goes on where the files
say it was, and on a CPU ends with the same bytes as a run that was never killed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax

from ipd.config import FORMAT, Config, trimmed
from ipd.data.checks import check, facts
from ipd.data.columnmap import shortened
from ipd.data.columns import Storage
from ipd.data.episodes import (
    Episodes,
    Normaliser,
    fit_normaliser,
    locomotion_reward_scale,
)
from ipd.data.fit import other_options, require_sizes, require_windows
from ipd.data.sources import load as load_data
from ipd.data.sources import making, recorded
from ipd.evaluation.tasks import Task
from ipd.evaluation.tasks import task as find_task
from ipd.presets import problems, with_task
from ipd.report import page
from ipd.runs import examples, files, imagination, judging, learning, modelling, rundir, trials
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.context import Run
from ipd.runs.errors import InputError, RunFailed
from ipd.runs.made_of import JUDGING
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job
from ipd.runs.trained import Trained
from ipd.types import Spec


def train(
    data: str | Path,
    out: str | Path,
    env: str | None = None,
    config: Config | str = "default",
    seeds: int = 1,
    columns: str | None = None,
    until: str | None = None,
) -> Path:
    """Every stage of the method on `data`, in the run directory `out`; returns its page.

    `config` is a `Config` or a preset's name, which is adjusted to the task; `seeds` counts from 0;
    `columns` is a YAML file that says what the columns of a table are; `until` names a stage after which
    nothing more is needed: `world`, for instance, trains the world model alone. Called again after an
    interruption, or for later stages, it goes on. Raises as `execute` does.
    """
    try:
        named = env or recorded(str(data)).task
        chosen = with_task(config, named, str(data)) if isinstance(config, str) else config
    except KeyError as error:
        raise InputError(f"config: {error.args[0]}") from error
    return execute(Path(out), Job(str(data), env, tuple(range(seeds)), chosen, columns), until=until)


def execute(
    folder: Path,
    job: Job,
    progress: Progress | None = None,
    checkpoint_seconds: float = 30.0,
    reuse: tuple[Path, ...] = (),
    until: str | None = None,
) -> Path:
    """Runs all stages of `job` in `folder` and writes the page, whose path is returned.

    With `until`, the stage of that name and those it needs. Nothing is written before data, task and
    config have been found fit for each other. Raises `InputError`, `DataError` or `TaskError` where they
    are not, `RunFailed` where the run goes wrong.
    """
    wrong = problems(job.config)
    early = stages_of(job.config)[:-1]
    if until is not None and until not in early:
        wrong.append(f"--until {until}: no stage before the last of this run ({', '.join(early) or 'none'})")
    if not all(0 <= seed < 2**31 for seed in job.seeds):
        wrong.append(f"seeds {', '.join(map(str, job.seeds))}: must lie in [0, 2**31)")
    if wrong or not job.seeds or len(set(job.seeds)) < len(job.seeds):
        raise InputError("; ".join(wrong) or "--seeds: at least one is needed, and each only once")
    rundir.require_usable(folder)
    for other in reuse:
        rundir.read_job(other)
    episodes = load_episodes(folder, job)
    task = None if episodes.task is None else find_task(episodes.task)
    job = dataclasses.replace(job, task=None if task is None else task.id)
    overrides = _overrides(job)
    job = dataclasses.replace(job, config=trimmed(job.config))
    normaliser = _fit(episodes, task, job)
    spec = learning.spec_of(episodes, None if task is None else task.horizon)
    folder.mkdir(parents=True, exist_ok=True)
    progress = progress or Progress(folder / "timing.jsonl")
    with rundir.locked(folder), progress:
        for change in rundir.claim(folder, job, _manifest(job, overrides, episodes, spec)):
            progress.say(f"note: since this run began, {change}")
        _say_columns(episodes, progress)
        told = facts(episodes) | _doubts(episodes, task, progress)
        files.write_json(folder / "stages" / "data" / "summary.json", told)
        run = Run(
            folder, job, task, lambda: episodes, episodes.digest, normaliser, spec, progress,
            checkpoint_seconds, reuse,
        )  # fmt: skip
        run.keep_normaliser()
        _pipeline(run) if until is None else _only(run, until)
        return write_page(run, run.failed)


def write_page(run: Run, failed: dict[int, str]) -> Path:
    """Writes the page. Raises `RunFailed` where seeds `failed`, which the others outlived."""
    written = page.write(run.folder)
    if failed:
        wrong = "; ".join(f"seed {seed}: {text}" for seed, text in failed.items())
        raise RunFailed(f"{run.folder}: {wrong}; all other seeds are done, see {written}")
    return written


def load_episodes(folder: Path, job: Job) -> Episodes:
    """The data; a large set is kept on the disk that the run is on."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    return load_data(job.data, job.task, Storage(existing, job.config.stream.above_steps), job.columns)


def _say_columns(episodes: Episodes, progress: Progress) -> None:
    """What the columns of a table were taken for: names that suggest something else show here."""
    columns = {
        name: [value] if isinstance(value, str) else value for name, value in (episodes.columns or {}).items()
    }
    if columns:
        said = "; ".join(f"{name}: {shortened(value)}" for name, value in columns.items() if value)
        progress.say(f"data: columns as {said}")


def _doubts(episodes: Episodes, task: Task | None, progress: Progress) -> dict[str, Any]:
    """What `ipd data check` holds for a mistake, said and for the page; a set on disk is not read for it."""
    if episodes.disk is not None:
        progress.say("data: too many steps to be looked through here; `ipd data check` does it")
    findings = [*(check(episodes) if episodes.disk is None else episodes.doubts)]
    word = recorded(episodes.source)
    if task is not None and word.task == task.id:
        findings += other_options(word.options, task.options, task.id)
    found = [finding for finding in findings if finding.severity != "note"]
    for finding in found:
        progress.say(f"data: {finding.severity}, {finding.where}: {finding.message}; {finding.cure}")
    told = [{"what": f"{finding.where}: {finding.message}", "cure": finding.cure} for finding in found]
    return {"warnings": told} if told else {}


def _fit(episodes: Episodes, task: Task | None, job: Job) -> Normaliser:
    """The bridge between units, once the data have been found fit for task and config."""
    config = job.config.augment
    if "augment" in stages_of(job.config):
        require_windows(episodes, config.history_steps, config.imagine_steps)
    if "world" in stages_of(job.config):
        modelling.require_held_out(episodes)
    if task is None:
        return fit_normaliser(episodes)
    require_sizes(episodes, task.observation_size, task.action_size, task.id, task.observation_names)
    scale = locomotion_reward_scale(episodes) if task.locomotion else None
    return fit_normaliser(episodes, task.action_low, task.action_high, scale)


def stages_of(config: Config) -> tuple[str, ...]:
    """Stages that learn, in the order in which they run."""
    if config.algo != "ipd":
        algorithm = ALGORITHMS[config.algo]
        return (*algorithm.needs, algorithm.stage)
    imagines, refits = config.augment.enabled, learning.refits(config)
    wanted = {"value": True, "world": imagines, "cloning": True, "augment": imagines, "refit": refits,
              "policy": True}  # fmt: skip
    return tuple(stage for stage, there in wanted.items() if there)


def _only(run: Run, until: str) -> None:
    """A stage and what it needs, no more."""
    if until == "cloning":
        learning.cloning(run)
    elif until == "world":
        modelling.world(run)
    else:
        values = learning.value(run)
        if until in ("augment", "refit"):
            augmented = imagination.augment(run, values, *modelling.world(run))
        if until == "refit":
            learning.refit(run, values, augmented)


def _pipeline(run: Run) -> None:
    name = run.config.algo
    if name != "ipd":
        with trials.Early(run) as early:
            trained = learning.baseline(run, name, judging.snapshots_of_baseline(run, name, early))
            if _has_task(run):
                try_baseline(run, trained, early)
        return
    values, augmented = learning.value(run), None
    imagines = run.config.augment.enabled
    if imagines:
        world, split = modelling.world(run)
    cloning = learning.cloning(run)
    if imagines:
        augmented = imagination.augment(run, values, world, split)
        examples.view(run, values, world, split, augmented)
    guide = learning.refit(run, values, augmented) if augmented and learning.refits(run.config) else values
    with trials.Early(run) as early:
        early.begin(_yardsticks(run, values, guide, cloning))
        tell = judging.snapshots_of_method(run, guide, early)
        policy = learning.policy(run, guide, augmented, tell)
        if not _has_task(run):
            return
        try_method(run, values, guide, cloning, policy, early)
    if augmented is not None and require_task(run).settable:
        judging.audit(run, require_task(run), values, world, split, augmented)


def _has_task(run: Run) -> bool:
    if run.task is None:
        run.progress.say("no task was named (--env): the policy is trained, not tried")
    return run.task is not None


def try_baseline(run: Run, trained: Trained, early: trials.Early) -> None:
    """A baseline, with its snapshots on the way."""
    contenders = judging.of_baseline(run, run.config.algo, trained)
    judging.evaluate(run, require_task(run), contenders, (trained.fingerprint,), early)


def _yardsticks(run: Run, values: Trained, guide: Trained, cloning: Trained) -> list[trials.Contender]:
    found = judging.of_baseline(run, "bc", cloning, "cloning")
    found += judging.of_baseline(run, "iql", values, "quasi_optimal")
    if guide is not values:
        found += judging.of_baseline(run, "iql", guide, "quasi_optimal_refitted")
    return found


def try_method(
    run: Run, values: Trained, guide: Trained, cloning: Trained, policy: Trained, early: trials.Early
) -> None:
    """IPD beside its yardsticks; `guide` are the values that it learned from, refitted or not."""
    contenders = _yardsticks(run, values, guide, cloning) + judging.of_method(run, guide, policy)
    inputs = tuple(stage.fingerprint for stage in (values, guide, cloning, policy))
    judging.evaluate(run, require_task(run), contenders, inputs, early)


def require_task(run: Run) -> Task:
    """The task to be tried in. Raises `InputError` where the run has none."""
    if run.task is None:
        raise InputError(f"{run.folder}: the run has no task to be tried in; train it with --env ID")
    return run.task


def _overrides(job: Job) -> list[str]:
    """Dotted fields in which the job, as it was asked for, is not what its preset says."""
    try:
        plain = with_task(job.config.preset, job.task, job.data, job.config.algo)
    except KeyError:
        return ["preset"]
    changed = rundir.differences(dataclasses.replace(job, config=plain), job)
    return [line.partition(":")[0] for line in changed]


def _manifest(job: Job, overrides: list[str], episodes: Episodes, spec: Spec) -> dict[str, Any]:
    """What ran; no clock times, so that equal runs are equal files."""
    return {
        "format": FORMAT,
        "versions": rundir.versions(),
        "device": jax.default_backend(),
        "data": {
            "source": job.data,
            "digest": episodes.digest,
            "episodes": episodes.num_episodes,
            "steps": episodes.num_steps,
            "remarks": list(episodes.remarks),
            "made": making(job.data),
            "observation_names": list(episodes.observation_names),
            "action_names": list(episodes.action_names),
            **({} if episodes.columns is None else {"columns": episodes.columns}),
        },
        "task": job.task,
        "spec": spec._asdict(),
        "seeds": list(job.seeds),
        "overrides": overrides,
        "stages": [*stages_of(job.config), *JUDGING],
    }
