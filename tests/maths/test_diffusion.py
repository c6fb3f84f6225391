"""Schedule and sampler against the published formulas, and against a Gaussian whose denoiser is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.maths import diffusion

STEPS = 50
MEAN, STD = np.array([2.0, -1.0, 0.5]), np.array([0.3, 1.5, 1.0])


def test_schedule_is_the_squared_cosine_with_its_floor() -> None:
    signals = diffusion.cosine_schedule(STEPS)

    def cosine(t: float) -> float:
        return float(np.cos((t / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2)

    for k in range(STEPS - 1):
        np.testing.assert_allclose(signals[k], cosine(k + 1) / cosine(0), rtol=1e-5)
    # the cosine ends at 0; the last moment keeps a thousandth of the one before
    np.testing.assert_allclose(signals[-1], 1e-3 * signals[-2], rtol=1e-5)


def test_moments_are_all_of_them_or_evenly_skipped() -> None:
    np.testing.assert_array_equal(diffusion.sampling_moments(7, 7), [6, 5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(diffusion.sampling_moments(9, 5), [8, 6, 4, 2, 0])


def test_noise_velocity_and_clean_example_are_views_of_one() -> None:
    clean, noise, signal = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0]), jnp.array(0.64)
    noisy = diffusion.noised(clean, noise, signal)
    np.testing.assert_allclose(noisy, [0.8 * 1.0 + 0.6 * 0.5, 0.8 * -2.0 + 0.6 * 3.0], rtol=1e-6)
    np.testing.assert_allclose(diffusion.clean_of(noisy, noise, signal), clean, rtol=1e-5)
    np.testing.assert_allclose(diffusion.noise_of(noisy, clean, signal), noise, rtol=1e-5)
    velocity = diffusion.velocity(clean, noise, signal)
    np.testing.assert_allclose(velocity, [0.8 * 0.5 - 0.6 * 1.0, 0.8 * 3.0 - 0.6 * -2.0], rtol=1e-5)
    np.testing.assert_allclose(diffusion.noise_of_velocity(noisy, velocity, signal), noise, rtol=1e-5)


def test_guidance_goes_from_the_plain_to_the_conditioned_and_beyond() -> None:
    plain, conditioned = jnp.array([1.0, 4.0]), jnp.array([2.0, 2.0])
    np.testing.assert_array_equal(diffusion.guided(plain, conditioned, 0.0), plain)
    np.testing.assert_array_equal(diffusion.guided(plain, conditioned, 1.0), conditioned)
    np.testing.assert_allclose(diffusion.guided(plain, conditioned, 1.5), [2.5, 1.0])


@pytest.mark.parametrize("moment", [1, 20, STEPS - 1])
def test_full_noise_is_the_ancestral_posterior(moment: int) -> None:
    signals = diffusion.cosine_schedule(STEPS).astype(np.float64)
    signal, before = signals[moment], signals[moment - 1]
    beta = 1.0 - signal / before
    x, clean, noise = np.random.default_rng(moment).normal(size=(3, 4))
    mean = np.sqrt(before) * beta / (1 - signal) * clean
    mean += np.sqrt(1 - beta) * (1 - before) / (1 - signal) * x
    deviation = np.sqrt(beta * (1 - before) / (1 - signal))
    with jax.enable_x64(True):
        arrays = [jnp.asarray(value) for value in (x, clean, signal, before, noise)]
        stepped = diffusion.step_back(*arrays, eta=1.0)
    np.testing.assert_allclose(stepped, mean + deviation * noise, rtol=1e-9)


def test_no_noise_keeps_the_noise_that_was_there() -> None:
    clean, noise, other = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0]), jnp.array([9.0, 9.0])
    signal, before = jnp.array(0.36), jnp.array(0.64)
    noisy = diffusion.noised(clean, noise, signal)
    stepped = diffusion.step_back(noisy, clean, signal, before, other, eta=0.0)
    np.testing.assert_allclose(stepped, diffusion.noised(clean, noise, before), rtol=1e-5)
    for eta in (0.0, 1.0):
        last = diffusion.step_back(noisy, clean, signal, jnp.array(1.0), other, eta)
        np.testing.assert_allclose(last, clean, rtol=1e-6)


@pytest.mark.parametrize(("taken", "eta"), [(200, 1.0), (100, 0.0)])
def test_the_best_denoiser_of_a_gaussian_samples_that_gaussian(taken: int, eta: float) -> None:
    signals = diffusion.cosine_schedule(200)

    def predict(noisy: jax.Array, moment: jax.Array, signal: jax.Array) -> jax.Array:
        # the posterior mean of the clean example, given the noisy one
        gain = STD**2 * jnp.sqrt(signal) / (STD**2 * signal + 1.0 - signal)
        return MEAN + gain * (noisy - jnp.sqrt(signal) * MEAN)

    noise = jax.random.normal(jax.random.key(0), (20_000, taken + 1, 3))
    moments = diffusion.sampling_moments(200, taken)
    draw = jax.jit(jax.vmap(lambda n: diffusion.sample(predict, lambda x: x, signals, moments, n, eta)))
    samples = np.asarray(draw(noise))
    np.testing.assert_allclose((samples.mean(0) - MEAN) / STD, 0.0, atol=0.03)
    # finite steps lose a little: the exact recursion gives 2.9 and 2.4 % at most
    np.testing.assert_allclose(samples.std(0), STD, rtol=0.045)


@pytest.mark.parametrize("taken", [1, 5])
def test_what_is_known_is_in_place_at_every_estimate_and_at_the_end(taken: int) -> None:
    known = jnp.array([7.0, -7.0])

    def predict(noisy: jax.Array, moment: jax.Array, signal: jax.Array) -> jax.Array:
        return noisy.at[1:].set(noisy[0]).at[0].set(0.0)

    signals, moments = diffusion.cosine_schedule(STEPS), diffusion.sampling_moments(STEPS, taken)
    noise = jax.random.normal(jax.random.key(0), (taken + 1, 4, 2))
    plan = diffusion.sample(predict, lambda x: x.at[0].set(known), signals, moments, noise, 0.0)
    np.testing.assert_array_equal(plan, np.tile(known, (4, 1)))
