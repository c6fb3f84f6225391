"""The planner with made-up models, and on a linear-quadratic problem whose optimum is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.config import AugmentConfig
from ipd.planning.mpc import plan, rollout_return, unroll
from ipd.types import Prediction

GAMMA = 0.9
BATCH, STEPS, OBS, ACT = 5, 4, 3, 2
MIX = jnp.array([[0.9, 0.2, 0.0], [-0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])
PUSH = jnp.array([[0.5, 0.0], [0.0, 0.4], [-0.6, 0.9]])


def predict(observation: jax.Array, action: jax.Array) -> Prediction:
    """Linear model; ends at a large first entry, unsure at a large last one."""
    following = observation @ MIX.T + action @ PUSH.T
    reward = observation[:, 1] - (action**2).sum(1)
    ended = (following[:, 0] > 1.2).astype(jnp.float32)
    return Prediction(following, reward, ended, jnp.abs(observation[:, 2]))


def value(observation: jax.Array) -> jax.Array:
    return 3.0 * observation[:, 0] + 1.0


def policy(observation: jax.Array, noise: jax.Array) -> jax.Array:
    return jnp.tanh(observation[:, :2]) + noise


def plain_return(start: np.ndarray, noise: np.ndarray, kappa: float) -> float:
    """One plan of Eq. 25, step by step."""
    s, total, power = np.float64(start), 0.0, 1.0
    for n in noise:
        a = np.tanh(s[:2]) + n
        if abs(s[2]) >= kappa:
            return float(total + power * (3 * s[0] + 1))
        total += power * (s[1] - (a**2).sum())
        power *= GAMMA
        s = np.asarray(MIX) @ s + np.asarray(PUSH) @ a
        if s[0] > 1.2:
            return float(total)
    return float(total + power * (3 * s[0] + 1))


def test_rollout_is_that_of_a_plain_loop() -> None:
    starts = jax.random.normal(jax.random.key(0), (31, OBS))
    noise = 0.3 * jax.random.normal(jax.random.key(1), (STEPS, 31, ACT))
    rollout = jax.jit(lambda s, n: unroll(predict, policy, s, n, jnp.asarray(1.0)))(starts, noise)
    lengths = np.asarray(rollout.valid).sum(1)
    ended = (np.asarray(rollout.terminated) * np.asarray(rollout.valid)).any(1)
    # all cases occur: unreliable at once, cut later, ended, and whole
    assert (lengths == 0).any() and ((lengths > 0) & (lengths < STEPS) & ~ended).any()
    assert ended.any() and (lengths == STEPS).any()
    expected = [plain_return(np.asarray(starts[i]), np.asarray(noise[:, i]), 1.0) for i in range(31)]
    np.testing.assert_allclose(rollout_return(rollout, value, GAMMA), expected, rtol=1e-4, atol=1e-5)


def test_the_last_reward_and_the_final_value_stand_at_different_states() -> None:
    # Eq. 25 without its off-by-one: reward 1 three times, then V = 10: 1 + 0.9 + 0.81 + 0.729 * 10
    def steady(observation: jax.Array, action: jax.Array) -> Prediction:
        one = jnp.ones(len(observation))
        return Prediction(observation, one, 0 * one, 0 * one)

    config = AugmentConfig(plan_steps=3, num_plans=1)
    chosen = plan(
        steady,
        lambda o: jnp.full(len(o), 10.0),
        policy,
        config,
        0.9,
        jnp.zeros((2, OBS)),
        ACT,
        jax.random.key(0),
        jnp.asarray(1.0),
    )
    np.testing.assert_allclose(chosen.score, [10.0, 10.0], rtol=1e-6)


@pytest.mark.parametrize("kappa", [1.0, 0.0])
def test_one_plan_is_the_greedy_baseline(kappa: float) -> None:
    starts = jax.random.normal(jax.random.key(0), (BATCH, OBS))
    config = AugmentConfig(plan_steps=STEPS, num_plans=1, plan_noise=2.0)
    chosen = plan(predict, value, policy, config, GAMMA, starts, ACT, jax.random.key(3), jnp.asarray(kappa))
    np.testing.assert_allclose(chosen.action, policy(starts, jnp.zeros((BATCH, ACT))), rtol=1e-5)
    reliable = np.abs(np.asarray(starts)[:, 2]) < kappa
    np.testing.assert_array_equal(chosen.reliable, reliable)
    expected = [plain_return(np.asarray(s), np.zeros((STEPS, ACT)), kappa) for s in starts]
    np.testing.assert_allclose(np.asarray(chosen.score)[reliable], np.array(expected)[reliable], rtol=1e-4)


def test_more_plans_are_never_worse_and_rows_do_not_mix() -> None:
    starts = 0.5 * jax.random.normal(jax.random.key(0), (BATCH, OBS))
    key, kappa = jax.random.key(4), jnp.asarray(9.0)
    one, many = (
        plan(
            predict,
            value,
            policy,
            AugmentConfig(plan_steps=STEPS, num_plans=n),
            GAMMA,
            starts,
            ACT,
            key,
            kappa,
        )
        for n in (1, 7)
    )
    assert bool((many.score >= one.score - 1e-5).all()) and bool((many.score > one.score + 1e-3).any())
    # the action that is returned is the first of a plan of the same row: its reward explains the score
    assert not np.allclose(many.action, one.action)


def test_the_first_pair_of_the_chosen_plan_is_reliable() -> None:
    # unsure of any action beyond 0.6; the mean action 0 is safe, wilder ones pay more
    def bold(observation: jax.Array, action: jax.Array) -> Prediction:
        size = jnp.abs(action).max(axis=1)
        return Prediction(observation, size, 0 * size, size)

    def noisy(observation: jax.Array, noise: jax.Array) -> jax.Array:
        del observation
        return noise

    config = AugmentConfig(plan_steps=1, num_plans=64)
    starts = jnp.zeros((BATCH, OBS))

    def run(kappa: float) -> tuple[np.ndarray, np.ndarray]:
        chosen = plan(
            bold,
            lambda o: jnp.zeros(len(o)),
            noisy,
            config,
            GAMMA,
            starts,
            ACT,
            jax.random.key(0),
            jnp.asarray(kappa),
        )
        return np.abs(np.asarray(chosen.action)).max(axis=1), np.asarray(chosen.reliable)

    sizes, reliable = run(0.6)
    assert reliable.all() and (sizes < 0.6).all() and (sizes > 0.2).all()
    assert not run(0.0)[1].any()


def test_planner_finds_the_optimum_of_a_linear_quadratic_problem() -> None:
    """x' = A x + B u, reward -(x'Qx + u'Ru): the best action is -K x and its worth -x'P x.

    With V = -x'P x behind the plan, Eq. 25 at the best actions equals that worth whatever the
    horizon, so that enough random plans approach it from below.
    """
    a, b = np.array([[1.0, 0.2], [0.0, 1.0]]), np.array([[0.0], [0.5]])
    q, r = np.diag([1.0, 0.1]), np.array([[0.3]])
    p = q
    for _ in range(500):  # the discounted Riccati equation
        gain = np.linalg.solve(r + GAMMA * b.T @ p @ b, GAMMA * b.T @ p @ a)
        p = q + GAMMA * a.T @ p @ (a - b @ gain)

    def model(x: jax.Array, u: jax.Array) -> Prediction:
        following = x @ jnp.asarray(a.T, jnp.float32) + u @ jnp.asarray(b.T, jnp.float32)
        cost = jnp.einsum("bi,ij,bj->b", x, q, x) + jnp.einsum("bi,ij,bj->b", u, r, u)
        return Prediction(following, -cost, 0 * cost, 0 * cost)

    def worth(x: jax.Array) -> jax.Array:
        return -jnp.einsum("bi,ij,bj->b", x, p, x)

    def guess(x: jax.Array, noise: jax.Array) -> jax.Array:
        del x
        return noise

    starts = jnp.array([[0.5, 0.0], [-0.4, 0.6], [0.7, -0.9]])
    best, optimum = -np.asarray(starts) @ gain.T, np.asarray(worth(starts))

    def error(num_plans: int) -> float:
        config = AugmentConfig(plan_steps=2, num_plans=num_plans)
        chosen = jax.jit(
            lambda key: plan(model, worth, guess, config, GAMMA, starts, 1, key, jnp.asarray(1.0))
        )(jax.random.key(0))
        assert (np.asarray(chosen.score) <= optimum + 1e-4).all()
        if num_plans > 1_000:
            np.testing.assert_allclose(chosen.score, optimum, atol=0.01)
        return float(np.abs(np.asarray(chosen.action) - best).max())

    assert error(8_192) < 0.1 < error(3)
