"""Estimates of the same policies: their intervals, whether they agree, and what may be said of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

REPLICATES = 2_000
BEHAVIOUR = "behaviour"
FAR = 2.0
"""Actions further from the logged ones than this many times the data's own spread lie outside the data."""
NEAR = 0.1
"""Nearer than this, the policy does what the data did."""
MUCH_OUTSIDE = 0.2
"""As ``FAR``, for the share of imagined pairs beyond the data's own nearest-neighbour distances."""
RELIABLE = 0.5
"""Less of the return imagined than this, and the critic has the last word."""
FEW_EPISODES = 10
MISSED = 0.25
"""Fitted Q that misses more than this share of the data's return has not learned it."""
UNSEEN = 0.5
"""More of the data's return than this behind truncations, and it is no measure of fitted Q."""


class Estimate(NamedTuple):
    """A mean and its 95 % percentile interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2.0


def estimate(values: NDArray[Any], seed: int = 0) -> Estimate:
    """Mean over members and starts of (members, starts), and its bootstrap interval.

    Each replicate takes one member, for members are bootstrap replicates themselves, and draws the starts
    with replacement. With equal seeds, the draws for arrays of one shape are the same.
    """
    generator = np.random.default_rng(seed)
    members, starts = values.shape
    each = np.array(
        [
            values[generator.integers(members), generator.integers(starts, size=starts)].mean()
            for _ in range(REPLICATES)
        ]
    )
    low, high = np.quantile(each, (0.025, 0.975))
    return Estimate(float(values.mean()), float(low), float(high))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's; None with fewer than three policies or where one side does not vary."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    rho = float(spearmanr(first, second).statistic)
    return rho if math.isfinite(rho) else None


def apart(first: Estimate, second: Estimate) -> float:
    """|difference| in units of both intervals' half-widths, added as squares; above 1 they disagree."""
    difference, width = abs(first.mean - second.mean), math.hypot(first.half, second.half)
    if difference == 0:
        return 0.0
    return difference / width if width > 0 else math.inf


def word(difference: Mapping[str, float]) -> str:
    """better, worse, or open where the interval of the difference from the data holds 0."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "open"


def verdict(policy: str, told: Mapping[str, Any]) -> list[str]:
    """What the numbers say of ``policy``, and what they cannot; ``told`` is the stage's summary."""
    own = told["policies"][policy]
    lines = _by_both(own, told["rank_correlation"]) if "model" in own else _by_one(own)
    return [
        *lines,
        *_reserves(own, told),
        _LAST.format("both estimates" if "model" in own else "the estimate"),
    ]


_LAST = (
    "None of this replaces a trial: {} learned from the same data as the policy, and intervals count chance, "
    "not errors of method."
)


def _by(gain: Mapping[str, float]) -> str:
    """A gain with its interval."""
    return f"{gain['mean']:+.3g} ({gain['low']:+.3g} to {gain['high']:+.3g})"


def _by_one(own: Mapping[str, Any]) -> list[str]:
    """Fitted Q's word where there is no other."""
    gain = own["fqe"]["gain"]
    said = word(gain)
    if said == "open":
        line = f"Fitted Q cannot tell whether the policy is better or worse than the data: {_by(gain)}."
    else:
        line = f"Fitted Q says that the policy is {said} than the data: {_by(gain)}."
    return [
        line,
        "No second estimate checks it, for the run has no world model with values. For one, take "
        "`ipd train --until augment` on the same data and task, and that run as `ipd judge --model`.",
    ]


def _by_both(own: Mapping[str, Any], rank: float | None) -> list[str]:
    """What both say, and how far they agree."""
    gains = own["fqe"]["gain"], own["model"]["gain"]
    fitted, imagined = map(word, gains)
    share, lines = own["model"]["reliable_share"], []
    numbers = f"{_by(gains[0])} by fitted Q, {_by(gains[1])} in the model"
    if {fitted, imagined} == {"better", "worse"}:
        lines.append(f"The two estimates contradict each other, do not trust either: {numbers}.")
    elif fitted == imagined == "open":
        lines.append(
            f"Neither estimate can tell whether the policy is better or worse than the data: {numbers}."
        )
    elif fitted == imagined:
        lines.append(f"Both estimates say that the policy is {fitted} than the data: {numbers}.")
    else:
        sure, said, other = (
            ("Fitted Q", fitted, "the model") if imagined == "open" else ("The model", imagined, "fitted Q")
        )
        lines.append(
            f"{sure} says that the policy is {said} than the data, {other} leaves it open: {numbers}."
        )
    if own["apart"] > 1:
        times = f" by {own['apart']:.1f} times their intervals" if math.isfinite(own["apart"]) else ""
        lines.append(f"The estimates differ{times}: the size is not to be trusted.")
    if rank is not None and rank < 0.5:
        lines.append(f"They rank the policies differently (rank correlation {rank:.2f}).")
    if share < RELIABLE:
        lines.append(
            f"The model was left early: {100 * (1 - share):.0f} % of its estimate is the word of V, which "
            "also trained the policy."
        )
    return lines


def _reserves(own: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """Reasons to doubt that lie in the data or in the policy's distance from them."""
    data, lines = told["data"], []
    reward = data["same_reward"]
    if reward is not None:
        telling = reward != 0 and data["terminates"]
        lines.append(
            f"Every logged reward is {reward:.4g}: "
            + ("a return says how long episodes last." if telling else "nothing tells policies apart.")
        )
    if data["episodes"] < FEW_EPISODES:
        count = f"{data['episodes']} logged episodes are" if data["episodes"] > 1 else "One logged episode is"
        lines.append(f"{count} too few to know how returns vary: the intervals are too narrow.")
    lines += _calibration(own["fqe"]["gain"], told)
    distance, outside = own["actions"]["relative"], own.get("outside")
    if (distance or 0.0) > FAR or (outside or 0.0) > MUCH_OUTSIDE:
        parts = [] if distance is None else [f"{distance:.1f} times the data's own spread"]
        parts += [] if outside is None else [f"{100 * outside:.0f} % of imagined pairs beyond"]
        lines.append(f"The policy's actions lie outside the data ({'; '.join(parts)}).")
    if own["actions"]["distance"] == 0 or (distance is not None and distance < NEAR):
        lines.append("The policy does what the data did: there is next to nothing to tell apart.")
    elif distance is None:
        lines.append(
            "In like states the data always took the same action: nothing tells where another one leads."
        )
    return lines


def _calibration(gain: Mapping[str, float], told: Mapping[str, Any]) -> list[str]:
    """Whether fitted Q knows the one return that is known."""
    data, error = told["policies"][BEHAVIOUR], told["calibration"]
    if data["behind_share"] > UNSEEN:
        share = f"{100 * data['behind_share']:.0f} %"
        return [
            f"Episodes were cut off early: {share} of the data's return is what fitted Q expects behind "
            "their ends, so the data cannot check it."
        ]
    said, logged = data["fqe"]["mean"], data["logged"]["mean"]
    line = f"Fitted Q puts the data's own return at {said:.4g}, and {logged:.4g} was logged: "
    if word(error) != "open" and abs(error["mean"]) > MISSED * abs(logged):
        return [line + "it has not learned it, and more `--steps` may help."]
    if word(gain) != "open" and abs(error["mean"]) > abs(gain["mean"]):
        return [line + "a miss larger than the gain or loss it tells."]
    return []
