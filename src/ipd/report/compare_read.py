"""Runs under some folders, each as scores by seed with what was learned from which data.

A run that cannot be used (failed, unfinished, damaged) is named with the reason and leaves the others
alone. One bad seed takes its whole run out: the mean of the seeds that went well would flatter.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import yaml

from ipd.config import ADDED, read_yaml, seal_problem
from ipd.report import read
from ipd.report.read import Evaluation, ReportError
from ipd.report.tables import Samples

OFFICIAL = re.compile(
    r"(?:hopper|walker2d|halfcheetah|ant)_[a-z_]+-v[012]|(?:pen|hammer|door|relocate)-[a-z]+-v[01]"
    r"|(?:mini_)?kitchen_microwave_kettle_[a-z_]+-v0"
)
"""File names of D4RL, without their ending."""
KITCHEN = {
    "mini_kitchen_microwave_kettle_light_slider-v0": "kitchen-complete-v0",
    "kitchen_microwave_kettle_light_slider-v0": "kitchen-partial-v0",
    "kitchen_microwave_kettle_bottomburner_light-v0": "kitchen-mixed-v0",
}
STEPS = {
    "halfcheetah-medium-v2": 1_000_000,
    "halfcheetah-medium-replay-v2": 202_000,
    "hopper-medium-v2": 1_000_000,
    "hopper-medium-replay-v2": 402_000,
    "walker2d-medium-v2": 1_000_000,
    "walker2d-medium-replay-v2": 302_000,
    "kitchen-complete-v0": 3_680,
    "kitchen-partial-v0": 136_950,
    "hammer-human-v1": 11_310,
    "pen-cloned-v1": 500_000,
}
"""About as many steps as D4RL's file has: a file with its name and another size is another one."""
SEEDS = re.compile(r"seeds-[\d-]+")
"""Folder of one group of seeds."""

NOT_SETTINGS = ("data", "seeds", "preset", "algo", "evaluate", "policy.snapshots")
"""Parts of a config in which runs of one and the same method may differ."""
BASELINES = ("cql", "rebrac", "mobile", "dt", "qdt", "edt", "reinformer", "qt", "dd")
"""Sections of a config that speak of one algorithm only."""


class Dataset(NamedTuple):
    """What a run learned from."""

    name: str
    """As ``hopper-medium-replay``; with its version where it is D4RL's file."""
    official: bool
    """Whether it is D4RL's own file, as far as its name, number of steps and own word tell."""
    digest: str


class Entry(NamedTuple):
    """One usable run; scores are normalised, seed to one score an episode."""

    name: str
    """Its folder, below the folder that is reported on."""
    dataset: Dataset
    algo: str
    preset: str
    settings: dict[str, Any]
    """Dotted field -> value, of all that could change what is learned."""
    overrides: tuple[str, ...]
    """Those of them that are not what the preset says; () for an older run, which does not tell."""
    plain: bool
    """Whether it is its method as a preset has it, or lies in the method's own folder: no variant."""
    last: Samples
    best: Samples
    """At each seed's own best step, chosen by these very episodes: it flatters."""
    steps: tuple[int, dict[int, int]]
    """Last step, and seed to best step."""
    snapshots: int
    """Moments of training among which the best was chosen."""
    prompts: dict[str, Samples]
    """``ipd`` and its ``ipd@P``, a fixed target return in place of V; {} where there is none."""
    simulator: dict[str, str]
    """Package -> version that its policies were tried in; {} for an older run, which does not tell."""


class LeftOut(NamedTuple):
    """A run that is not counted, and why."""

    name: str
    reason: str
    what: str = "run"
    """Or `set`, which a sweep had no data of, or `plan`."""


