"""Rules by which known tasks end, as functions of the next observation in logged units.

Imagination needs them: without one, a fallen hopper goes on earning.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

TerminationFn = Callable[[Float[Array, "*batch obs"]], Bool[Array, "*batch"]]
"""True where arriving at this observation ends the episode with nothing more to earn."""


def hopper(next_observation: Float[Array, "*batch obs"]) -> Bool[Array, "*batch"]:
    """Torso too low, tilted, or anything out of range (Gymnasium ``hopper_v4.py``, ``is_healthy``).

    The observation clips speeds to 10, so that the task's bound of 100 on a speed cannot be seen.
    Written as "not healthy", so that NaN ends an episode.
    """
    height, angle = next_observation[..., 0], next_observation[..., 1]
    healthy = (height > 0.7) & (jnp.abs(angle) < 0.2)
    return ~(healthy & jnp.all(jnp.abs(next_observation[..., 1:]) < 100.0, axis=-1))


def walker2d(next_observation: Float[Array, "*batch obs"]) -> Bool[Array, "*batch"]:
    """Torso too low, too high or tilted (Gymnasium ``walker2d_v4.py``, ``is_healthy``)."""
    height, angle = next_observation[..., 0], next_observation[..., 1]
    return ~((height > 0.8) & (height < 2.0) & (jnp.abs(angle) < 1.0))


def never(next_observation: Float[Array, "*batch obs"]) -> Bool[Array, "*batch"]:
    """The half-cheetah runs until its time is up."""
    return jnp.zeros(next_observation.shape[:-1], bool)


def pen(next_observation: Float[Array, "*batch obs"]) -> Bool[Array, "*batch"]:
    """The pen's height (after 24 joint angles, x and y) is under 7.5 cm (D4RL ``pen_v0.py``)."""
    return next_observation[..., 26] < 0.075


_RULES: tuple[tuple[str, TerminationFn], ...] = (
    (r"hopper", hopper),
    (r"walker2d", walker2d),
    (r"halfcheetah", never),
    (r"(adroithand)?pen", pen),
)


def known_rule(task_id: str | None) -> TerminationFn | None:
    """The rule of a task by Gymnasium id, short name or D4RL name (``hopper-medium-v2``); else None."""
    for family, rule in _RULES:
        if task_id is not None and re.fullmatch(rf"{family}(-.*)?", task_id.lower()):
            return rule
    return None
