"""Episodes of many policies in the real task, stepped side by side."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ipd.evaluation.tasks import Task


@runtime_checkable
class Controller(Protocol):
    """Acts for all rows at once, in the task's units. A row is one environment."""

    def reset(self, rows: int) -> None:
        """Forget everything; what follows are the first observations of ``rows`` episodes."""

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> Any:
        """(rows, obs) and the (rows,) rewards of the step before, 0 at first, -> (rows, act).

        Rows whose episode is over repeat their last observation.
        """


class Results(NamedTuple):
    """Of every episode: undiscounted return in the task's reward units, and steps taken."""

    returns: NDArray[np.float64]
    """(copies, episodes)."""
    lengths: NDArray[np.int64]
    """(copies, episodes)."""


class ZeroController:
    """The zero action, a yardstick and a test double."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def reset(self, rows: int) -> None:
        """Nothing to forget."""

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, obs) -> zeros (rows, act)."""
        return np.zeros((len(observations), self.task.action_size), np.float32)


class RandomController:
    """Uniform actions within the task's bounds, the same after every reset."""

    def __init__(self, task: Task, seed: int = 0) -> None:
        self.task, self.seed = task, seed

    def reset(self, rows: int) -> None:
        """Start the random numbers again."""
        self.generator = np.random.default_rng(self.seed)

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, obs) -> (rows, act)."""
        shape = (len(observations), self.task.action_size)
        return self.generator.uniform(self.task.action_low, self.task.action_high, shape).astype(np.float32)


class NotFiniteError(FloatingPointError):
    """Something that is not finite in an episode of the policy number `copy`."""

    def __init__(self, text: str, copy: int) -> None:
        super().__init__(text)
        self.copy = copy


def rollout(task: Task, controller: Controller, episodes: int, seed: int, copies: int = 1) -> Results:
    """Run ``episodes`` episodes for each of ``copies`` policies (seeds of training) held by one controller.

    Row ``copy * episodes + episode`` of the batch belongs to that copy and episode. Episode i starts
    from reset seed ``seed + i`` in every copy and for every controller, so that differences between
    policies are not differences of luck at the start. The batch never changes its shape: a finished
    row repeats its last observation and its action is dropped.

    Raises ``NotFiniteError`` where a policy gives an action, or the task an observation or
    reward, that is not finite.
    """
    rows = copies * episodes
    environments = [task.make() for _ in range(rows)]
    try:
        observations = np.zeros((rows, task.observation_size), np.float32)
        for row, env in enumerate(environments):
            observations[row] = env.reset(seed=seed + row % episodes)[0]
        returns, lengths = np.zeros(rows), np.zeros(rows, np.int64)
        running = np.ones(rows, bool)
        controller.reset(rows)
        rewards = np.zeros(rows)
        for step in range(task.horizon):
            actions = np.asarray(controller.act(observations, rewards.astype(np.float32)), np.float32)
            if actions.shape != (rows, task.action_size):
                raise ValueError(f"actions have shape {actions.shape}, not {(rows, task.action_size)}")
            _check_finite("action", actions, running, step, episodes)
            if task.clip_actions:
                actions = np.clip(actions, task.action_low, task.action_high)
            rewards = np.zeros(rows)
            over = np.zeros(rows, bool)
            for row in np.flatnonzero(running).tolist():
                observations[row], rewards[row], ended, cut, _ = environments[row].step(actions[row])
                over[row] = ended or cut
            _check_finite("observation", observations, running, step, episodes)
            _check_finite("reward", rewards[:, None], running, step, episodes)
            returns += rewards
            lengths += running
            running &= ~over
            if not running.any():
                break
    finally:
        for env in environments:
            env.close()
    return Results(returns.reshape(copies, episodes), lengths.reshape(copies, episodes))


def _check_finite(
    what: str, values: NDArray[Any], running: NDArray[np.bool_], step: int, episodes: int
) -> None:
    bad = np.flatnonzero(running & ~np.isfinite(values).all(axis=1))
    if bad.size:
        copy, episode = divmod(int(bad[0]), episodes)
        text = f"{what} not finite in step {step} of episode {episode}, policy {copy}"
        raise NotFiniteError(text, copy)
