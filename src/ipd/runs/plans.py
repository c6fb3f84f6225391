"""The plan of a suite: its runs in order, and for every stage that several need, which of them makes it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ipd.config import Config, content_hash
from ipd.presets import override, problems, with_task
from ipd.runs import files, rundir
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.errors import InputError
from ipd.runs.rundir import Job
from ipd.runs.stages import stages_of
from ipd.runs.suites import SETS, Source, Suite, Variant, find


@dataclasses.dataclass(frozen=True)
class Entry:
    """One run of a sweep."""

    key: str
    """Its folder below the sweep's."""
    dataset: str
    origin: str
    """`D4RL` or `regenerated`."""
    variant: Variant
    job: Job
    software: str
    """`rundir.software()` when the run was planned."""
    stages: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Stage that learns -> key of the run that makes it: this one, or an earlier one of the plan."""
    found: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Stage of its own -> key of a run outside the plan that has finished it already."""

    @property
    def makers(self) -> tuple[str, ...]:
        """Keys of the runs that this one takes stages from."""
        earlier = (maker for maker in self.stages.values() if maker != self.key)
        return tuple(dict.fromkeys([*earlier, *self.found.values()]))

    def command(self, out: Path, makers: tuple[str, ...] | None = None) -> list[str]:
        """The words behind `ipd` that make this run below `out`, taking over from `makers` (all of them)."""
        job, config = self.job, self.job.config
        words = ["train", "--data", job.data, *(["--env", job.task] if job.task else [])]
        words += ["--algo", config.algo, "--preset", config.preset, "--seeds", str(len(job.seeds))]
        words += ["--first-seed", str(job.seeds[0])] if job.seeds[0] else []
        for field, value in self.variant.overrides.items():
            parts = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.replace('_', '-')}", *(f"{part:g}" for part in parts)]
        reuse = [str(out / maker) for maker in (self.makers if makers is None else makers)]
        return [*words, *(["--reuse", *reuse] if reuse else []), "--out", str(out / self.key)]


class Plan(NamedTuple):
    """What a sweep will do, in order."""

    entries: tuple[Entry, ...]
    skipped: Mapping[str, str]
    """Set without data -> why, in one line."""
    remarks: tuple[str, ...]


def plan(suite: Suite, preset: str, seeds: int, group: int, root: Path | None = None) -> Plan:
    """Expands a suite to runs: sets, then groups of seeds, then the chosen ones of its variants.

    Raises `InputError` where preset or numbers are wrong, or where nothing is left to run.
    """
    if root is not None and not root.is_dir():
        raise InputError(f"--data-root {root}: not a folder")
    if seeds < 1 or group < 1:
        raise InputError("--seeds and --group: must be at least 1")
    software = rundir.software()
    groups = [tuple(range(first, min(first + group, seeds))) for first in range(0, seeds, group)]
    entries: list[Entry] = []
    skipped, remarks = dict[str, str](), list[str]()
    for name in suite.sets:
        dataset = SETS[name]
        source = find(dataset, root)
        if source is None:
            where = f"in {root}" if root else "without --data-root"
            skipped[name] = f"neither {dataset.file} nor {name}.hdf5 {where}"
            continue
        remarks += [f"{name}: {source.remark}"] if source.remark else []
        if dataset.env is None:
            remarks.append(f"{name}: no living task has D4RL's observations; trained, not evaluated")
        for each in groups:
            # which of them are equal is seen among all variants, whichever are run
            whole = _shared(_entry(name, source, v, preset, each, software) for v in suite.variants)
            chosen = [entry for entry in whole if suite.runs(entry.variant)]
            same = [entry.variant.name for entry in chosen if _makes_nothing(entry)]
            entries += _shared(entry for entry in chosen if entry.variant.name not in same)
            told = f"{', '.join(same)}: left out, equal to another run under preset {preset}"
            remarks += [told] if same and told not in remarks else []
    if not entries and len(skipped) < len(suite.sets):
        raise InputError("nothing to run: " + "; ".join(remarks))
    if not entries:
        raise InputError("no data: " + "; ".join(f"{name}: {why}" for name, why in skipped.items()))
    return Plan(tuple(entries), skipped, tuple(remarks))


