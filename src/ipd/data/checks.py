"""What a dataset is (``describe``), and what may be wrong with it (``check``)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ipd.data.columns import moments
from ipd.data.episodes import SMALLEST_STD, Episodes
from ipd.data.findings import Finding as Finding
from ipd.data.findings import Severity
from ipd.data.oddities import near_duplicates, shifted_rewards, time_gaps

QUANTILES = (5, 25, 50, 75, 95)
FULL_LENGTH_SHARE = 0.05
"""Share of terminated episodes of exactly the greatest length above which time limits are suspected."""
JUMP = 8.0
"""A step this many times as long as the 95th percentile looks like an unmarked reset. Without the
marks of their ends, resets in hopper, pen and door data measure 5 to 20 and more, true steps up to 5."""

SMALL_RANGE = 0.1
"""Share of [-1, 1] below which a dimension's actions lie too close for errors in them to count."""


def facts(episodes: Episodes) -> dict[str, Any]:
    """Facts of a dataset as plain JSON values, logged units (schema ``data`` of docs/architecture.md).

    ``best_decile`` is the mean return of the best tenth of the episodes; ``terminated`` and
    ``truncated`` count episodes.
    """
    returns = episodes.returns
    best = np.sort(returns)[-max(1, round(0.1 * len(returns))) :]
    last = episodes.starts[1:] - 1
    return {
        "source": episodes.source,
        "task": episodes.task,
        "digest": episodes.digest,
        "episodes": episodes.num_episodes,
        "steps": episodes.num_steps,
        "observation_size": episodes.observation_size,
        "action_size": episodes.action_size,
        "return": summary(returns) | {"best_decile": float(best.mean())},
        "returns": returns.tolist(),
        "lengths": episodes.lengths.tolist(),
        "terminated": int(episodes.terminated[last].sum()),
        "truncated": int((episodes.truncated & ~episodes.terminated)[last].sum()),
    }


def describe(episodes: Episodes) -> dict[str, Any]:
    """`facts`, and ``coverage``: for each dimension, range and quantiles, and for actions the share of
    steps at the smallest or largest value any step has (or at -1 and 1).
    """
    low, high = _action_bounds(episodes)
    return facts(episodes) | {
        "coverage": {
            "observations": [summary(column) for column in episodes.observations.T],
            "actions": [
                summary(column)
                | {"at_low": float((column <= low).mean()), "at_high": float((column >= high).mean())}
                for column, low, high in zip(episodes.actions.T, low, high, strict=True)
            ],
        },
    }


