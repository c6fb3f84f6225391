"""Imagined plans carried out in the real simulator: what was promised, and what came of it.

Possible where an observation determines the simulator's state (``Task.settable``): positions but the
horizontal one, which nothing depends on, and speeds. Recorded steps replay to float32 rounding if
the file was recorded with a MuJoCo of the same physics; ``replay_error`` says whether it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from ipd.evaluation.tasks import Task, TaskError
from ipd.types import Segment

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
SPEED_CLIP = 10.0
"""Hopper and Walker2d report speeds cut to this; the half-cheetah reports them whole."""
PAIRS = 400


class Recorded(NamedTuple):
    """Logged steps that follow each start state, in logged units; all arrays are whole (no padding)."""

    observations: Floats
    """(n, T, obs); ``observations[:, 0]`` are the start states."""
    actions: Floats
    """(n, T, act)."""
    rewards: Floats
    """(n, T)."""
    next_observations: Floats
    """(n, T, obs)."""
    terminated: Bools
    """(n, T)."""


class Replay(NamedTuple):
    """What the task did, in its units. After the last step taken the state stays and rewards are 0."""

    rewards: NDArray[np.float64]
    """(n, T)."""
    next_observations: NDArray[np.float64]
    """(n, T, obs)."""
    terminated: Bools
    """(n, T): True at the step that ended the episode."""


def exact_states(task: Task, observations: Floats) -> Bools:
    """(..., obs) -> (...): False where a speed was clipped, so that the true state cannot be known."""
    if task.id.startswith("HalfCheetah"):
        return np.ones(observations.shape[:-1], bool)
    positions = task.observation_size // 2
    return np.asarray((np.abs(observations[..., positions:]) < SPEED_CLIP).all(axis=-1))


def replay(task: Task, observations: Floats, actions: Floats, valid: Bools) -> Replay:
    """Put the simulator into each start state and take its actions while they are ``valid``.

    observations (n, obs), actions (n, T, act), valid (n, T); everything in the task's units. A step
    after the first one that is not valid, or after a termination, is not taken. Start states that
    ``exact_states`` refuses are set with their clipped speeds: leave them out beforehand.

    Raises ``TaskError`` for a task whose observation does not determine its state.
    """
    if not task.settable:
        raise TaskError(f"task {task.id!r} cannot be set to an observed state; audit a running task")
    count, steps = valid.shape
    positions = task.observation_size // 2
    result = Replay(
        np.zeros((count, steps)),
        np.repeat(observations[:, None].astype(np.float64), steps, axis=1),
        np.zeros((count, steps), bool),
    )
    env = task.make()
    try:
        env.reset(seed=0)
        simulator = env.unwrapped
        for row in range(count):
            start = observations[row].astype(np.float64)
            simulator.set_state(np.concatenate([[0.0], start[:positions]]), start[positions:])
            for step in range(steps):
                if not valid[row, step]:
                    break
                state, reward, ended, _, _ = simulator.step(np.asarray(actions[row, step], np.float32))
                result.rewards[row, step] = reward
                result.next_observations[row, step:] = state
                result.terminated[row, step] = ended
                if ended:
                    break
    finally:
        env.close()
    return result


def replay_error(task: Task, recorded: Recorded) -> float | None:
    """Largest |recorded - replayed| observation, logged units, over steps taken one by one.

    About 1e-5 where the file comes from this simulator; more says that it does not, and true returns
    are those of another one. None where no state is exact.
    """
    width = task.observation_size
    starts, goals = recorded.observations.reshape(-1, width), recorded.next_observations.reshape(-1, width)
    exact = exact_states(task, starts)
    if not exact.any():
        return None
    actions = recorded.actions.reshape(len(starts), 1, -1)[exact]
    replayed = replay(task, starts[exact], actions, np.ones((int(exact.sum()), 1), bool))
    return float(np.abs(replayed.next_observations[:, 0] - goals[exact]).max())


def compare(
    task: Task,
    recorded: Recorded,
    segment: Segment,
    value: Callable[[Floats], Floats],
    *,
    discount: float,
    reward_scale: float,
    observation_std: Floats,
    uncertainty_max: float,
) -> dict[str, Any]:
    """One row of the audit: true against imagined return of plans from logged states.

    ``segment`` is in the task's units, one row for each row of ``recorded``, and best imagined without
    a threshold: it is cut here at the first step whose U exceeds ``uncertainty_max``, and what lies
    beyond serves to compare errors inside and outside the reliable set. ``value`` maps observations
    (m, obs) in logged units to V in scaled reward units.

    All returns are discounted and scaled; a stretch of h steps ends in discount^h V at the state
    reached, the imagined one for the imagined return and the true one for the true, and in 0 after a
    termination. A plan shorter than h counts with the steps it has. Plans without any step, and
    start states with clipped speeds, are left out. Keys are those of docs/architecture.md;
    ``observation_error`` is the mean squared error of one dimension in units of ``observation_std``,
    ``error_reliable`` and ``error_unreliable`` the mean |imagined - true| return of uncut plans that
    stay in, or leave, the reliable set. None stands where nothing was left to average.
    """
    valid, ended = np.asarray(segment.valid), np.asarray(segment.terminated) > 0
    sure = valid & (np.asarray(segment.uncertainty) < uncertainty_max)
    inside = np.asarray(np.logical_and.accumulate(sure, axis=1))
    reliable = np.asarray((inside | _before(ended & valid)).all(axis=1))
    plans = _Plans(task, recorded, segment, value, discount, reward_scale)
    exact = exact_states(task, recorded.observations[:, 0])
    keep, whole = exact & inside[:, 0], exact & valid[:, 0]
    true, imagined = (returns[keep] for returns in plans.returns(inside))
    uncut = np.abs(np.subtract(*(returns[:, -1] for returns in plans.returns(valid))))
    logged = plans.recorded_returns()[keep]
    gain, hoped = true[:, -1] - logged, imagined[:, -1] - logged
    error: Floats = ((plans.replay.next_observations - segment.next_observations) / observation_std) ** 2
    comparable = inside & ~_before(plans.replay.terminated) & keep[:, None]
    steps = range(valid.shape[1])
    return {
        "count": int(keep.sum()),
        "better": _mean(gain > 0),
        "gain": _mean(gain),
        "imagined_gain": _mean(hoped),
        "rank_correlation": _spearman(imagined[:, -1], true[:, -1]),
        "gain_rank_correlation": _spearman(hoped, gain),
        "reliable_share": _mean(reliable[whole]),
        "depth": [step + 1 for step in steps],
        "true_return": [_mean(true[:, step]) for step in steps],
        "imagined_return": [_mean(imagined[:, step]) for step in steps],
        "observation_error": [_mean(error[comparable[:, step], step]) for step in steps],
        "error_reliable": _mean(uncut[whole & reliable]),
        "error_unreliable": _mean(uncut[whole & ~reliable]),
        "pairs": {"imagined": imagined[:PAIRS, -1].tolist(), "true": true[:PAIRS, -1].tolist()},
    }


class _Plans:
    """A replay of plans and the values of every state in it, from which returns of any cut follow."""

    def __init__(
        self,
        task: Task,
        recorded: Recorded,
        segment: Segment,
        value: Callable[[Floats], Floats],
        discount: float,
        reward_scale: float,
    ) -> None:
        valid = np.asarray(segment.valid)
        self.replay = replay(task, recorded.observations[:, 0], np.asarray(segment.actions), valid)
        self.recorded, self.segment = recorded, segment
        self.discount, self.reward_scale = discount, reward_scale

        def values(states: Any) -> Floats:
            flat = np.asarray(states, np.float32).reshape(-1, task.observation_size)
            return np.asarray(value(flat), np.float64).reshape(valid.shape)

        self.true_values = values(self.replay.next_observations)
        self.imagined_values = values(segment.next_observations)
        self.recorded_values = values(recorded.next_observations)

    def returns(self, valid: Bools) -> tuple[Floats, Floats]:
        """True and imagined, (n, T) each: of the first 1..T steps of each plan cut to ``valid``."""
        replay, segment = self.replay, self.segment
        ended = np.asarray(segment.terminated) > 0
        return (
            self._returns(replay.rewards, replay.terminated, self.true_values, valid),
            self._returns(np.asarray(segment.rewards), ended, self.imagined_values, valid),
        )

    def recorded_returns(self) -> Floats:
        """(n,): what the logged actions brought."""
        logged = self.recorded
        whole = np.ones(logged.rewards.shape, bool)
        return self._returns(logged.rewards, logged.terminated, self.recorded_values, whole)[:, -1]

    def _returns(self, rewards: Floats, terminated: Bools, values: Floats, valid: Bools) -> Floats:
        taken = valid & ~_before(terminated & valid)
        weights = self.discount ** np.arange(valid.shape[1])
        total = np.cumsum(np.where(taken, weights * self.reward_scale * rewards, 0.0), axis=1)
        reached = np.where(terminated, 0.0, self.discount * weights * values)
        # The value at the last step taken so far stands for all that follows.
        last = np.maximum(np.cumsum(taken, axis=1) - 1, 0)
        return np.asarray(total + np.take_along_axis(reached, last, axis=1))


def _before(happened: Bools) -> Bools:
    """(n, T) -> (n, T): True at the steps after the first True."""
    return np.asarray(np.cumsum(happened, axis=1) - happened > 0)


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values)) if values.size else None


def _spearman(first: Floats, second: Floats) -> float | None:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(spearmanr(first, second).statistic)
