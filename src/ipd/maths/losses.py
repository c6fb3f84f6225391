"""Losses on one example (Eqs. 1-5, 26). Callers vmap and average.

Symbols: tau ``expectile``, delta ``huber_delta``, beta ``inverse_temperature``,
gamma ``discount``, alpha ``q_weight``.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
Each = Float[Array, "*batch"]
"""A number for every example: these formulas hold element by element."""


def huber(error: Scalar, huber_delta: Scalar | float) -> Scalar:
    """Huber loss of an error, Eq. 1: square up to ``huber_delta``, linear beyond."""
    size = jnp.abs(error)
    return jnp.where(size <= huber_delta, 0.5 * error**2, huber_delta * (size - 0.5 * huber_delta))


def huber_expectile(error: Scalar, expectile: float, huber_delta: Scalar | float) -> Scalar:
    """Huber-expectile loss of ``error = Q - V``, Eq. 2: weight tau above V, 1 - tau below."""
    weight = jnp.where(error < 0, 1.0 - expectile, expectile)
    return weight * huber(error, huber_delta)


def expectile_loss(error: Each, expectile: float) -> Each:
    """\\|tau - 1(error < 0)\\| error^2, asymmetric least squares on ``error = target - estimate``."""
    return jnp.where(error < 0, 1.0 - expectile, expectile) * error**2


def td_target(reward: Each, terminated: Each, next_value: Each, discount: float) -> Each:
    """r + gamma (1 - terminated) V(s'), the target of Eq. 4 with the mask it lacks."""
    return reward + discount * (1.0 - terminated) * next_value


def advantage_weight(advantage: Each, inverse_temperature: float, cap: float) -> Each:
    """min(exp(beta A), cap), the weight of Eq. 5."""
    # the cap goes on the exponent so that a large advantage cannot overflow to inf first
    return jnp.exp(jnp.minimum(inverse_temperature * advantage, jnp.log(cap)))


def gaussian_log_prob(
    action: Float[Array, "act"], mean: Float[Array, "act"], log_std: Float[Array, "act"]
) -> Scalar:
    """log N(action; mean, exp(log_std)^2), summed over action dimensions."""
    scaled = (action - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * scaled**2 - log_std - 0.5 * jnp.log(2.0 * jnp.pi))


def policy_loss(
    action: Float[Array, "act"],
    predicted: Float[Array, "act"],
    q: Scalar,
    q_scale: Scalar,
    q_weight: float,
    cloning_weight: Scalar | float = 1.0,
) -> Scalar:
    """Eq. 26 at one position: squared action error minus ``q_weight * Q(s, pi) / q_scale``.

    ``q_scale`` is the detached mean of \\|Q\\| over the batch; without it ``q_weight`` has no unit.
    The squared error is the mean over action dimensions. ``cloning_weight`` is 1 in the paper.
    """
    return cloning_weight * jnp.mean((action - predicted) ** 2) - q_weight * q / q_scale
