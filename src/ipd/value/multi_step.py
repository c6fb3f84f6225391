"""Steps whose reward is that of several: values that learn from further ahead (a lever beyond the paper)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from ipd.types import Steps


def multi_step(steps: Steps, starts: Int[np.ndarray, "ends"], count: int, discount: float) -> Steps:
    """Each step with the discounted rewards of the ``count`` steps from it on and what was seen behind them.

    Nothing reaches beyond the end of an episode or segment; ``starts`` holds the row where each begins, and
    the number of rows. ``terminated`` becomes the share of V(s') that is lost, so that the target of one
    step, r + gamma (1 - terminated) V(s'), is that of k: sum_{i<k} gamma^i r_i + gamma^k V(s_k), without V
    behind a termination. The actions on the way are the logged ones, uncorrected (Sutton, 1988).
    """
    if count == 1:
        return steps
    rewards, terminated = np.asarray(steps.rewards), np.asarray(steps.terminated)
    rows, ends = np.arange(len(rewards)), np.repeat(starts[1:], np.diff(starts))
    total: Any = np.zeros_like(rewards)
    for ahead in range(count):
        inside = rows + ahead < ends
        total[inside] += np.float32(discount**ahead) * rewards[rows[inside] + ahead]
    last = np.minimum(rows + count, ends) - 1
    kept = np.float32(discount) ** (last - rows) * (1.0 - terminated[last])
    following: Any = np.asarray(steps.next_observations)[last]
    lost: Any = (1.0 - kept).astype(np.float32)
    return steps._replace(rewards=total, next_observations=following, terminated=lost)
