"""Many runs as a comparison: methods on data sets, and what can be said of them over all sets.

Runs of one method on one data set whose settings agree are put together: their seeds are more seeds.
The method's main runs stand in the table of methods; runs with other settings are variants and stand
apart, named by what is different.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from ipd.report import compare_read, statistics
from ipd.report.compare_read import Dataset, Entry, LeftOut
from ipd.report.read import Floats, ReportError
from ipd.report.statistics import Interval
from ipd.report.tables import METHODS, Samples, mean_of_seeds

OURS = "ipd"
ENOUGH_SEEDS = 3
"""Of each side, for an interval over runs and for a claim."""
MOST_FIELDS = 2
"""A variant that differs in more fields is named by its folder."""


class Cell(NamedTuple):
    """One method on one data set: all its runs, as scores by seed."""

    dataset: Dataset
    algo: str
    label: str
    """What is different from the method's main runs; "" for these."""
    differs: tuple[str, ...]
    """Every field that is, with its value."""
    plain: bool
    """Whether it can be the method's main runs; a variant cannot, even alone."""
    overrides: tuple[str, ...]
    folders: tuple[str, ...]
    preset: str
    settings: dict[str, Any]
    last: Samples
    best: Samples
    snapshots: int
    """The largest number of evaluations among which a best one was chosen."""
    prompts: dict[str, Samples]


class Score(NamedTuple):
    """Mean normalised score with its 95 % interval over seeds, episodes drawn within."""

    mean: float
    low: float
    high: float
    """NaN for a single seed: episodes of one seed say nothing about another."""
    seeds: int
    episodes: int


class Standing(NamedTuple):
    """One method over all data sets."""

    algo: str
    sets: int
    """Data sets it was run on, of those IPD was."""
    iqm: Interval | None
    """None where a set is missing: means over other sets would not compare."""
    improvement: Interval | None
    """Probability that a run of IPD is better, over the sets that both have; None for IPD itself."""


class Comparison(NamedTuple):
    """Everything that is said about a number of runs."""

    entries: list[Entry]
    cells: list[Cell]
    left_out: list[LeftOut]

    @property
    def datasets(self) -> list[Dataset]:
        """In order of their names."""
        return sorted({cell.dataset for cell in self.cells})

    @property
    def algos(self) -> list[str]:
        """Methods with main runs, in a reader's order; strangers before IPD."""
        return [algo for algo in self.found if any(self.main(dataset, algo) for dataset in self.datasets)]

    @property
    def found(self) -> list[str]:
        """As ``algos``, with methods of which there are variants only."""
        order = list(METHODS)
        return sorted(
            {cell.algo for cell in self.cells},
            key=lambda name: (order.index(name) if name in order else order.index(OURS) - 0.5, name),
        )

    def of(self, dataset: Dataset, algo: str) -> list[Cell]:
        """The method's main runs on a data set, if any, then its variants; [] where it was not run."""
        return [cell for cell in self.cells if (cell.dataset, cell.algo) == (dataset, algo)]

    def main(self, dataset: Dataset, algo: str) -> Cell | None:
        """The method's main runs on a data set; None where there are none, or variants only."""
        return next((cell for cell in self.of(dataset, algo) if not cell.label), None)


def load(paths: Sequence[Path], root: Path) -> Comparison:
    """Reads every run at or below ``paths``; names are places below ``root``.

    Raises ReportError where a path holds no run, or no run can be used.
    """
    entries, left_out = compare_read.read_all(compare_read.find(paths), root)
    left_out += compare_read.planned(paths, root)
    if not entries:
        why = "; ".join(f"{left.name}: {left.reason}" for left in left_out)
        raise ReportError(f"no run to compare ({why})")
    return Comparison(entries, gather(entries), left_out)


def gather(entries: Sequence[Entry]) -> list[Cell]:
    """Runs put together by data set, method and settings, and the variants named."""
    groups: dict[tuple[Dataset, str, str], list[list[Entry]]] = {}
    # runs of many seeds first: where seeds overlap, those of few are the ones that find no room
    for entry in sorted(entries, key=lambda entry: -len(entry.last)):
        key = (entry.dataset, entry.algo, json.dumps(entry.settings, sort_keys=True, default=str))
        alike = groups.setdefault(key, [])
        # the same seed twice is another experiment (say, of an older version), not one more seed
        room = next((group for group in alike if all(not set(entry.last) & set(e.last) for e in group)), None)
        room.append(entry) if room is not None else alike.append([entry])
    methods: dict[tuple[Dataset, str], list[Cell]] = {}
    for (dataset, algo, _), alike in groups.items():
        methods.setdefault((dataset, algo), []).extend(_together(group) for group in alike)
    return [cell for cells in methods.values() for cell in _named(cells)]


