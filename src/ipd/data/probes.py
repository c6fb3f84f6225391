"""Small made datasets whose answers are known on paper."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from ipd.data.episodes import Episodes

DoubleArray = npt.NDArray[np.float64]

LINEAR_A: DoubleArray = np.array([[1.0, 0.1, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 0.8]])
LINEAR_B: DoubleArray = np.array([[0.0, 0.1], [0.3, 0.0], [0.1, 0.4]])
LINEAR_Q: DoubleArray = np.diag([1.0, 0.5, 0.2])
LINEAR_R: DoubleArray = np.diag([0.2, 0.1])


def linear_quadratic(num_episodes: int, length: int, seed: int, behaviour_noise: float = 0.3) -> Episodes:
    """A point with 3 observations and 2 actions: s' = A s + B a, r = -(s'Q s + a'R a), no end but time.

    Starts are standard normal; actions are half the optimal feedback (discount 0.99) plus Gaussian
    noise of std ``behaviour_noise``, clipped to [-1, 1]. Optimum: ``linear_feedback``, ``linear_cost``.
    """
    random = np.random.default_rng(seed)
    feedback = linear_feedback(0.99)
    state = random.normal(size=(num_episodes, 3))
    observations, actions, rewards, following = [], [], [], []
    for _ in range(length):
        noise = behaviour_noise * random.normal(size=(num_episodes, 2))
        action = np.clip(-0.5 * state @ feedback.T + noise, -1, 1)
        cost = np.einsum("ni,ij,nj->n", state, LINEAR_Q, state) + np.einsum(
            "ni,ij,nj->n", action, LINEAR_R, action
        )
        observations.append(state)
        actions.append(action)
        rewards.append(-cost)
        state = state @ LINEAR_A.T + action @ LINEAR_B.T
        following.append(state)
    truncated = np.zeros((num_episodes, length), np.bool_)
    truncated[:, -1] = True
    return Episodes(
        observations=np.stack(observations, 1).reshape(-1, 3).astype(np.float32),
        actions=np.stack(actions, 1).reshape(-1, 2).astype(np.float32),
        rewards=np.stack(rewards, 1).reshape(-1).astype(np.float32),
        next_observations=np.stack(following, 1).reshape(-1, 3).astype(np.float32),
        terminated=np.zeros(num_episodes * length, np.bool_),
        truncated=truncated.reshape(-1),
        starts=np.arange(num_episodes + 1, dtype=np.int64) * length,
        source=f"probe:linear_quadratic({num_episodes}, {length}, {seed})",
    )


def linear_cost(discount: float) -> DoubleArray:
    """P (3, 3) of the optimal value V(s) = -s'P s, unbounded actions (discounted Riccati equation)."""
    cost = LINEAR_Q.copy()
    for _ in range(10_000):
        gain = _gain(cost, discount)
        after = LINEAR_Q + discount * LINEAR_A.T @ cost @ (LINEAR_A - LINEAR_B @ gain)
        if np.abs(after - cost).max() < 1e-13:
            break
        cost = after
    return cost


def linear_feedback(discount: float) -> DoubleArray:
    """K (2, 3) of the optimal action a = -K s, unbounded actions."""
    return _gain(linear_cost(discount), discount)


def _gain(cost: DoubleArray, discount: float) -> DoubleArray:
    curvature = LINEAR_R + discount * LINEAR_B.T @ cost @ LINEAR_B
    gain = np.linalg.solve(curvature, discount * LINEAR_B.T @ cost @ LINEAR_A)
    return gain.astype(np.float64)


def chain(num_episodes: int, end: Literal["terminated", "truncated"]) -> Episodes:
    """Two steps, first -> second -> second, rewards 0 and 1; the second step ends the episode.

    With ``end`` terminated nothing follows: V(second) = 1, V(first) = discount. Truncated, the second
    state goes on for ever: V(second) = 1 / (1 - discount), V(first) = discount / (1 - discount).
    States are one-hot (2,); the one action (1,) does nothing and varies over [-1, 1].
    """
    rows = 2 * num_episodes
    first, second = np.eye(2, dtype=np.float32)
    last = np.arange(rows) % 2 == 1
    return Episodes(
        observations=np.tile(np.stack([first, second]), (num_episodes, 1)),
        actions=np.linspace(-1, 1, rows, dtype=np.float32)[:, None],
        rewards=last.astype(np.float32),
        next_observations=np.tile(second, (rows, 1)),
        terminated=last & (end == "terminated"),
        truncated=last & (end == "truncated"),
        starts=np.arange(num_episodes + 1, dtype=np.int64) * 2,
        source=f"probe:chain({num_episodes}, {end})",
    )
