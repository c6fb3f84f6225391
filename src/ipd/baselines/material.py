"""What a baseline may learn from: everything a run can offer one seed, in learner's units, NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from ipd.types import Spec, Steps
from ipd.world.ensemble import Ensemble

Constants = dict[str, Any]
"""Numbers (or lists of them) taken from the data that acting needs; they end in summary.json."""


class Material(NamedTuple):
    """One seed's view of the data and of the stages before."""

    steps: Steps
    """All logged steps, episodes one after another."""
    starts: NDArray[np.int64]
    """(episodes + 1,), row of each episode's first step."""
    spec: Spec
    reward_scale: float
    """A scaled reward divided by this is a logged one."""
    values: Float[np.ndarray, "steps"] | None = None
    """V of each logged observation by the value stage; None for algorithms that did not ask for it."""
    ensemble: Ensemble | None = None
    """The world model, likewise."""
    rule: jax.tree_util.Partial | None = None
    """The task's own rule of termination for one normalised next observation, or None."""


def episode_start(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row of the first step of the episode that each step belongs to, ``(steps,)``."""
    return np.repeat(starts[:-1], np.diff(starts))


def on_device(steps: Steps) -> Steps:
    """The same with JAX arrays."""
    moved: Steps = jax.tree.map(jnp.asarray, steps)
    return moved