def _together(group: Sequence[Entry]) -> Cell:
    group = sorted(group, key=lambda entry: entry.name)
    first = group[0]
    return Cell(
        dataset=first.dataset,
        algo=first.algo,
        label="",
        differs=(),
        plain=any(entry.plain for entry in group),
        overrides=first.overrides,
        folders=tuple(entry.name for entry in group),
        preset=first.preset,
        settings=first.settings,
        last=_union([entry.last for entry in group]),
        best=_union([entry.best for entry in group]),
        snapshots=max(entry.snapshots for entry in group),
        prompts={
            name: _union([entry.prompts[name] for entry in group if name in entry.prompts])
            for name in dict.fromkeys(name for entry in group for name in entry.prompts)
        },
    )


def _union(samples: Sequence[Samples]) -> Samples:
    return dict(sorted((seed, values) for part in samples for seed, values in part.items()))


def _named(cells: list[Cell]) -> list[Cell]:
    """The main runs first, if any are plain, then the others with their names."""
    others = sorted(cells, key=_mainness)
    main = others.pop(0) if others[0].plain else None
    labels = [_label(cell, main) for cell in others]
    named = []
    for cell, label in zip(others, labels, strict=True):
        if labels.count(label) > 1:
            rivals = [other.settings for other, same in zip(others, labels, strict=True) if same == label]
            apart = [key for key in cell.settings if len({str(rival.get(key)) for rival in rivals}) > 1]
            fields = [_short(cell.settings, key) for key in apart[: MOST_FIELDS + 1]]
            label = ", ".join(
                [label, *fields] if 0 < len(fields) <= MOST_FIELDS else [label, cell.folders[0]]
            )
        differs = tuple(_field(cell.settings, key) for key in _differing(cell, main))
        named.append(cell._replace(label=label, differs=differs))
    return [*([main] if main else []), *sorted(named, key=lambda cell: cell.label)]


def _mainness(cell: Cell) -> tuple[Any, ...]:
    """The smallest are a method's main runs: no variant, its own folder, a plain preset, the most seeds."""
    places = [list(reversed(PurePath(folder).parts)) for folder in cell.folders]
    depth = min(parts.index(cell.algo) if cell.algo in parts else 99 for parts in places)
    folder = cell.folders[0]
    return not cell.plain, depth, cell.preset.count("+"), -len(cell.last), len(folder), folder


def _differing(cell: Cell, main: Cell | None) -> list[str]:
    """Fields in which it is not as the main runs; without these, as its preset."""
    if main is None:
        return list(cell.overrides)
    keys = dict.fromkeys([*main.settings, *cell.settings])
    absent = object()
    return [key for key in keys if cell.settings.get(key, absent) != main.settings.get(key, absent)]


def _field(settings: dict[str, Any], key: str) -> str:
    value = settings.get(key, "absent")
    if isinstance(value, float):
        value = f"{value:g}"
    return f"{key} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def _short(settings: dict[str, Any], key: str) -> str:
    """``_field`` without the section, where no other section has a field of that name."""
    name = key.rpartition(".")[2]
    alike = sum(other.rpartition(".")[2] == name for other in {*settings, key})
    return _field(settings, key).removeprefix(key.removesuffix(name)) if alike == 1 else _field(settings, key)


def _label(cell: Cell, main: Cell | None) -> str:
    base, *added = cell.preset.split("+")
    plain, *usual = main.preset.split("+") if main else [base]
    parts = [base] * (base != plain) + [part for part in added if part and part not in usual]
    if parts:
        return "+".join(parts)
    keys = _differing(cell, main)
    if 0 < len(keys) <= MOST_FIELDS:
        return ", ".join(_short(cell.settings, key) for key in keys)
    folder = PurePath(cell.folders[0])
    place = compare_read.place_of(folder)
    if (
        not keys and main
    ):  # another experiment of the very same settings: only the whole path tells them apart
        return f"again in {folder}"
    return folder.name if place == cell.algo else place


