"""A task that needs no simulator: a point on a line, whose every transition can be told from the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ipd.evaluation.tasks import Task

HORIZON = 10
EDGE = 1.5


class Line:
    """The observation is (place, time, place); ends beyond the edge, is cut after ``HORIZON`` steps."""

    def reset(self, seed: int) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
        self.place = np.random.default_rng(seed).uniform(-0.5, 0.5)
        self.time = 0
        return self._observation(), {}

    def step(self, action: np.ndarray[Any, Any]) -> tuple[Any, ...]:
        self.place += 0.1 * (float(action[0]) - 2.0) + 0.05 * float(action[1])
        self.time += 1
        return self._observation(), float(action[0]), abs(self.place) > EDGE, self.time == HORIZON, {}

    def close(self) -> None:
        """Nothing is open."""

    def _observation(self) -> np.ndarray[Any, Any]:
        return np.array([self.place, 0.1 * self.time, -self.place])


def line(make: Any = Line) -> Task:
    """Actions within [1, 5] and [-4, -2]."""
    return Task(
        id="Line-v0",
        make=make,
        horizon=HORIZON,
        observation_size=3,
        action_size=2,
        action_low=np.array([1, -4], np.float32),
        action_high=np.array([5, -2], np.float32),
        options={},
        observation_names=("place", "time", "mirror"),
        versions={"gymnasium": "none"},
        settable=False,
        locomotion=False,
        clip_actions=False,
    )


@pytest.fixture
def task() -> Task:
    return line()


@pytest.fixture
def forgetful() -> Task:
    """A task whose resets do not bring everything back: no episode can be replayed."""
    drift = iter(range(10**6))

    class Drifting(Line):
        def step(self, action: np.ndarray[Any, Any]) -> tuple[Any, ...]:
            self.place += 1e-4 * next(drift)
            return super().step(action)

    return line(Drifting)