def summary(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Mean, std, min, max and quantiles (percent, as text) of any array, as floats."""
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "min": float(values.min()),
        "max": float(values.max()),
        "quantiles": {str(q): float(np.percentile(values, q)) for q in QUANTILES},
    }


def _action_bounds(episodes: Episodes) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """-1 and 1 where the data lie within, else each dimension's own range, as ``fit_normaliser`` does."""
    if np.abs(episodes.actions).max() <= 1:
        size = episodes.action_size
        return np.full(size, -1, np.float32), np.ones(size, np.float32)
    return episodes.actions.min(0), episodes.actions.max(0)


def check(episodes: Episodes) -> list[Finding]:
    """Everything suspicious, gravest first. Needs no task; empty for a dataset without a flaw."""
    broken = list(_not_finite(episodes))
    found = broken or [
        *(
            Finding("reading", "note", "episode ends", remark, "store timeouts and next_observations")
            for remark in episodes.remarks
        ),
        *episodes.doubts,
        *_columns(episodes),
        *_scales(episodes),
        *_actions(episodes),
        *_rewards(episodes),
        *_ends(episodes),
        *_jumps(episodes),
        *_duplicates(episodes),
        *near_duplicates(episodes),
        *time_gaps(episodes),
        *shifted_rewards(episodes),
    ]
    order = {"fatal": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda finding: order[finding.severity])


def _not_finite(episodes: Episodes) -> Iterator[Finding]:
    for key in ("observations", "actions", "rewards", "next_observations"):
        bad = ~np.isfinite(getattr(episodes, key).reshape(episodes.num_steps, -1)).all(1)
        if bad.any():
            where = f"{key}, row {np.flatnonzero(bad)[0]}"
            yield Finding(
                "not finite", "fatal", where, f"{bad.sum()} rows hold NaN or Inf", "drop their episodes"
            )


def _columns(episodes: Episodes) -> Iterator[Finding]:
    for key in ("observations", "actions"):
        array = getattr(episodes, key)
        constant = np.flatnonzero(array.max(0) == array.min(0))
        if len(constant):
            message = "the same value at every step: nothing to learn from"
            severity: Severity = "note" if key == "observations" else "warning"
            yield Finding(
                "constant",
                severity,
                f"{key}, {_dimensions(episodes, key, constant)}",
                message,
                "leave them out",
            )
        seen: dict[bytes, int] = {}
        for column in range(array.shape[1]):
            first = seen.setdefault(array[:, column].tobytes(), column)
            if first != column and column not in constant:
                where = f"{key}, {_dimensions(episodes, key, np.array([column]))}"
                message = f"equal to dimension {first} at every step: it counts twice in every error"
                yield Finding("duplicate", "note", where, message, "harmless, but one is enough")


def _scales(episodes: Episodes) -> Iterator[Finding]:
    for where in episodes.rounded:
        message = "rounding to float32 moves it by more than a hundredth of its range"
        yield Finding("precision", "warning", where, message, "subtract an offset, such as its first value")
    array = episodes.observations
    small = np.flatnonzero((moments(array)[1] < SMALLEST_STD) & (array.max(0) > array.min(0)))
    if len(small):
        where = f"observations, {_dimensions(episodes, 'observations', small)}"
        message = f"a standard deviation below {SMALLEST_STD:g}: taken for noise, and not scaled up"
        yield Finding("scale", "note", where, message, "store it in a smaller unit, if it is none")


def _actions(episodes: Episodes) -> Iterator[Finding]:
    size = np.abs(episodes.actions)
    beyond = (size > 1).any(1)
    if beyond.any():
        message = (
            f"{beyond.sum()} rows ({beyond.mean():.1%}) leave [-1, 1], up to {size.max():.3g}; "
            "without a task the data's own range is mapped to [-1, 1]"
        )
        cure = "name the task; a task that limits actions to [-1, 1] refuses these"
        yield Finding("bounds", "note", f"actions, row {np.flatnonzero(beyond)[0]}", message, cure)
    elif episodes.task is None:  # whose own bounds would be mapped to [-1, 1]
        filled = np.ptp(episodes.actions, axis=0) / 2
        small = np.flatnonzero((filled > 0) & (filled < SMALL_RANGE))
        if len(small):
            message = (
                f"within {filled[small].max():.2g} of the width of [-1, 1], which is taken for their bounds: "
                "errors as large as their whole range hardly count, and little is learned"
            )
            cure = (
                "scale them in the file to fill it, or store them in a smaller unit: past [-1, 1] the data's "
                "own range counts"
            )
            where = f"actions, {_dimensions(episodes, 'actions', small)}"
            yield Finding("bounds", "warning", where, message, cure)
    low, high = _action_bounds(episodes)
    ends = "-1 or 1" if not beyond.any() else "the smallest or largest value"
    pinned = ((episodes.actions <= low) | (episodes.actions >= high)).mean(0)
    # A single value is always the largest; where the true bounds are unknown a small share betrays them.
    columns = np.flatnonzero((pinned > (0.2 if beyond.any() else 0.5)) & (low < high))
    if len(columns):
        message = f"exactly {ends} in up to {pinned[columns].max():.0%} of the steps: clipped when recorded"
        where = f"actions, {_dimensions(episodes, 'actions', columns)}"
        yield Finding(
            "bounds", "note", where, message, "a Gaussian fits such actions badly; a tanh mean does not mind"
        )


def _rewards(episodes: Episodes) -> Iterator[Finding]:
    if episodes.rewards.max() == episodes.rewards.min():
        message = f"always {episodes.rewards[0]:g}: only the length of an episode tells good from bad"
        yield Finding("constant", "warning", "rewards", message, "check that rewards were recorded")


def _ends(episodes: Episodes) -> Iterator[Finding]:
    last = episodes.starts[1:] - 1
    ended = episodes.terminated[last]
    both = np.flatnonzero(episodes.terminated & episodes.truncated)
    if len(both):
        message = f"{len(both)} steps are terminal and timeout at once; the terminal counts"
        yield Finding("merged ends", "warning", f"terminals, row {both[0]}", message, "mark one of the two")
    longest = int(episodes.lengths.max())
    full = ended & (episodes.lengths == longest)
    if full.sum() > max(1, FULL_LENGTH_SHARE * len(last)):
        message = (
            f"{full.sum()} terminated episodes have exactly {longest} steps: time limits may be stored as "
            "terminals, and values would not look past them"
        )
        where = f"terminals, row {last[full][0]}"
        yield Finding("merged ends", "warning", where, message, "store time limits under timeouts")
    if not ended.any():
        message = "no episode terminates: the world model cannot learn when one would"
        yield Finding(
            "no terminations", "note", "terminals", message, "right if the task never ends by itself"
        )

    inner = last[:-1]
    following, stored = episodes.observations[inner + 1], episodes.next_observations[inner]
    scale = np.maximum(moments(episodes.observations)[1], 1e-12)
    distance = (np.abs(following - stored) / scale).max(1) if len(inner) else np.zeros(0)
    same = inner[distance == 0]
    if len(same):
        message = (
            f"{len(same)} episodes end in the first observation of the next one, which is no part of them: "
            "a jump there would be learned as the task's doing"
        )
        where = f"next_observations, row {same[0]}"
        yield Finding(
            "next observation", "warning", where, message, "store what was seen after the last step"
        )
    near = inner[(distance > 0) & (distance < 1e-4) & ~ended[:-1]]
    if len(near):
        message = (
            f"{len(near)} episodes were cut where next_observations and the next row differ by rounding only"
        )
        cure = "store observations and next_observations with the same precision"
        yield Finding("next observation", "warning", f"next_observations, row {near[0]}", message, cure)


def _jumps(episodes: Episodes) -> Iterator[Finding]:
    inside = np.ones(episodes.num_steps, np.bool_)
    inside[episodes.starts[1:] - 1] = False
    if not inside.any():
        return
    change = episodes.next_observations - episodes.observations
    usual = np.percentile(np.abs(change[inside]), 95, axis=0)
    # A dimension that hardly ever moves (a goal) counts by its spread over the data.
    # In float64: in float32 the square of one huge value makes the spread infinite, and no step a jump.
    scale = np.maximum(usual, 0.1 * moments(episodes.observations)[1])
    size = np.linalg.norm(change / np.where(scale > 0, scale, 1), axis=1)
    rows = np.flatnonzero(inside & (size > JUMP * np.percentile(size[inside], 95)))
    if len(rows):
        message = (
            f"{len(rows)} steps inside an episode move more than {JUMP:g} times as far as 95 % of all steps: "
            "an unmarked reset would be learned as the task's doing"
        )
        cure = "if episodes were reset there, mark a timeout; if a sensor failed, drop or mend the episode"
        yield Finding("jump", "warning", f"observations, row {rows[0]}", message, cure)


def _duplicates(episodes: Episodes) -> Iterator[Finding]:
    seen: dict[bytes, int] = {}
    copies = []
    for number, (start, stop) in enumerate(zip(episodes.starts[:-1], episodes.starts[1:], strict=True)):
        content = episodes.observations[start:stop].tobytes() + episodes.actions[start:stop].tobytes()
        first = seen.setdefault(hashlib.sha256(content).digest(), number)
        if first != number:
            copies.append((first, number, start))
    if copies:
        first, number, row = copies[0]
        message = f"{len(copies)} episodes are copies of others (episode {number} of episode {first})"
        message += ": they count twice, and episodes held out for testing are no test"
        yield Finding("duplicate", "warning", f"observations, row {row}", message, "keep one of each")


def _dimensions(episodes: Episodes, key: str, columns: npt.NDArray[Any]) -> str:
    names = episodes.action_names if key == "actions" else episodes.observation_names
    said = [f"{column} ('{names[column]}')" if names else str(column) for column in columns]
    return ("dimension " if len(columns) == 1 else "dimensions ") + ", ".join(said)
