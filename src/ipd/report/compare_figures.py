"""Figures of a comparison: intervals of methods, performance profiles, and the paper's Figs. 2 and 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from ipd.report import compare, compare_tables, statistics
from ipd.report.compare import Cell, Comparison, Score
from ipd.report.compare_read import Dataset
from ipd.report.plot import Axis, Panel
from ipd.report.read import Floats
from ipd.report.tables import Samples

FAMILIES = {
    "orange": ("ipd",),
    "purple": ("bc", "dt", "qdt", "dd", "edt", "qt", "reinformer"),
    "blue": ("iql", "cql", "rebrac"),
    "green": ("mobile",),
}
"""Colour of IPD, of cloning and sequence models, of actor-critics, of the model-based."""
PLANNING = ("augment.num_plans", "augment.plan_noise")
IMAGINED = ("augment.", "refit.", "world.", "policy.mix", "policy.replace")
"""Fields that mean nothing where nothing is imagined."""


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
    return next((colour for colour, algos in FAMILIES.items() if algo in algos), "gold")


def line_of(label: str, samples: Samples, colour: str) -> Line:
    """A row of one cell's scores."""
    found = compare.score(samples)
    means = np.array([values.mean() for values in samples.values()])
    return Line(label, found.mean, found.low, found.high, means, np.concatenate([*samples.values()]), colour)


def intervals(lines: Sequence[Line], axis: str, say: str, heading: str = "") -> str:
    """Rows of means with intervals, seeds and episodes, drawn for wide and for narrow windows."""
    drawn = _intervals(lines, axis, True) + _intervals(lines, axis, False)
    head = f"<h3>{escape(heading)}</h3>" if heading else ""
    return f'<figure class="hero">{head}{drawn}<figcaption>{escape(say)}</figcaption></figure>'


