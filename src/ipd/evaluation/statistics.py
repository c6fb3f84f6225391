"""What a handful of seeds and episodes allows one to say. Seeds and episodes stay separate axes.

Intervals are percentile bootstraps, seeded, so that the same numbers give the same interval. A
bootstrap over very few seeds is too narrow, and with one seed it speaks of episodes only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import trim_mean

from ipd.evaluation.scores import Row

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A point estimate and the bounds of its confidence interval."""

    point: float
    low: float
    high: float


class Standing(NamedTuple):
    """One policy's episodes at the end of training and at its best moment. ``best`` was chosen by the
    very episodes it shows: it flatters, and stands beside ``last``, never in its place."""

    policy: str
    seeds: list[int]
    last_step: list[int]
    """(seeds,)."""
    last: list[Floats]
    """(seeds,) of (episodes,) returns."""
    best_step: list[int]
    """(seeds,): the step with the largest mean return, the later one on a tie."""
    best: list[Floats]
    """(seeds,) of (episodes,) returns."""


def iqm(values: Floats) -> float:
    """Interquartile mean: of what is left when the lowest and highest quarter are dropped
    (Agarwal et al. 2021). Any shape; axes are pooled."""
    return float(trim_mean(np.ravel(values), 0.25))


def bootstrap(
    scores: Floats,
    statistic: Callable[[Floats], float] = iqm,
    confidence: float = 0.95,
    resamples: int = 2_000,
    seed: int = 0,
) -> Interval:
    """Stratified bootstrap: runs are drawn anew within each task.

    ``scores`` is (tasks, seeds), one number a run (its mean over episodes).
    """
    generator = np.random.default_rng(seed)
    tasks, seeds = scores.shape
    draws = np.empty(resamples)
    for index in range(resamples):
        chosen = generator.integers(seeds, size=(tasks, seeds))
        draws[index] = statistic(np.take_along_axis(scores, chosen, axis=1))
    return _interval(statistic(scores), draws, confidence)


def mean_interval(
    returns: Floats, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of (seeds, episodes) with a hierarchical bootstrap: seeds are drawn, then episodes of each."""
    generator = np.random.default_rng(seed)
    seeds, episodes = returns.shape
    chosen = generator.integers(seeds, size=(resamples, seeds, 1))
    within = generator.integers(episodes, size=(resamples, seeds, episodes))
    return _interval(float(returns.mean()), returns[chosen, within].mean(axis=(1, 2)), confidence)


def probability_of_improvement(first: Floats, second: Floats) -> float:
    """Chance that a run of ``first`` beats one of ``second`` on a task drawn at random, ties counting
    half (Agarwal et al. 2021). Shapes (tasks, seeds) with the same tasks; seeds may differ."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} tasks against {len(second)}")
    gap = first[:, :, None] - second[:, None, :]
    return float(np.mean((gap > 0) + 0.5 * (gap == 0)))


def last_and_best(rows: Iterable[Row]) -> dict[str, Standing]:
    """Episodes of each policy at its last step and at its best, seed by seed."""
    table: dict[str, dict[int, dict[int, list[float]]]] = {}
    for row in rows:
        table.setdefault(row.policy, {}).setdefault(row.seed, {}).setdefault(row.step, []).append(row.return_)
    standings = {}
    for policy, seeds in table.items():
        order = sorted(seeds)
        last = [max(seeds[seed]) for seed in order]
        best = [max((np.mean(returns), step) for step, returns in seeds[seed].items())[1] for seed in order]
        standings[policy] = Standing(
            policy,
            order,
            last,
            [np.array(seeds[seed][step]) for seed, step in zip(order, last, strict=True)],
            best,
            [np.array(seeds[seed][step]) for seed, step in zip(order, best, strict=True)],
        )
    return standings


def _interval(point: float, draws: Floats, confidence: float) -> Interval:
    tail = 0.5 * (1.0 - confidence)
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(point, float(low), float(high))
