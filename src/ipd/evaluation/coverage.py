"""Whether a policy stays where the data are: distances of actions and visited pairs, learner's units."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.floating[Any]]

NEIGHBOURS = 10
REFERENCE = 20_000
"""Logged pairs that others are compared with."""
QUERIES = 2_000
QUANTILE = 0.99


def action_distance(
    observations: Floats, logged: Floats, chosen: Floats, seed: int = 0
) -> dict[str, float | None]:
    """How far a policy's actions (n, act) are from the logged ones (n, act) at the same states (n, obs).

    ``distance`` is the median |pi(s) - a|; ``relative`` the median of |pi(s) - a| by the root mean square
    distance between a and the logged actions at the nearest logged states: about 1 where the policy differs
    from the data as the data differ from themselves. None where those neighbours all did the same.
    """
    generator = np.random.default_rng(seed)
    some = np.sort(generator.permutation(len(observations))[:REFERENCE])
    asked = generator.permutation(len(observations))[:QUERIES]
    count = min(NEIGHBOURS + 1, len(some))
    near = some[cKDTree(observations[some]).query(observations[asked], count)[1].reshape(len(asked), -1)]
    others = near != asked[:, None]  # the state itself may be among its neighbours
    squares = ((logged[near] - logged[asked][:, None]) ** 2).sum(-1) * others
    spread = np.sqrt(squares.sum(1) / np.maximum(others.sum(1), 1))
    distance = np.sqrt(((chosen[asked] - logged[asked]) ** 2).sum(-1))
    wide = spread > 1e-6
    relative = float(np.median(distance[wide] / spread[wide])) if wide.any() else None
    return {"distance": float(np.median(distance)), "relative": relative}


class Support:
    """Nearest-neighbour distances to logged rows; the ``QUANTILE`` of the data's own is their limit.

    The data's own distances are those of rows of one half of the episodes to rows of the other half:
    neighbours within an episode are near for no other reason than that time went on.
    """

    def __init__(self, rows: Floats, starts: NDArray[np.int64], seed: int = 0) -> None:
        """rows (N, d); ``starts`` (E + 1,) first rows of the episodes, then N."""
        generator = np.random.default_rng(seed)
        half = generator.permutation(len(starts) - 1) % 2 == 0
        inside = np.repeat(half, np.diff(starts))
        if inside.all() or not inside.any():  # a single episode
            inside = np.arange(len(rows)) % 2 == 0
        reference = generator.permutation(np.flatnonzero(inside))[:REFERENCE]
        own = generator.permutation(np.flatnonzero(~inside))[:QUERIES]
        self._tree, self._generator = cKDTree(rows[reference]), generator
        self.limit = float(np.quantile(self._tree.query(rows[own])[0], QUANTILE))

    def outside(self, rows: Floats) -> float | None:
        """Share of ``rows`` (n, d), or of ``QUERIES`` of them, beyond the limit; None without any.

        1 - ``QUANTILE`` is what the data themselves have.
        """
        if not len(rows):
            return None
        some = rows[self._generator.permutation(len(rows))[:QUERIES]]
        return float((self._tree.query(some)[0] > self.limit).mean())
