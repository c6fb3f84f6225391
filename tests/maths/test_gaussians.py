"""Golden values and gradients of Eqs. 8-15, and the divergences against their KL definitions."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.maths.gaussians import (
    DIVERGENCES,
    disagreement,
    gjs_dual,
    gjs_primal,
    literal_consistency,
    mixture_mean,
    negative_log_likelihood,
    soft_clamp,
    uncertainty,
    variance_penalty,
    variance_weight,
)

# One dimension: means 2 and 0 (d = 2), variances 1 and 4 (x = ln 1/4, x/2 = -ln 2, sum 5).
# sinh(x/2) = -0.75, cosh(x/2) = 1.25, tanh(x/2) = -0.6; sinh x = -1.875, cosh x = 2.125.
PAIR = tuple(jnp.array([number], jnp.float32) for number in (2.0, 0.0, 0.0, np.log(4.0)))


def close(actual: object, expected: object, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=rtol, atol=1e-6)


def pair() -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """mean_i, log_var_i, mean_j, log_var_j of the worked pair."""
    return PAIR


def test_primal() -> None:
    # 0.5 [25 / 16 - 1 + ln(4 / 5)] + 4 * 17 / (8 * 4 * 5) = 0.5 (0.5625 - 0.223144) + 0.425 = 0.594678.
    # In mean_i: 2 d * 17 / 160 = 0.425.
    # In ln v_i: 0.5 [sinh cosh - 0.5 tanh](x/2) = 0.5 (-0.9375 + 0.3) = -0.31875, and from
    # d^2 cosh x / (4 (v_i + v_j)): sinh x / 5 - cosh x * 1 / 25 = -0.375 - 0.085; in all -0.77875.
    value, slopes = jax.value_and_grad(gjs_primal, (0, 1))(*pair())
    close(value, 0.594678)
    close(slopes, ([0.425], [-0.77875]))


def test_dual() -> None:
    # 4 / 20 + 0.5 ln(5 / 4) = 0.2 + 0.111572. In mean_i: 2 d / 20 = 0.2.
    # In ln v_i: -d^2 v_i / (4 * 25) + 0.25 tanh(x/2) = -0.04 - 0.15.
    value, slopes = jax.value_and_grad(gjs_dual, (0, 1))(*pair())
    close(value, 0.311572)
    close(slopes, ([0.2], [-0.19]))


def test_disagreement_is_blind_to_variance() -> None:
    value, slopes = jax.value_and_grad(disagreement, (0, 1))(*pair())
    close(value, 4.0)
    close(slopes, ([4.0], [0.0]))


def kl(mean_p: np.ndarray, v_p: np.ndarray, mean_q: np.ndarray, v_q: np.ndarray) -> float:
    """KL(p || q) of diagonal Gaussians, the textbook form."""
    return float(0.5 * np.sum(v_p / v_q + (mean_q - mean_p) ** 2 / v_q - 1.0 + np.log(v_q / v_p)))


def middle(
    mean_i: np.ndarray, v_i: np.ndarray, mean_j: np.ndarray, v_j: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eqs. 10 and 11 as printed: the geometric mean of two Gaussians."""
    variance = 1.0 / (0.5 / v_i + 0.5 / v_j)
    return variance * (0.5 / v_i * mean_i + 0.5 / v_j * mean_j), variance


def primal_by_definition(*p: np.ndarray) -> float:
    """Eq. 9: mean of KL from each Gaussian to the geometric mean."""
    centre = middle(*p)
    return 0.5 * (kl(p[0], p[1], *centre) + kl(p[2], p[3], *centre))


def dual_by_definition(*p: np.ndarray) -> float:
    """The dual: mean of KL from the geometric mean to each Gaussian."""
    centre = middle(*p)
    return 0.5 * (kl(*centre, p[0], p[1]) + kl(*centre, p[2], p[3]))


BOTH = [(gjs_primal, primal_by_definition), (gjs_dual, dual_by_definition)]


@pytest.mark.parametrize(("difference_form", "definition"), BOTH)
def test_divergence_is_its_kl_definition(difference_form: Callable, definition: Callable) -> None:
    random = np.random.default_rng(3)
    with jax.enable_x64(True):
        for _ in range(20):
            means, logs = random.normal(size=(2, 7)), random.uniform(-3, 1, size=(2, 7))
            said = difference_form(*map(jnp.asarray, (means[0], logs[0], means[1], logs[1])))
            wanted = definition(means[0], np.exp(logs[0]), means[1], np.exp(logs[1]))
            assert said.dtype == jnp.float64
            assert abs(float(said) - wanted) < 1e-10 * max(1.0, abs(wanted))


