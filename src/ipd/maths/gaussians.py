"""Diagonal Gaussians and how far apart they are (Eqs. 7-15), on one example.

A Gaussian is its mean and its log-variance, both ``(dims,)``; an ensemble stacks them into
``(members, dims)``. Divergences are written in differences of means and of log-variances: the
textbook forms subtract nearly equal numbers and lose every digit in float32 at variance e^-10.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Scalar = Float[Array, ""]
Vector = Float[Array, "dims"]
Stack = Float[Array, "members dims"]
Divergence = Callable[[Vector, Vector, Vector, Vector], Scalar]


def _log_cosh(x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    return jnp.log1p(2.0 * jnp.sinh(0.5 * x) ** 2)


def gjs_primal(mean_i: Vector, log_var_i: Vector, mean_j: Vector, log_var_j: Vector) -> Scalar:
    """Geometric Jensen-Shannon divergence of two Gaussians, Eqs. 9-11, summed over dimensions.

    With d the difference of means and x that of log-variances:
    ``0.5 (sinh(x/2)^2 - ln cosh(x/2)) + d^2 cosh(x) / (4 (v_i + v_j))``.
    """
    d, x = mean_i - mean_j, log_var_i - log_var_j
    shape = 0.5 * (jnp.sinh(0.5 * x) ** 2 - _log_cosh(0.5 * x))
    place = d**2 * jnp.cosh(x) / (4.0 * (jnp.exp(log_var_i) + jnp.exp(log_var_j)))
    return jnp.sum(shape + place)


def gjs_dual(mean_i: Vector, log_var_i: Vector, mean_j: Vector, log_var_j: Vector) -> Scalar:
    """Dual of Eq. 9 (divergences taken from the geometric mean): the Bhattacharyya distance."""
    d, x = mean_i - mean_j, log_var_i - log_var_j
    place = d**2 / (4.0 * (jnp.exp(log_var_i) + jnp.exp(log_var_j)))
    return jnp.sum(place + 0.5 * _log_cosh(0.5 * x))


def disagreement(mean_i: Vector, log_var_i: Vector, mean_j: Vector, log_var_j: Vector) -> Scalar:
    """Squared distance of the means; blind to the variances."""
    del log_var_i, log_var_j
    return jnp.sum((mean_i - mean_j) ** 2)


DIVERGENCES: dict[str, Divergence] = {
    "primal": gjs_primal,
    "dual": gjs_dual,
    "disagreement": disagreement,
}


def uncertainty(
    means: Stack, log_variances: Stack, divergence: str, reduction: Literal["mean", "max"]
) -> Scalar:
    """U(s, a), Eq. 8: the mean (or largest) divergence over unordered pairs of members."""
    first, second = (jnp.array(side) for side in zip(*combinations(range(means.shape[0]), 2), strict=True))
    each = jax.vmap(DIVERGENCES[divergence])(
        means[first], log_variances[first], means[second], log_variances[second]
    )
    return jnp.mean(each) if reduction == "mean" else jnp.max(each)


def mixture_mean(means: Stack, log_variances: Stack, noise: Vector) -> Vector:
    """Reparameterised prediction of the ensemble, Eq. 13: mean of means plus mean-variance noise."""
    return means.mean(0) + jnp.sqrt(jnp.exp(log_variances).mean(0)) * noise


def soft_clamp(log_variance: Vector, low: float, high: float) -> Vector:
    """Smoothly bounded log-variance: inside (low, high) almost itself, gradient nowhere zero."""
    log_variance = high - jax.nn.softplus(high - log_variance)
    return low + jax.nn.softplus(log_variance - low)


def negative_log_likelihood(target: Vector, mean: Vector, log_variance: Vector) -> Scalar:
    """-log N(target; mean, exp(log_variance)) without its constant, mean over dimensions."""
    return 0.5 * jnp.mean((target - mean) ** 2 * jnp.exp(-log_variance) + log_variance)


def variance_weight(step: Float[Array, ""], start: float, decay_steps: float) -> Scalar:
    """gamma_exp(k) = gamma_0 exp(-k / T), Eq. 15."""
    return start * jnp.exp(-step / decay_steps)


def variance_penalty(log_variance: Vector, target: float, weight: Scalar) -> Scalar:
    """Second term of Eq. 14 on the log-variance; the weight stands inside the norm, hence squared."""
    return jnp.mean((weight * (log_variance - target)) ** 2)


def literal_consistency(
    target: Vector, means: Stack, log_variances: Stack, noise: Vector, log_target: float, weight: Scalar
) -> Scalar:
    """Eq. 14 as printed: one sampled ensemble prediction, and the penalty on the mean variance."""
    variance = jnp.exp(log_variances).mean(0)
    error = jnp.mean((mixture_mean(means, log_variances, noise) - target) ** 2)
    return error + jnp.mean((weight * (variance - jnp.exp(log_target))) ** 2)
