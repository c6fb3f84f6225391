"""Golden values and golden gradients of Eqs. 1-5 and 26, worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.maths.losses import (
    advantage_weight,
    gaussian_log_prob,
    huber,
    huber_expectile,
    policy_loss,
    td_target,
)


def close(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=1e-6)


# Eq. 1 at delta = 2. |e| <= 2: e^2 / 2, slope e.  |e| > 2: 2 (|e| - 1), slope 2 sign(e).
@pytest.mark.parametrize(
    ("error", "loss", "slope"),
    [(1.0, 0.5, 1.0), (-0.5, 0.125, -0.5), (2.0, 2.0, 2.0), (3.0, 4.0, 2.0), (-3.0, 4.0, -2.0)],
)
def test_huber(error: float, loss: float, slope: float) -> None:
    close(jax.value_and_grad(huber)(jnp.array(error), 2.0), (loss, slope))


# Eq. 2 at tau = 0.7, delta = 2: the Huber loss above times 0.7 for e >= 0 and 0.3 for e < 0.
@pytest.mark.parametrize(
    ("error", "loss", "slope"),
    [(1.0, 0.35, 0.7), (3.0, 2.8, 1.4), (-1.0, 0.15, -0.3), (-3.0, 1.2, -0.6), (0.0, 0.0, 0.0)],
)
def test_huber_expectile(error: float, loss: float, slope: float) -> None:
    close(jax.value_and_grad(huber_expectile)(jnp.array(error), 0.7, 2.0), (loss, slope))


def test_the_expectile_is_its_minimiser() -> None:
    # Square part only. Of the two points 0 and 1, V minimises 0.3 V^2 + 0.7 (1 - V)^2 where
    # 0.6 V = 1.4 (1 - V): V = 0.7. A weight on the wrong side would give 0.3.
    def loss(v: jax.Array) -> jax.Array:
        return jax.vmap(lambda q: huber_expectile(q - v, 0.7, 10.0))(jnp.array([0.0, 1.0])).mean()

    close(jax.grad(loss)(jnp.array(0.7)), 0.0)


def test_value_loss_flows_to_v_with_the_sign_of_eq_3() -> None:
    # Q = (3, 0) and V = (2, 3), so e = (1, -3); tau 0.7, delta 2: mean(0.35, 1.2) = 0.775.
    # dL/dV = -dL/de / 2 = -(0.7, -0.6) / 2.
    def loss(v: jax.Array) -> jax.Array:
        return jax.vmap(lambda q, v: huber_expectile(q - v, 0.7, 2.0))(jnp.array([3.0, 0.0]), v).mean()

    close(jax.value_and_grad(loss)(jnp.array([2.0, 3.0]))[0], 0.775)
    close(jax.grad(loss)(jnp.array([2.0, 3.0])), [-0.35, 0.3])


def test_td_target_is_masked_by_termination_only() -> None:
    # Eq. 4 at r = 1, gamma = 0.9, V(s') = 2: 1 + 1.8 = 2.8 while it goes on, 1 where the task ended.
    close(td_target(jnp.array(1.0), jnp.array(0.0), jnp.array(2.0), 0.9), 2.8)
    close(td_target(jnp.array(1.0), jnp.array(1.0), jnp.array(2.0), 0.9), 1.0)
    # slopes in (r, V'): (1, 0.9), and (1, 0) behind a termination
    slopes = jax.grad(td_target, argnums=(0, 2))
    close(slopes(jnp.array(1.0), jnp.array(0.0), jnp.array(2.0), 0.9), (1.0, 0.9))
    close(slopes(jnp.array(1.0), jnp.array(1.0), jnp.array(2.0), 0.9), (1.0, 0.0))


def test_critic_loss_gradient() -> None:
    # Eq. 4: Q = 2 against the target 2.8: (0.8)^2 = 0.64, slope in Q: -2 * 0.8.
    def loss(q: jax.Array) -> jax.Array:
        return (td_target(jnp.array(1.0), jnp.array(0.0), jnp.array(2.0), 0.9) - q) ** 2

    close(jax.value_and_grad(loss)(jnp.array(2.0)), (0.64, -1.6))


def test_advantage_weight_is_capped_and_cannot_overflow() -> None:
    # Eq. 5 at beta = 3: A = 0.5 gives e^1.5 = 4.481689 with slope 3 e^1.5 = 13.445067;
    # A = 2 gives e^6 = 403, capped at 100; A = 50 would overflow float32 before the cap.
    weigh = jax.value_and_grad(advantage_weight)
    close(weigh(jnp.array(0.5), 3.0, 100.0), (4.481689, 13.445067))
    close(weigh(jnp.array(2.0), 3.0, 100.0), (100.0, 0.0))
    close(weigh(jnp.array(50.0), 3.0, 100.0), (100.0, 0.0))


def test_gaussian_log_prob() -> None:
    # a - mean = (0.5, -0.5), sigma = (1, 0.5), so z = (0.5, -1):
    # -(0.125 + 0.5) - (0 - ln 2) - ln 2 pi = -0.625 + 0.693147 - 1.837877 = -1.769730.
    # slope in the mean: (a - mean) / sigma^2 = (0.5, -2); in log sigma: z^2 - 1 = (-0.75, 0).
    action, mean = jnp.array([0.5, -0.25]), jnp.array([0.0, 0.25])
    log_std = jnp.array([0.0, np.log(0.5)], jnp.float32)
    value, (by_mean, by_log_std) = jax.value_and_grad(gaussian_log_prob, (1, 2))(action, mean, log_std)
    close(value, -1.769730)
    close(by_mean, [0.5, -2.0])
    close(by_log_std, [-0.75, 0.0])


def test_policy_extraction_pulls_the_mean_towards_good_actions() -> None:
    # Eq. 5 with the minus sign it lacks: -e^1.5 log pi has slope -e^1.5 (0.5, -2) in the mean,
    # so that a step down the slope moves the mean to the action.
    def loss(mean: jax.Array) -> jax.Array:
        log_prob = gaussian_log_prob(
            jnp.array([0.5, -0.25]), mean, jnp.array([0.0, np.log(0.5)], jnp.float32)
        )
        return -advantage_weight(jnp.array(0.5), 3.0, 100.0) * log_prob

    close(jax.grad(loss)(jnp.array([0.0, 0.25])), [-2.2408446, 8.963378])


def test_policy_loss() -> None:
    # Eq. 26: a - pi = (0.5, 0.5), mean square 0.25; 0.5 * Q / scale = 0.5 * 3 / 2 = 0.75; 0.25 - 0.75.
    # slope in pi: -2 (a - pi) / 2 = (-0.5, -0.5); in Q: -0.5 / 2.
    action, predicted = jnp.array([1.0, 0.0]), jnp.array([0.5, -0.5])
    arguments = (action, predicted, jnp.array(3.0), jnp.array(2.0), 0.5)
    value, (by_action, by_q) = jax.value_and_grad(policy_loss, (1, 2))(*arguments)
    close(value, -0.5)
    close(by_action, [-0.5, -0.5])
    close(by_q, -0.25)
    # a cloning weight of 3 acts on the squared error alone: 0.75 - 0.75
    close(policy_loss(*arguments, 3.0), 0.0)