def find(paths: Sequence[Path]) -> list[Path]:
    """Run directories at or below ``paths``, each once, in order of their names.

    Raises ReportError for a path that neither is a run nor holds one.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        below = sorted(_runs_below(path))
        if not below:
            raise ReportError(
                f"{path}: neither a run nor a folder with runs; `ipd train --out RUN` makes one"
            )
        found.update({run.resolve(): run for run in below})
    return sorted(found.values())


def holds_runs(folder: Path) -> bool:
    """Whether it is a folder with runs in it, and no run itself."""
    return not is_run(folder) and any(True for _ in _runs_below(folder))


def is_run(folder: Path) -> bool:
    """Whether `ipd train` has written here."""
    marks = ("manifest.json", "evaluations.csv", "metrics.jsonl", "normaliser.json")
    return (folder / "config.yaml").is_file() and any((folder / mark).is_file() for mark in marks)


def _runs_below(path: Path) -> Iterator[Path]:
    """Links are followed, for finished runs are often moved to another disk; each place is seen once."""
    seen: set[str] = set()
    for folder, inner, _ in os.walk(path, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:
            inner.clear()
            continue
        seen.add(place)
        if is_run(Path(folder)):
            inner.clear()
            yield Path(folder)
        inner[:] = [name for name in inner if not name.startswith(".")]


def read_all(runs: Sequence[Path], root: Path) -> tuple[list[Entry], list[LeftOut]]:
    """The usable ones of ``runs``, named by their place below ``root``, and the others."""
    entries: list[Entry] = []
    left_out = []
    for run in runs:
        name = os.path.relpath(run, root)
        try:
            if _failure(run) or read.stranger(run):
                raise ReportError(_failure(run) or read.stranger(run))
            entry = read_run(run, run.resolve().name if name == "." else name)
            twin = next((other.name for other in entries if _same(entry, other)), None)
            if twin is not None:
                raise ReportError(f"the same episodes as {twin}")
            entries.append(entry)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
            reason = str(problem) if isinstance(problem, ReportError) else f"damaged ({problem!r})"
            left_out.append(LeftOut(name, reason.replace(f"{run}{os.sep}", "")))
    return entries, left_out


def planned(paths: Sequence[Path], root: Path) -> list[LeftOut]:
    """What the plans of sweeps in ``paths`` name and no run directory shows: failed at once, not yet
    begun, or without data."""
    found = []
    for path in paths:
        try:
            plan = read.read_json(path / "plan.json")
            runs = [path / entry["run"] for entry in plan.get("runs", [])]
            skipped = [(str(entry["set"]), entry["why"]) for entry in plan.get("skipped", [])]
        except (ReportError, KeyError, TypeError):
            name = os.path.relpath(path / "plan.json", root)
            found.append(LeftOut(name, "no plan of a sweep; delete it and sweep again", "plan"))
            continue
        for run in (run for run in runs if not is_run(run)):
            name = os.path.relpath(run, root)
            found.append(LeftOut(name, _failure(run) or "planned, not run yet"))
        found += [LeftOut(name, f"skipped: {why}", "set") for name, why in skipped]
    return list(dict.fromkeys(found))


def _failure(run: Path) -> str:
    """Why a sweep's run failed, as the sweep wrote beside its folder; "" where it wrote nothing."""
    told = {}
    with contextlib.suppress(ReportError):  # cut short: as if it were not there
        told = read.read_json(run.parent / f"{run.name}.json")
    return f"failed: {told.get('line', '')}" if told.get("state") == "failed" else ""


def read_run(run: Path, name: str) -> Entry:
    """One run. Raises ReportError where it is not finished, or its files do not hold what they should."""
    manifest = read.read_manifest(run)
    config = _config(run / "config.yaml")
    algo = str(config.get("algo", "ipd"))
    if config.get("task", "") is None:
        raise ReportError("trained, not evaluated: no task was named (--env)")
    if (run / "stages").is_dir() and not (run / "stages" / "evaluate" / "done.json").is_file():
        raise ReportError("unfinished: no evaluation yet; the same `ipd train` goes on where it stopped")
    if not (run / "evaluations.csv").is_file():
        raise ReportError("failed or unfinished: no evaluations.csv")
    rows = read.evaluations(run)
    judged = [row for row in rows if row.policy == algo]
    if not judged:
        raise ReportError(f"evaluations.csv: no episode of the policy {algo}")
    last = judged_last(rows, algo, config["seeds"])
    twice = next((key for key, count in Counter(row[:4] for row in rows).items() if count > 1), None)
    if twice is not None:
        where = "{}, seed {}, step {}, episode {}".format(*twice)
        raise ReportError(f"evaluations.csv: {where} is there twice")
    best = {
        seed: max((float(values.mean()), step) for step, values in by_step.items())[1]
        for seed, by_step in _by_seed(judged).items()
    }
    policies = sorted({row.policy for row in rows if row.policy.startswith("ipd@")}, key=_target)
    settings = _flat({key: part for key, part in config.items() if key not in BASELINES or key == algo})
    # an older run does not tell a newer field, and is no other experiment for that
    settings |= {
        k: v for k, v in ADDED.items() if k not in settings and k.partition(".")[0] in {*config, "stream"}
    }
    settings = {key: value for key, value in settings.items() if not key.startswith(NOT_SETTINGS)}
    facts, told = manifest.get("data", {}), manifest.get("overrides")
    if not isinstance(facts, dict) or not isinstance(facts.get("steps", 0), int):
        raise ReportError("manifest.json: data tells no number of steps")
    overrides = None if told is None else tuple(key for key in map(str, told) if key in settings)
    preset = str(config.get("preset", ""))
    return Entry(
        name=name,
        dataset=dataset_of(str(config["data"]), facts),
        algo=algo,
        preset=preset,
        settings=settings,
        overrides=overrides or (),
        plain=_plain(run.resolve(), algo, preset, overrides),
        last=last,
        best={seed: values[best[seed]] for seed, values in _by_seed(judged).items()},
        steps=(max(row.step for row in judged), best),
        snapshots=len({row.step for row in judged}),
        prompts={policy: judged_last(rows, policy, config["seeds"]) for policy in ("ipd", *policies)}
        if policies and algo == "ipd"
        else {},
        simulator=read.simulator(run, manifest),
    )


