"""Figures of a comparison: intervals of methods and variants, and performance profiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from ipd.report import compare, compare_tables, statistics
from ipd.report.compare import Comparison
from ipd.report.plot import Axis, Panel
from ipd.report.read import Floats
from ipd.report.tables import Samples

FAMILIES = {
    "orange": ("IPD", ("ipd",)),
    "purple": ("cloning and sequence models", ("bc", "dt", "qdt", "dd", "edt", "qt", "reinformer")),
    "blue": ("actor-critics", ("iql", "cql", "rebrac")),
    "green": ("model-based", ("mobile",)),
}
"""Colour -> what it stands for, and the methods of that kind."""


class Line(NamedTuple):
    """One row of a chart of intervals."""

    label: str
    mean: float
    low: float
    high: float
    """NaN where there is no interval."""
    seeds: Floats
    episodes: Floats
    colour: str


def colour_of(algo: str) -> str:
    """The same for a method in every figure."""
    return next((colour for colour, (_, algos) in FAMILIES.items() if algo in algos), "gold")


def line_of(label: str, samples: Samples, colour: str) -> Line:
    """A row of one cell's scores."""
    found = compare.score(samples)
    means = np.array([values.mean() for values in samples.values()])
    return Line(label, found.mean, found.low, found.high, means, np.concatenate([*samples.values()]), colour)


def intervals(lines: Sequence[Line], axis: str, say: str, heading: str = "") -> str:
    """Rows of means with intervals, seeds and episodes, drawn for wide and for narrow windows."""
    drawn = _intervals(lines, axis, True) + _intervals(lines, axis, False)
    head = f"<h3>{escape(heading)}</h3>" if heading else ""
    return f'<figure class="hero rows">{head}{drawn}<figcaption>{escape(say)}</figcaption></figure>'


def _intervals(lines: Sequence[Line], axis: str, wide: bool) -> str:
    pool = [np.concatenate([line.seeds, line.episodes, [line.mean, line.low, line.high]]) for line in lines]
    lines = [line._replace(label=_clipped(line.label)) for line in lines]
    room = 30 + 8 * max(len(line.label) for line in lines)
    left, step = (max(120, room), 34) if wide else (10, 50)
    panel = Panel(
        Axis.fit(pool, axis, include=(0.0,)),
        Axis(0, 1, ""),
        left + 500 if wide else 360,
        58 + step * len(lines),
        left,
    )
    for index, line in enumerate(lines):
        y = 1 - (index + (0.5 if wide else 0.72)) / len(lines)
        panel.dots(line.episodes, np.full(len(line.episodes), y), line.colour, size="cloud")
        if math.isfinite(line.low):
            panel.bar(line.low, line.high, y, line.colour)
        panel.dots(line.seeds, np.full(len(line.seeds), y), line.colour)
        panel.dots(np.array([line.mean]), np.array([y]), line.colour, size="mean")
        middle = 24 + step * (index + 0.5) if wide else 24 + step * index + 18
        bounds = compare_tables.bounds(line.low, line.high)
        text = f"{compare_tables.digits(line.mean)} {'' if bounds == '–' else bounds}".strip()
        panel.text(left - 14 if wide else left, middle - (1 if wide else 0), line.label,
                   "end" if wide else "start", "strong")  # fmt: skip
        panel.text(left - 14 if wide else 350, middle + (13 if wide else 0), text, "end")
    spoken = "; ".join(
        f"{line.label} {compare_tables.digits(line.mean)} {compare_tables.bounds(line.low, line.high)}"
        for line in lines
    )
    return panel.svg(f"{axis}: {spoken}.", y_ticks=False, style="wide" if wide else "narrow")


def _clipped(label: str, most: int = 34) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}…"


def standings(comparison: Comparison) -> str:
    """IQM of every method over all data sets, the largest first."""
    found, absent = [], []
    for standing in compare.standings(comparison):
        if standing.iqm is None:
            absent.append(compare.name_of(standing.algo))
        else:
            runs = np.concatenate(compare.runs_of(comparison, standing.algo, compare.judged(comparison)))
            name, colour = compare.name_of(standing.algo), colour_of(standing.algo)
            found.append(Line(name, *standing.iqm, runs, np.array([]), colour))
    if len(found) < 2:
        return ""
    seen = {line.colour for line in found}
    used = [f"{colour} {kind}" for colour, (kind, _) in FAMILIES.items() if colour in seen]
    say = (
        "Look for intervals that do not touch. Large dot: interquartile mean over all runs; bar: its 95 % "
        "interval, runs drawn anew within each data set; small dots: runs, one a seed and data set. "
        f"Colours: {', '.join(used)}."
    )
    say += f" Not run on every set: {', '.join(absent)}." if absent else ""
    return intervals(sorted(found, key=lambda line: -line.mean), "normalised score, last evaluation", say)


def variants(comparison: Comparison) -> list[str]:
    """The main runs of a method against its variants, a chart a data set and method."""
    found = []
    for dataset in comparison.datasets:
        for algo in comparison.found:
            cells = comparison.of(dataset, algo)
            if len(cells) > 1:
                lines = [
                    line_of(cell.label or f"{compare.name_of(algo)}, main runs", cell.last,
                            colour_of(algo) if not cell.label else "muted")
                    for cell in cells
                ]  # fmt: skip
                where = compare.title(dataset, comparison.datasets)
                say = "Large dot: mean; bar: 95 % interval over seeds; small dots: seeds; faint: episodes."
                heading = f"{compare.name_of(algo)} on {where}"
                found.append(intervals(lines, "normalised score, last evaluation", say, heading))
    return found


def profiles(comparison: Comparison) -> list[str]:
    """Share of runs above a score: IPD against every other method over the sets that both have."""
    found = []
    rivals = [algo for algo in comparison.algos if algo != compare.OURS]
    for algo in rivals if compare.OURS in comparison.algos else []:
        sets = compare.sets_of(comparison, compare.OURS, algo)
        if not sets:
            continue
        runs = {name: compare.runs_of(comparison, name, sets) for name in (compare.OURS, algo)}
        pool = np.concatenate([part for parts in runs.values() for part in parts])
        xs = np.linspace(min(0.0, float(pool.min())), float(pool.max()) * 1.05 + 1e-6, 121)
        panel = Panel(
            Axis(float(xs[0]), float(xs[-1]), "normalised score"), Axis(0, 1, "share of runs above")
        )
        for name, parts in runs.items():
            colour = "orange" if name == compare.OURS else "blue"
            band = statistics.profile_band(parts, xs)
            if compare.fewest(*runs.values()) >= compare.ENOUGH_SEEDS:
                panel.band(xs, band.low, band.high, colour)
            panel.line(xs, band.point, colour, compare.name_of(name))
        better = compare.improvement(comparison, algo, sets)
        say = (
            "Look for the orange line above the blue one everywhere. A run of IPD is better with probability "
            f"{compare_tables.estimate(better, 2)}, over {len(sets)} "
            f"data set{'s' if len(sets) > 1 else ''}."
        )
        found.append(panel.figure(f"Against {compare.name_of(algo)}", say))
    return found
