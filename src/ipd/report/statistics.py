"""What a handful of seeds and episodes allows one to say. Seeds and episodes stay separate axes.

Intervals are percentile bootstraps, seeded, so that the same numbers give the same interval. A
bootstrap over very few seeds is too narrow, and with one seed it speaks of episodes only.

Scores of many runs are ``Strata``: one array a task, in it one number a run (its mean over episodes).
The measures over them are those of Agarwal et al. 2021 ("Deep reinforcement learning at the edge of
the statistical precipice"). Tasks may have different numbers of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ipd.report.read import Floats

Strata = Sequence[Floats]
"""(tasks,) of (..., runs): leading axes, such as bootstrap draws, are carried through."""
RESAMPLES = 4_000
"""Of every bootstrap."""


class Interval(NamedTuple):
    """A point estimate and the bounds of its confidence interval."""

    point: float
    low: float
    high: float


class Band(NamedTuple):
    """An interval at each of several places."""

    point: Floats
    low: Floats
    high: Floats


def iqm(scores: Strata) -> Floats:
    """Interquartile mean: of what is left when the lowest and highest quarter of all runs are dropped.

    Tasks count the same: a run weighs 1 / (runs of its task), and one that a quarter ends in is kept in
    part. A quarter of n runs is n // 4 of them, so where all tasks have equally many, whole runs go.
    """
    pool = np.concatenate(scores, axis=-1)
    runs, order = pool.shape[-1], np.argsort(pool, axis=-1)
    sizes = [part.shape[-1] for part in scores]
    weights = np.concatenate([np.full(size, runs / size / len(sizes)) for size in sizes])[order]
    reached, cut = np.cumsum(weights, axis=-1), runs // 4
    kept = np.clip(np.minimum(reached, runs - cut) - np.maximum(reached - weights, cut), 0, None)
    return np.asarray((np.take_along_axis(pool, order, axis=-1) * kept).sum(axis=-1) / kept.sum(axis=-1))


def probability_of_improvement(first: Strata, second: Strata) -> Floats:
    """Chance that a run of ``first`` beats one of ``second`` on a task drawn at random, ties counting
    half. The same tasks in the same order; ValueError where their number differs."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks against {len(second)}")
    gaps = [ours[..., None] - theirs[..., None, :] for ours, theirs in zip(first, second, strict=True)]
    return np.asarray(np.mean([np.mean((gap > 0) + 0.5 * (gap == 0), axis=(-2, -1)) for gap in gaps], axis=0))


def performance_profile(scores: Strata, thresholds: Floats) -> Floats:
    """(..., thresholds): share of runs above each threshold, mean over tasks."""
    above = [(part[..., None] > thresholds).mean(axis=-2) for part in scores]
    return np.asarray(np.mean(above, axis=0), np.float64)


def bootstrap(statistic: Callable[..., Floats], *scores: Strata, seed: int = 0) -> Interval:
    """``statistic(*scores)`` with a stratified 95 % bootstrap: runs are drawn anew within each task, and
    each of several ``scores`` apart from the others."""
    low, high = _bounds(statistic(*_resampled(scores, seed)))
    return Interval(float(statistic(*scores)), float(low), float(high))


def profile_band(scores: Strata, thresholds: Floats, seed: int = 0) -> Band:
    """``performance_profile`` with a 95 % interval for each threshold alone, drawn as in ``bootstrap``."""
    low, high = _bounds(performance_profile(_resampled([scores], seed)[0], thresholds))
    return Band(performance_profile(scores, thresholds), low, high)


def _resampled(scores: Sequence[Strata], seed: int) -> list[list[Floats]]:
    """Each array (runs,) as (RESAMPLES, runs) draws with replacement."""
    rng = np.random.default_rng(seed)
    return [[rng.choice(part, (RESAMPLES, len(part))) for part in strata] for strata in scores]


def resampled_means(groups: Sequence[Floats], rng: np.random.Generator) -> Floats:
    """(RESAMPLES,) draws of the mean of (seeds,) of (episodes,): seeds with replacement, then episodes
    within each drawn seed. Every seed counts the same, however many episodes it has."""
    drawn = rng.integers(len(groups), size=(RESAMPLES, len(groups)))
    means = np.empty(drawn.shape)
    for index, values in enumerate(groups):
        here = drawn == index
        means[here] = rng.choice(values, (int(here.sum()), len(values))).mean(axis=1)
    return np.asarray(means.mean(axis=1), np.float64)


def mean_interval(groups: Sequence[Floats], seed: int = 0) -> Interval:
    """Mean of (seeds,) of (episodes,) with a hierarchical 95 % bootstrap (``resampled_means``)."""
    low, high = _bounds(resampled_means(groups, np.random.default_rng(seed)))
    return Interval(float(np.mean([values.mean() for values in groups])), float(low), float(high))


def _bounds(draws: Floats) -> Floats:
    """(2, ...): the 2.5 and 97.5 % quantiles over the first axis."""
    return np.asarray(np.quantile(draws, [0.025, 0.975], axis=0), np.float64)