def place_of(folder: PurePath) -> str:
    """The part of a run's path that tells it from others; a group of seeds has its parent's."""
    return next((part for part in reversed(folder.parts) if not SEEDS.fullmatch(part)), folder.name)


def _plain(run: Path, algo: str, preset: str, overrides: tuple[str, ...] | None) -> bool:
    if overrides is None:  # an older run: one of a sweep tells by its folder
        return place_of(run) == algo or ("+" not in preset and place_of(run) == run.name)
    return place_of(run) == algo or not ("+" in preset or overrides)


def judged_last(rows: Sequence[Evaluation], policy: str, seeds: Sequence[int]) -> Samples:
    """Normalised scores at the policy's last step, seed by seed.

    Raises ReportError where a seed of the config has none there, or fewer than another, or a score is
    no finite number.
    """
    mine = [row for row in rows if row.policy == policy]
    for row in mine:
        if not (math.isfinite(row.ret) and math.isfinite(row.normalized)):
            what = "task has no normalised score" if math.isfinite(row.ret) else "return is not finite"
            where = f"seed {row.seed}, step {row.step}, episode {row.episode}"
            raise ReportError(f"evaluations.csv: {policy}, {where}: the {what}")
    last = max(row.step for row in mine)
    found = {seed: values[last] for seed, values in _by_seed(mine).items() if last in values}
    absent = sorted({*seeds, *(row.seed for row in mine)} - set(found))
    if absent:
        raise ReportError(f"unfinished: {policy} has no episode of seed {absent[0]} at step {last}")
    counts = {len(values) for values in found.values()}
    if len(counts) > 1:
        span = f"{min(counts)} to {max(counts)}"
        raise ReportError(f"unfinished: {policy} has {span} episodes a seed at step {last}")
    return found


def dataset_of(source: str, facts: dict[str, Any]) -> Dataset:
    """The data's name from ``data`` of the config, and whether it is D4RL's file.

    ``facts`` is ``data`` of the manifest. Only a file with the name of one of STEPS and as many steps
    counts as D4RL's, and only if it did not say how it was made; bundled, collected and unknown data
    are regenerated. These have no version, or one that D4RL's set of that name in STEPS does not have.
    """
    stem = re.sub(r"\.(hdf5|h5|npz|parquet)$", "", re.split(r"[/\\:]", source.rstrip("/"))[-1])
    digest = str(facts.get("digest", ""))
    name = KITCHEN.get(stem, stem.lower().replace("_", "-"))
    usual = STEPS.get(name, 0)
    near = abs(facts.get("steps", 0) - usual) <= 0.01 * usual
    if usual and near and OFFICIAL.fullmatch(stem) and ":" not in source and not facts.get("made"):
        return Dataset(name, True, digest)
    return Dataset(re.sub(r"-v\d+$", "", name) if usual else name, False, digest)


def _config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        config, problem = read_yaml(text), seal_problem(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ReportError(f"config.yaml: not YAML ({' '.join(str(error).split())})") from None
    if problem or not isinstance(config, dict) or "data" not in config:
        raise ReportError(f"config.yaml: {problem or 'names no data'}")
    seeds = config.setdefault("seeds", [])
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        raise ReportError("config.yaml: seeds are no list of numbers")
    return config


def _flat(value: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, part in value.items():
        found |= _flat(part, f"{path}{key}.") if isinstance(part, dict) else {f"{path}{key}": part}
    return found


def _by_seed(rows: Sequence[Evaluation]) -> dict[int, dict[int, Any]]:
    """Seed -> step -> normalised scores, one an episode."""
    found: dict[int, dict[int, list[float]]] = {}
    for row in sorted(rows, key=lambda row: (row.seed, row.step, row.episode)):
        found.setdefault(row.seed, {}).setdefault(row.step, []).append(row.normalized)
    return {
        seed: {step: np.array(values, np.float64) for step, values in steps.items()}
        for seed, steps in found.items()
    }


def _target(policy: str) -> float:
    try:
        return float(policy.split("@", 1)[1])
    except ValueError:
        raise ReportError(f"evaluations.csv: the policy {policy} names no target return") from None


def _same(one: Entry, other: Entry) -> bool:
    """Whether two runs of one method hold the same episodes (a copy)."""
    return (
        (one.dataset, one.algo, one.settings, sorted(one.last))
        == (other.dataset, other.algo, other.settings, sorted(other.last))
        and all(np.array_equal(one.last[seed], other.last[seed]) for seed in one.last)
    )  # fmt: skip