def score(samples: Samples) -> Score:
    """Mean over seeds of each seed's mean, with its interval."""
    episodes = sum(len(values) for values in samples.values())
    if len(samples) < 2:
        return Score(mean_of_seeds(samples), math.nan, math.nan, len(samples), episodes)
    return Score(*statistics.mean_interval(list(samples.values())), len(samples), episodes)


def runs_of(comparison: Comparison, algo: str, datasets: Sequence[Dataset]) -> list[Floats]:
    """One array a data set: the last score of each of the method's main seeds, a mean over episodes."""
    cells = [comparison.main(dataset, algo) for dataset in datasets]
    return [np.array([values.mean() for values in cell.last.values()]) for cell in cells if cell]


def sets_of(comparison: Comparison, *algos: str) -> list[Dataset]:
    """Data sets on which all the methods have main runs."""
    return [d for d in comparison.datasets if all(comparison.main(d, algo) for algo in algos)]


def variants_only(comparison: Comparison) -> list[str]:
    """What has no main runs although it was run: method and data set."""
    return [
        f"{name_of(algo)} on {title(dataset, comparison.datasets)}"
        for dataset in comparison.datasets
        for algo in comparison.found
        if comparison.of(dataset, algo) and not comparison.main(dataset, algo)
    ]


def presets(comparison: Comparison) -> dict[str, list[str]]:
    """Base preset of the main runs -> those runs, as method and data set."""
    found: dict[str, list[str]] = {}
    for cell in comparison.cells:
        if not cell.label:
            where = f"{name_of(cell.algo)} on {title(cell.dataset, comparison.datasets)}"
            found.setdefault(cell.preset.partition("+")[0], []).append(where)
    return found


def judged(comparison: Comparison) -> list[Dataset]:
    """The data sets that count in a measure over all: those with main runs of IPD, or without it of any."""
    ours = [OURS] if OURS in comparison.algos else comparison.algos
    return [d for d in comparison.datasets if any(comparison.main(d, algo) for algo in ours)]


def standings(comparison: Comparison) -> list[Standing]:
    """Every method over all sets: IQM with interval, and how likely IPD improves on it."""
    ours, needed = OURS in comparison.algos, judged(comparison)
    found = []
    for algo in comparison.algos:
        shared = [dataset for dataset in sets_of(comparison, algo) if dataset in needed]
        runs = runs_of(comparison, algo, shared)
        rival = ours and algo != OURS and bool(shared)
        found.append(
            Standing(
                algo,
                len(shared),
                _bootstrap(statistics.iqm, runs) if len(shared) == len(needed) else None,
                improvement(comparison, algo, shared) if rival else None,
            )
        )
    return found


def improvement(comparison: Comparison, algo: str, datasets: Sequence[Dataset]) -> Interval:
    """Probability that a run of IPD is better than one of the method, over data sets that both have."""
    runs = (runs_of(comparison, name, datasets) for name in (OURS, algo))
    return _bootstrap(statistics.probability_of_improvement, *runs)


def fewest(*scores: list[Floats]) -> int:
    """Seeds of the task that has the fewest, over several methods."""
    return min(len(runs) for part in scores for runs in part)


def _bootstrap(statistic: Callable[..., Floats], *scores: list[Floats]) -> Interval:
    """With an interval only where every task has seeds enough to draw from."""
    if fewest(*scores) < ENOUGH_SEEDS:
        return Interval(float(statistic(*scores)), math.nan, math.nan)
    return statistics.bootstrap(statistic, *scores)


def title(dataset: Dataset, among: Sequence[Dataset]) -> str:
    """The data set for a reader: whose it is, and its digest where two have one name."""
    alike = [other for other in among if other.name == dataset.name]
    digest = f", {dataset.digest[:6] or 'digest unknown'}" if len(alike) > 1 else ""
    return f"{dataset.name} ({'D4RL' if dataset.official else 'regenerated'}{digest})"


def name_of(algo: str, label: str = "") -> str:
    """A method, or a variant of one, for a reader."""
    return METHODS.get(algo, algo) + (f", {label}" if label else "")


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def common_folder(runs: Sequence[Path]) -> Path:
    """The deepest folder that holds all the runs, or the only one itself."""
    return Path(os.path.commonpath([run.absolute() for run in runs]))
