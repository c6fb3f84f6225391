"""Flat observations, and two corrections that make Gymnasium-Robotics' Adroit tasks those of D4RL's data.

Imported only when such a task is made: it needs gymnasium.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

PEN_HEIGHT = 26
"""Index of the pen's height in the 45 observations: 24 joint angles, then the pen's x, y, z."""
PEN_DROPPED_BELOW = 0.075
"""Metres (D4RL's ``pen_v0.py``)."""


class SortedFlat(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Observations of dictionaries as one vector, by sorted keys whatever the order of the space."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        """The space of ``env`` holds boxes, and dictionaries of such."""
        super().__init__(env)
        self._sorted = _sorted(env.observation_space)
        self.observation_space = gymnasium.spaces.flatten_space(self._sorted)

    def observation(self, observation: Any) -> Any:
        """(obs,)"""
        return gymnasium.spaces.flatten(self._sorted, observation)


def _sorted(space: Any) -> Any:
    if isinstance(space, gymnasium.spaces.Dict):
        return gymnasium.spaces.Dict([(key, _sorted(inner)) for key, inner in sorted(space.spaces.items())])
    return space


class PenDropEnds(gymnasium.Wrapper[Any, Any, Any, Any]):
    """End an episode when the pen falls, as D4RL does and Gymnasium-Robotics does not."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As Gymnasium's ``step``, with the correction of this class."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        dropped = bool(observation[PEN_HEIGHT] < PEN_DROPPED_BELOW)
        return observation, reward, bool(terminated) or dropped, truncated, info


class ReachIsPenalty(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Mend the sign of the reaching term in the dense Adroit rewards.

    From 1.2.1 on Gymnasium-Robotics pays +0.1 for each metre between palm and object in the ``-v1``
    door, hammer and relocate tasks; the tasks of D4RL charge it. The distance is read from the
    observation, which holds the same numbers the reward was computed from.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], palm: slice, target: slice | None) -> None:
        """``palm`` and ``target`` are positions in the observation; without ``target`` their difference."""
        super().__init__(env)
        self.palm, self.target = palm, target

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As Gymnasium's ``step``, with the correction of this class."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        gap = observation[self.palm] - (0.0 if self.target is None else observation[self.target])
        return observation, float(reward) - 0.2 * float(np.linalg.norm(gap)), terminated, truncated, info