@pytest.mark.parametrize(("difference_form", "definition"), BOTH)
def test_divergence_is_stable_in_float32_at_the_smallest_variance(
    difference_form: Callable, definition: Callable
) -> None:
    # Nearly equal members at v = e^-10: the true value is about 1e-6, far below the rounding of
    # the terms that the textbook form subtracts (1 each, 6e-8 apart).
    numbers = [np.array([x], np.float32) for x in (0.30001, -10.0, 0.3, -10.003)]
    exact = [np.float64(x) for x in numbers]
    wanted = definition(exact[0], np.exp(exact[1]), exact[2], np.exp(exact[3]))
    close(difference_form(*map(jnp.asarray, numbers)), wanted, rtol=1e-4)
    slope = jax.grad(difference_form)(*map(jnp.asarray, numbers))
    # at (nearly) equal variances the divergence is d^2 / (8 v), its slope d / (4 v)
    close(slope, (exact[0] - exact[2]) / 4.0 * np.exp(10.0), rtol=2e-2)


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
def test_divergence_is_symmetric_zero_at_itself_and_positive(name: str) -> None:
    divergence = DIVERGENCES[name]
    mean_i, log_i, mean_j, log_j = pair()
    close(divergence(mean_i, log_i, mean_j, log_j), divergence(mean_j, log_j, mean_i, log_i))
    assert float(divergence(mean_i, log_i, mean_i, log_i)) == 0.0
    assert float(divergence(mean_i, log_i, mean_j, log_j)) > 0.0


def test_uncertainty_is_the_mean_over_unordered_pairs() -> None:
    # Eq. 8, three members in one dimension, means 0, 1, 3 and v = 1/2: d^2 / (8 v) = d^2 / 4 gives
    # 1/4, 9/4 and 4/4 for the pairs (0,1), (0,2), (1,2); mean 14/12, largest 9/4.
    # In mean_0: ((0 - 1) + (0 - 3)) * 2 / 4 / 3 = -2/3; the slopes sum to 0 by translation.
    means = jnp.array([[0.0], [1.0], [3.0]])
    logs = jnp.full((3, 1), np.log(0.5), jnp.float32)
    for name in ("primal", "dual"):
        value, slope = jax.value_and_grad(uncertainty)(means, logs, name, "mean")
        close(value, 14.0 / 12.0)
        close(slope, [[-2.0 / 3.0], [-1.0 / 6.0], [5.0 / 6.0]])
        close(uncertainty(means, logs, name, "max"), 2.25)


def test_uncertainty_sums_over_dimensions() -> None:
    # members 0 and 2 apart in both of two dimensions, v = 1: 2 * 4 / 8
    close(uncertainty(jnp.array([[0.0, 0.0], [2.0, 2.0]]), jnp.zeros((2, 2)), "primal", "mean"), 1.0)


def test_sampled_mean() -> None:
    # Eq. 13: means 0 and 2, variances 1 and 4, noise 2: 1 + 2 sqrt(2.5) = 4.162278
    means, logs = jnp.array([[0.0], [2.0]]), jnp.array([[0.0], [np.log(4.0)]], jnp.float32)
    close(mixture_mean(means, logs, jnp.array([2.0])), [4.162278])


def test_literal_loss() -> None:
    # Eq. 14 for the members above, target 0, Sigma_reg = 2, gamma_exp = 0.5:
    # 4.162278^2 + (0.5 * (2.5 - 2))^2 = 17.324555 + 0.0625.
    # Both members get the same slope, 2 * 4.162278 / 2, wherever each of them is: only the mean of
    # the ensemble is trained.
    means, logs = jnp.array([[0.0], [2.0]]), jnp.array([[0.0], [np.log(4.0)]], jnp.float32)
    arguments = (jnp.array([0.0]), means, logs, jnp.array([2.0]), float(np.log(2.0)), jnp.array(0.5))
    value, slope = jax.value_and_grad(literal_consistency, 1)(*arguments)
    close(value, 17.387055)
    close(slope, [[4.162278], [4.162278]])


def test_likelihood() -> None:
    # target - mean = 1 at v = 1/4: 0.5 (4 + ln 1/4) = 1.306853;
    # in the mean: -1 / v = -4; in ln v: 0.5 (1 - 4) = -1.5
    arguments = (jnp.array([1.5]), jnp.array([0.5]), jnp.array([np.log(0.25)], jnp.float32))
    value, slopes = jax.value_and_grad(negative_log_likelihood, (1, 2))(*arguments)
    close(value, 1.306853)
    close(slopes, ([-4.0], [-1.5]))


def test_variance_weight() -> None:
    # Eq. 15 with gamma_0 = 2, T = 100: 2 at k = 0, 2 / e at k = T, where the slope is -2 / e / 100
    close(variance_weight(jnp.array(0.0), 2.0, 100.0), 2.0)
    close(jax.value_and_grad(variance_weight)(jnp.array(100.0), 2.0, 100.0), (0.735759, -0.00735759))


def test_variance_penalty() -> None:
    # log-variances -2.5 and -4.5, target -4.5, weight 0.5: mean((0.5 * 2)^2, 0) = 0.5;
    # slope 2 * 0.25 * 2 / 2 = 0.5 in the first
    value, slope = jax.value_and_grad(variance_penalty)(jnp.array([-2.5, -4.5]), -4.5, jnp.array(0.5))
    close(value, 0.5)
    close(slope, [0.5, 0.0])


def test_log_variance_stays_in_its_bounds_and_keeps_its_gradient() -> None:
    wide = jnp.linspace(-25.0, 12.0, 75)
    clamped = soft_clamp(wide, -10.0, 0.2)
    assert float(clamped.min()) >= -10.0 and float(clamped.max()) <= 0.2 + 1e-3
    slopes = jax.vmap(jax.grad(lambda x: soft_clamp(x[None], -10.0, 0.2)[0]))(jnp.linspace(-20.0, 10.0, 61))
    assert bool((slopes > 0.0).all())
    close(soft_clamp(jnp.array([-4.5]), -10.0, 0.2), [-4.5], rtol=1e-2)