def _intervals(lines: Sequence[Line], axis: str, wide: bool) -> str:
    pool = [np.concatenate([line.seeds, line.episodes, [line.mean, line.low, line.high]]) for line in lines]
    left, step = (240, 34) if wide else (10, 50)
    panel = Panel(
        Axis.fit(pool, axis, include=(0.0,)),
        Axis(0, 1, ""),
        820 if wide else 360,
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


def standings(comparison: Comparison) -> str:
    """IQM of every method over all data sets, the largest first."""
    found = []
    for standing in compare.standings(comparison):
        if standing.iqm is not None:
            runs = np.concatenate(
                compare.runs_of(comparison, standing.algo, compare.sets_of(comparison, standing.algo))
            )
            name, colour = compare.name_of(standing.algo), colour_of(standing.algo)
            found.append(Line(name, *standing.iqm, runs, np.array([]), colour))
    if len(found) < 2:
        return ""
    say = (
        "Look for intervals that do not touch. Large dot: interquartile mean over all runs; bar: its 95 % "
        "interval, runs drawn anew within each data set; small dots: runs, one a seed and data set. Orange is "
        "IPD; purple, cloning and sequence models; blue, actor-critics; green, model-based."
    )
    return intervals(sorted(found, key=lambda line: -line.mean), "normalised score, last evaluation", say)


def variants(comparison: Comparison) -> list[str]:
    """The main runs of a method against its variants, a chart a data set and method."""
    found = []
    for dataset in comparison.datasets:
        for algo in comparison.algos:
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
            panel.band(xs, band.low, band.high, colour)
            panel.line(xs, band.point, colour, compare.name_of(name))
        better = compare.improvement(comparison, algo, sets)
        say = (
            "Look for the orange line above the blue one everywhere. A run of IPD is better with probability "
            f"{compare_tables.estimate(better, share=True)}, over {len(sets)} "
            f"data set{'s' if len(sets) > 1 else ''}."
        )
        found.append(panel.figure(f"Against {compare.name_of(algo)}", say))
    return found


def planner_of(settings: dict[str, Any]) -> str:
    """``greedy`` for one plan without noise, else ``MPC``."""
    return "greedy" if tuple(settings.get(key) for key in PLANNING) == (1, 0) else "MPC"


def volume_of(settings: dict[str, Any]) -> float:
    """Imagined steps asked for, a logged step; 0 where nothing is imagined."""
    return float(settings.get("augment.augment_ratio", 0)) if settings.get("augment.enabled", False) else 0.0


class Curve(NamedTuple):
    """Scores of one way of planning over the volume it imagined, all else the same."""

    planner: str
    points: list[tuple[float, Score, Samples]]
    """By volume; 0 is shared by all planners."""


def volumes(cells: Sequence[Cell]) -> list[list[Curve]]:
    """Runs that differ only in what was imagined, and how much of it (Fig. 2); two points at least."""
    families: dict[str, dict[str, dict[float, Cell]]] = {}
    for cell in cells:
        if volume_of(cell.settings):
            key = _but(cell.settings, (*PLANNING, "augment.augment_ratio"))
            how = planner_of(cell.settings)
            curve = families.setdefault(key, {}).setdefault(how, {})
            curve.setdefault(volume_of(cell.settings), cell)
    for curves in families.values():
        member = next(iter(next(iter(curves.values())).values()))
        for cell in cells:
            same = _but(cell.settings, IMAGINED) == _but(member.settings, IMAGINED)
            if same and not volume_of(cell.settings):
                for curve in curves.values():
                    curve.setdefault(0.0, cell)
    found = []
    for curves in families.values():
        if len({cell.folders for curve in curves.values() for cell in curve.values()}) > 1:
            found.append(
                [
                    Curve(how, [(v, compare.score(curve[v].last), curve[v].last) for v in sorted(curve)])
                    for how, curve in sorted(curves.items(), key=lambda pair: pair[0] != "MPC")
                ]
            )
    return found


def _but(settings: dict[str, Any], without: Sequence[str]) -> str:
    return str(
        sorted((key, str(value)) for key, value in settings.items() if not key.startswith(tuple(without)))
    )


def volume(comparison: Comparison) -> list[str]:
    """Fig. 2: score against imagined volume, MPC and greedy."""
    found = []
    for dataset in comparison.datasets:
        for curves in volumes(comparison.of(dataset, compare.OURS)):
            found.append(_volume(compare.title(dataset, comparison.datasets), curves))
    return found


def _volume(where: str, curves: Sequence[Curve]) -> str:
    scores = [score for curve in curves for _, score, _ in curve.points]
    seeds = [
        np.array([v.mean() for v in samples.values()]) for curve in curves for _, _, samples in curve.points
    ]
    volumes_ = np.array([v for curve in curves for v, _, _ in curve.points])
    reach = float(volumes_.max() - volumes_.min()) or 1.0
    y = Axis.fit([*seeds, np.array([(s.low, s.high) for s in scores])], "normalised score", include=(0.0,))
    x = Axis(-0.06 * reach, float(volumes_.max()) + 0.06 * reach, "imagined steps for every logged one")
    panel = Panel(x, y)
    for index, curve in enumerate(curves):
        colour = "orange" if curve.planner == "MPC" else "blue"
        # side by side, so that neither hides the other
        beside = (index - (len(curves) - 1) / 2) * 0.02 * reach
        at = np.array([v for v, _, _ in curve.points]) + beside
        panel.line(at, np.array([score.mean for _, score, _ in curve.points]), colour, curve.planner)
        for u, (_, score, samples) in zip(at, curve.points, strict=True):
            if math.isfinite(score.low):
                panel.stem(u, score.low, score.high, colour)
            panel.dots(np.full(len(samples), u), np.array([v.mean() for v in samples.values()]), colour)
            panel.dots(np.array([u]), np.array([score.mean]), colour, size="big")
    say = (
        "Look for orange above blue and for lines that rise with volume. Large dots: means; bars: 95 % "
        "intervals over seeds; small dots: seeds."
    )
    return panel.figure(where, say)


class Prompt(NamedTuple):
    """IPD's scores under one way of prompting (Fig. 3)."""

    name: str
    score: Score
    between: float
    """Standard deviation of the seeds' means; NaN for one seed."""
    within: float
    """Standard deviation of the episodes of a seed, mean over seeds."""
    samples: Samples


def prompts(cell: Cell) -> list[Prompt]:
    """V's prompt first, then fixed returns from the smallest; [] where no fixed return was tried."""
    found = []
    for policy, samples in cell.prompts.items():
        means = [values.mean() for values in samples.values()]
        spread = float(np.std(means, ddof=1)) if len(means) > 1 else math.nan
        target = policy.partition("@")[2]
        name = f"fixed return, {float(target):g} of the best logged" if target else "V of the state"
        inside = float(np.mean([values.std() for values in samples.values()]))
        found.append(Prompt(name, compare.score(samples), spread, inside, samples))
    return found


def prompting(dataset: Dataset, comparison: Comparison, cell: Cell) -> str:
    """Fig. 3: V's prompt against fixed returns."""
    lines = [
        line_of(prompt.name, prompt.samples, "orange" if index == 0 else "muted")
        for index, prompt in enumerate(prompts(cell))
    ]
    say = (
        "Look for the orange row to lie furthest right with its dots close together. Large dot: mean; bar: "
        "95 % interval over seeds; small dots: seeds; faint: episodes."
    )
    where = compare.title(dataset, comparison.datasets)
    heading = f"{compare.name_of(cell.algo, cell.label)} on {where}"
    return intervals(lines, "normalised score, last evaluation", say, heading)
