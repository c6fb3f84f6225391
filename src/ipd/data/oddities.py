"""Flaws of logs that show in what belongs together: clock, rewards and episodes that repeat others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ipd.data.columns import moments
from ipd.data.episodes import Episodes
from ipd.data.findings import Finding

GAP = 1.5
"""Steps that last this many times as long as the median one are gaps: a row is missing, not late."""
IRREGULAR = 0.2
"""Share of gaps above which the clock has no even pace at all."""
SAMPLE = 20_000
"""Steps that the test of rewards looks at."""
CLEAR = 0.5
"""A shift is told only if it leaves at most this share of what the rewards' own steps leave unexplained,
and explains as much of the rewards. In locomotion data shifted rewards measure 0.02 to 0.2, true ones
2 and more."""
NEAR = 1e-3
"""Of each dimension's standard deviation, within which episodes count as copies."""
HEAD = 8
"""First steps by which copies are looked for; shorter episodes are not compared."""
NEIGHBOURS = 4


def time_gaps(episodes: Episodes) -> Iterator[Finding]:
    """Steps that last longer than others, or no time at all; nothing where no clock is known."""
    if episodes.times is None:
        return
    inside = _inside(episodes)[:-1]
    lasts = np.diff(episodes.times)
    usual = float(np.median(lasts[inside])) if inside.any() else 0.0
    still = np.flatnonzero(inside & (lasts == 0))
    if len(still):
        message = f"{len(still)} steps take no time: rows may be stored twice, and nothing happens in them"
        yield Finding("time", "warning", f"time, row {still[0] + 1}", message, "drop the repeated rows")
    gaps = np.flatnonzero(inside & (lasts > GAP * usual)) if usual > 0 else np.zeros(0, np.int64)
    if len(gaps) > IRREGULAR * inside.sum():
        message = (
            f"{len(gaps) / inside.sum():.0%} of the steps last more than {GAP:g} times the median of "
            f"{usual:.4g}: an action has no fixed effect over steps of uneven length"
        )
        yield Finding("time", "warning", "time", message, "resample the log to an even pace")
    elif len(gaps):
        message = (
            f"{len(gaps)} steps inside an episode last up to {lasts[gaps].max() / usual:.3g} times the "
            f"median of {usual:.4g}: rows are missing there, and all that happened in them counts as one "
            "action's effect"
        )
        cure = "end the episode before the gap (truncated), or log every step"
        yield Finding("time", "warning", f"time, row {gaps[0]}", message, cure)


def shifted_rewards(episodes: Episodes) -> Iterator[Finding]:
    """Rewards that a neighbouring step explains far better than their own.

    Least squares in observation, action, change and their squares, fitted on the episodes of even
    number and judged on the others.
    """
    place = episodes.timesteps
    inner = np.flatnonzero((place > 0) & (place < episodes.lengths[episodes.episode_index] - 1))
    rows = inner[:: max(1, len(inner) // SAMPLE)]
    fitted = episodes.episode_index[rows] % 2 == 0
    size = 1 + 2 * (2 * episodes.observation_size + episodes.action_size)
    if min(fitted.sum(), (~fitted).sum()) < 10 * size:
        return
    rewards = episodes.rewards[rows].astype(np.float64)
    if rewards[fitted].std() == 0 or rewards[~fitted].std() == 0:
        return
    left = {shift: _unexplained(_design(episodes, rows + shift), rewards, fitted) for shift in (-1, 0, 1)}
    shift = min(left, key=lambda key: left[key])
    if shift == 0 or left[shift] > CLEAR * min(left[0], 1):
        return
    neighbour, cure = (
        ("before", "move rewards up by one row: a row's reward is that of its own action")
        if shift < 0
        else ("after", "move rewards down by one row: a row's reward is that of its own action")
    )
    message = (
        f"explained by the step {neighbour} (all but {left[shift]:.1%}) better than by their own (all but "
        f"{left[0]:.1%}): they look shifted by one row, and actions would be paid for others' effects"
    )
    yield Finding("shifted", "warning", "rewards", message, cure)


def _design(episodes: Episodes, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    seen = episodes.observations[rows].astype(np.float64)
    change = episodes.next_observations[rows] - seen
    values = np.concatenate([seen, episodes.actions[rows], change], axis=1)
    spread = values.std(0)
    values = np.clip((values - values.mean(0)) / np.where(spread > 0, spread, 1), -5, 5)
    return np.concatenate([np.ones((len(rows), 1)), values, values**2], axis=1)


def _unexplained(
    design: npt.NDArray[np.float64], target: npt.NDArray[np.float64], fitted: npt.NDArray[np.bool_]
) -> float:
    """Share of the variance of the rows that were not fitted on."""
    known = design[fitted]
    ridge = 1e-3 * len(known) * np.eye(known.shape[1])  # columns that repeat each other are common
    weights = np.linalg.solve(known.T @ known + ridge, known.T @ target[fitted])
    rest = target[~fitted]
    return float(((rest - design[~fitted] @ weights) ** 2).mean() / rest.var())


def near_duplicates(episodes: Episodes) -> Iterator[Finding]:
    """Episodes that repeat another one, or its beginning, but for rounding; exact copies are not told."""
    from scipy.spatial import cKDTree

    long = np.flatnonzero(episodes.lengths >= HEAD)
    if len(long) < 2:
        return
    both = (episodes.observations, episodes.actions)
    scale = [np.maximum(moments(values)[1], 1e-12).astype(np.float32) for values in both]

    def scaled(rows: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float32]:
        parts = (episodes.observations[rows] / scale[0], episodes.actions[rows] / scale[1])
        return np.concatenate(parts, axis=-1)

    heads = scaled(episodes.starts[long][:, None] + np.arange(HEAD)).reshape(len(long), -1)
    # Weights that add up to 1: projections of copies are as near as the copies are.
    weights = np.random.default_rng(0).normal(size=(heads.shape[1], 4))
    points = heads @ (weights / np.abs(weights).sum(0))
    _, near = cKDTree(points).query(
        points, k=min(NEIGHBOURS, len(long)), p=np.inf, distance_upper_bound=1.01 * NEAR
    )
    copies: dict[int, int] = {}
    for later, others in enumerate(near.tolist()):
        for earlier in (other for other in others if other < later):
            first, second = int(long[earlier]), int(long[later])
            length = int(min(episodes.lengths[first], episodes.lengths[second]))
            one, two = (scaled(slice(at, at + length)) for at in episodes.starts[[first, second]].tolist())
            apart = np.abs(one - two).max()
            same = apart == 0 and episodes.lengths[first] == episodes.lengths[second]
            if apart <= NEAR and not same:
                copies.setdefault(second, first)
    if copies:
        second, first = min(copies.items())
        message = (
            f"{len(copies)} episodes repeat others to within {NEAR:.1%} of the spread (episode {second} of "
            f"episode {first}): they count twice, and episodes held out for testing are no test"
        )
        row = int(episodes.starts[second])
        yield Finding("near duplicate", "warning", f"observations, row {row}", message, "keep one of each")


def _inside(episodes: Episodes) -> npt.NDArray[np.bool_]:
    """(N,), False for the last step of each episode."""
    inside = np.ones(episodes.num_steps, np.bool_)
    inside[episodes.starts[1:] - 1] = False
    return inside