def _entry(
    name: str, source: Source, variant: Variant, preset: str, seeds: tuple[int, ...], software: str
) -> Entry:
    env = SETS[name].env
    try:
        config = with_task("+".join([preset, *variant.ablations]), env, source.path, variant.algo)
    except KeyError as error:
        raise InputError(f"--preset: {error.args[0]}") from error
    config = override(config, variant.overrides)
    if problems(config):
        raise InputError("; ".join(problems(config)))
    span = f"seeds-{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else f"seeds-{seeds[0]}"
    key = f"{name}/{variant.name}/{span}"
    return Entry(key, name, source.origin, variant, Job(source.path, env, seeds, config), software)


def _shared(entries: Iterable[Entry]) -> list[Entry]:
    """Runs of one set and one group of seeds: the first that needs a stage makes it for those behind it."""
    makers: dict[str, str] = {}
    return [
        dataclasses.replace(
            entry,
            stages={s: makers.setdefault(made, entry.key) for s, made in learned(entry.job.config).items()},
        )
        for entry in entries
    ]


def _makes_nothing(entry: Entry) -> bool:
    """Whether an ablation takes every stage over: under this preset it changes nothing."""
    ablated = entry.variant.ablations and not entry.variant.overrides
    return bool(ablated) and entry.key not in entry.stages.values()


def learned(config: Config) -> dict[str, str]:
    """Stage that learns -> hash of the settings behind it; for equal data and seeds, equal means shared.

    It stands for the fingerprint that a run gives the stage, which also knows data and code.
    """
    judged = "policy" if config.algo == "ipd" else ALGORITHMS[config.algo].stage
    found: dict[str, str] = {}
    for stage in stages_of(config):
        settings = [getattr(config, stage)]
        settings += [config.value] if stage == "refit" else []
        settings += [config.evaluate.snapshots] if stage == judged else []
        alone = stage in ("value", "world", "cloning") and stage != judged
        found[stage] = content_hash(stage, *settings, *([] if alone else found.values()))
    return found


def with_found(planned: Plan, out: Path) -> Plan:
    """The plan, with the stages that runs below `out` which are not part of it have finished.

    They may be of another suite, or variants that this sweep leaves out.
    """
    keys = {entry.key for entry in planned.entries}
    made: dict[str, tuple[int, str]] = {}
    for folder in (path.parent for path in out.glob("*/*/*/config.yaml")):
        key = folder.relative_to(out).as_posix()
        try:
            wanted = {} if key in keys else _identities(rundir.read_job(folder))
        except InputError:
            continue
        for stage, identity in wanted.items():
            done = folder / "stages" / stage / "done.json"
            if done.exists():
                # the newest is the likeliest to be of this software; a stage of another is not taken
                made[identity] = max(made.get(identity, (0, "")), (done.stat().st_mtime_ns, key))

    def completed(entry: Entry) -> Entry:
        own = {s: i for s, i in _identities(entry.job).items() if entry.stages[s] == entry.key}
        return dataclasses.replace(entry, found={s: made[i][1] for s, i in own.items() if i in made})

    return planned._replace(entries=tuple(map(completed, planned.entries)))


def _identities(job: Job) -> dict[str, str]:
    """Stage that learns -> hash of its settings, seeds, task and the name of its data."""
    source = (Path(job.data).name, job.task, job.seeds)
    return {stage: content_hash(made, *source) for stage, made in learned(job.config).items()}


def write_plan(out: Path, name: str, preset: str, planned: Plan) -> None:
    """`DIR/plan.json`: every run of every suite planned there; no clock times."""
    path = out / "plan.json"
    old_runs: list[dict[str, Any]] = []
    old_skipped: list[dict[str, Any]] = []
    # absent, or damaged: it is only a record, the runs are beside it
    with contextlib.suppress(InputError, KeyError, TypeError):
        old = files.read_json(path)
        old_runs, old_skipped = old["runs"], old["skipped"]
    runs = [
        {"run": entry.key, "suite": name, "set": entry.dataset, "origin": entry.origin,
         "data": entry.job.data, "task": entry.job.task, "algo": entry.job.config.algo,
         "variant": entry.variant.name, "preset": preset, "seeds": list(entry.job.seeds),
         "stages": {**entry.stages, **entry.found}, "command": ["ipd", *entry.command(out)]}
        for entry in planned.entries
    ]  # fmt: skip
    skipped = [{"set": each, "suite": name, "why": why} for each, why in planned.skipped.items()]
    new = {(run["suite"], run["run"]) for run in runs}
    kept = [run for run in old_runs if (run["suite"], run["run"]) not in new]
    absent = [each for each in old_skipped if each["suite"] != name]
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(path, {"runs": kept + runs, "skipped": absent + skipped})
