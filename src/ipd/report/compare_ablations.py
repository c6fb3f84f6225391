"""The paper's two ablation figures: score against imagined volume (Fig. 2), and what prompts (Fig. 3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ipd.report import compare
from ipd.report.compare import Cell, Comparison, Score
from ipd.report.compare_figures import intervals, line_of
from ipd.report.plot import Axis, Panel
from ipd.report.tables import Samples

PLANNING = ("augment.num_plans", "augment.plan_noise")
IMAGINED = ("augment.", "refit.", "world.", "policy.mix", "policy.replace")
"""Fields that mean nothing where nothing is imagined."""


def planner_of(settings: dict[str, Any]) -> str:
    """``greedy`` for one plan without noise, else ``MPC``."""
    return "greedy" if tuple(settings.get(key) for key in PLANNING) == (1, 0) else "MPC"


def volume_of(settings: dict[str, Any]) -> float:
    """Imagined steps asked for, a logged step; 0 where nothing is imagined."""
    return float(settings.get("augment.augment_ratio", 0)) if settings.get("augment.enabled", False) else 0.0


class Curve(NamedTuple):
    """Scores of one way of planning over the volume it imagined, all else the same."""

    planner: str
    """``greedy`` or ``MPC``."""
    label: str
    points: list[tuple[float, Score, Samples]]
    """By volume; 0 is shared by all planners."""


class Family(NamedTuple):
    """Runs that differ only in what was imagined, and how much of it."""

    label: str
    """The variant they are of; "" for the method's main runs."""
    curves: list[Curve]


def volumes(cells: Sequence[Cell]) -> list[Family]:
    """The families of at least two runs among a method's cells on one data set (Fig. 2)."""
    families: dict[str, dict[tuple[str, str], dict[float, Cell]]] = {}
    for cell in cells:
        if volume_of(cell.settings):
            key = _but(cell.settings, (*PLANNING, "augment.augment_ratio"))
            plans, noise = (cell.settings.get(field) for field in PLANNING)
            how = planner_of(cell.settings), f"{plans} plans, noise {noise}"
            families.setdefault(key, {}).setdefault(how, {}).setdefault(volume_of(cell.settings), cell)
    found = []
    for curves in families.values():
        first = next(iter(next(iter(curves.values())).values()))
        for cell in cells:
            same = _but(cell.settings, IMAGINED) == _but(first.settings, IMAGINED)
            if same and not volume_of(cell.settings):
                for curve in curves.values():
                    curve.setdefault(0.0, cell)
        everyone = {cell.folders: cell for curve in curves.values() for cell in curve.values()}
        if len(everyone) > 1:
            kinds = [planner for planner, _ in curves]
            drawn = [
                Curve(
                    planner,
                    planner if kinds.count(planner) == 1 else f"{planner}, {plans}",
                    [(v, compare.score(curve[v].last), curve[v].last) for v in sorted(curve)],
                )
                for (planner, plans), curve in sorted(curves.items(), key=lambda pair: pair[0])
            ]
            in_order = [curve for _, curve in sorted(curves.items(), key=lambda pair: pair[0])]  # MPC first
            labels = [cell.label for curve in in_order for amount, cell in curve.items() if amount]
            alone = "" in labels or len(families) == 1
            found.append(Family("" if alone else labels[0], drawn))
    return found


def _but(settings: dict[str, Any], without: Sequence[str]) -> str:
    kept = {key: str(value) for key, value in settings.items() if not key.startswith(tuple(without))}
    return str(sorted(kept.items()))


def volume(comparison: Comparison) -> list[str]:
    """Fig. 2: score against imagined volume, MPC and greedy."""
    found = []
    for dataset in comparison.datasets:
        for label, curves in volumes(comparison.of(dataset, compare.OURS)):
            where = compare.title(dataset, comparison.datasets)
            found.append(_volume(f"{where}, {label}" if label else where, curves))
    return found


def _volume(where: str, curves: Sequence[Curve]) -> str:
    points = [point for curve in curves for point in curve.points]
    pool = [values.mean() for _, _, samples in points for values in samples.values()]
    pool += [bound for _, score, _ in points for bound in (score.low, score.high)]
    reach = max(amount for amount, _, _ in points)
    y = Axis.fit([np.array(pool)], "normalised score", include=(0.0,))
    x = Axis(-0.06 * reach, 1.06 * reach, "imagined steps for every logged one")
    panel = Panel(x, y)
    shades = itertools.cycle(("orange", "purple", "green"))
    for index, curve in enumerate(curves):
        colour = "blue" if curve.planner == "greedy" else next(shades)
        # side by side, so that neither hides the other
        beside = (index - (len(curves) - 1) / 2) * 0.02 * reach
        at = np.array([v for v, _, _ in curve.points]) + beside
        panel.line(at, np.array([score.mean for _, score, _ in curve.points]), colour, curve.label)
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
        name = f"fixed, {float(target):g} of the best logged" if target else "V of the state"
        inside = float(np.mean([values.std() for values in samples.values()]))
        found.append(Prompt(name, compare.score(samples), spread, inside, samples))
    return found


def prompting(comparison: Comparison, cell: Cell) -> str:
    """Fig. 3: V's prompt against fixed returns."""
    lines = [
        line_of(prompt.name, prompt.samples, "orange" if index == 0 else "muted")
        for index, prompt in enumerate(prompts(cell))
    ]
    say = (
        "Look for the orange row to lie furthest right with its dots close together. Large dot: mean; bar: "
        "95 % interval over seeds; small dots: seeds; faint: episodes."
    )
    where = compare.title(cell.dataset, comparison.datasets)
    heading = f"{compare.name_of(cell.algo, cell.label)} on {where}"
    return intervals(lines, "normalised score, last evaluation", say, heading)
