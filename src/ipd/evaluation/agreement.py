"""Two estimates of the same policies: their intervals, whether they agree, and what may be said of them."""

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
MUCH_OUTSIDE = 0.2
"""The same for the share of imagined pairs beyond the data's own nearest-neighbour distances."""
RELIABLE = 0.5
"""Less of the return imagined than this, and the critic has the last word."""


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
    width = math.hypot(first.half, second.half)
    return abs(first.mean - second.mean) / width if width > 0 else math.inf


def word(difference: Mapping[str, float]) -> str:
    """better, worse, or open where the interval of the difference from the data holds 0."""
    if difference["low"] > 0:
        return "better"
    return "worse" if difference["high"] < 0 else "open"


def verdict(policy: str, told: Mapping[str, Any]) -> list[str]:
    """What the numbers say of ``policy``, and what they cannot; ``told`` is the stage's summary."""
    own = told["policies"][policy]
    fitted, imagined = word(own["fqe"]["gain"]), word(own["model"]["gain"])
    share, lines = own["model"]["reliable_share"], []
    with_share = f"with {100 * share:.0f} % of the return imagined reliably"
    if {fitted, imagined} == {"better", "worse"}:
        lines.append("The two estimates contradict each other: do not trust either.")
    elif fitted == imagined == "open":
        lines.append(f"Neither estimate tells the policy from the data, {with_share}.")
    elif fitted == imagined:
        lines.append(f"Both estimates say {fitted} than the data, {with_share}.")
    else:
        sure, other = ("Fitted Q", "the model") if imagined == "open" else ("The model", "fitted Q")
        lines.append(
            f"{sure} says {fitted if imagined == 'open' else imagined} than the data, {other} leaves it open."
        )
    if own["apart"] > 1:
        lines.append(
            f"They differ by {own['apart']:.1f} times their intervals: the size is not to be trusted."
        )
    rank = told["rank_correlation"]
    if rank is not None and rank < 0.5:
        lines.append(f"They rank the policies differently (rank correlation {rank:.2f}).")
    if share < RELIABLE:
        lines.append(
            "The model was left early: most of its estimate is the word of V, which also trained it."
        )
    error, gain = told["calibration"]["mean"], own["fqe"]["gain"]["mean"]
    if abs(error) > abs(gain):
        lines.append(
            f"Fitted Q misses the data's own return by {error:+.3g}, more than the gain it promises."
        )
    distance, outside = own["actions"]["relative"], own["outside"]
    if (distance or 0.0) > FAR or (outside or 0.0) > MUCH_OUTSIDE:
        far = "" if distance is None else f" ({distance:.1f} times the data's own spread"
        far += (
            "" if outside is None or distance is None else f"; {100 * outside:.0f} % of imagined pairs beyond"
        )
        lines.append(f"The policy's actions lie outside the data{far + ')' if far else ''}.")
    lines.append("None of this replaces a trial: both estimates learned from the same data as the policy.")
    return lines
