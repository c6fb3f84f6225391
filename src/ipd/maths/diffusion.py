"""Denoising diffusion of one example: schedule, noising, one step back, sampling. No networks.

``signal`` is alpha-bar of Ho et al. (2020), the share of the clean example's variance that is left at
a moment: a noisy example is sqrt(signal) clean + sqrt(1 - signal) noise. Moments count from 0 (hardly
any noise) to ``steps - 1`` (hardly anything else).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Example = Float[Array, "*shape"]
Scalar = Float[Array, ""]


def cosine_schedule(steps: int) -> Float[np.ndarray, "steps"]:
    """Signal of every moment: a squared cosine, each moment keeping at least 1/1000 of the one before.

    Nichol and Dhariwal (2021), Eq. 17, with their offset 0.008.
    """
    cosine = np.cos((np.linspace(0.0, 1.0, steps + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.maximum(cosine[1:] / cosine[:-1], 1e-3)
    return np.cumprod(kept).astype(np.float32)


def sampling_moments(steps: int, taken: int) -> Int[np.ndarray, "taken"]:
    """``taken`` of ``steps`` moments, evenly spaced, from the last to the first."""
    return np.linspace(steps - 1, 0, taken).round().astype(np.int32)


def noised(clean: Example, noise: Example, signal: Scalar) -> Example:
    """The example at a moment (Ho et al., 2020, Eq. 4)."""
    return jnp.sqrt(signal) * clean + jnp.sqrt(1.0 - signal) * noise


def clean_of(noisy: Example, noise: Example, signal: Scalar) -> Example:
    """The clean example of which ``noise`` made ``noisy``."""
    return (noisy - jnp.sqrt(1.0 - signal) * noise) / jnp.sqrt(signal)


def noise_of(noisy: Example, clean: Example, signal: Scalar) -> Example:
    """The noise that made ``noisy`` of ``clean``."""
    return (noisy - jnp.sqrt(signal) * clean) / jnp.sqrt(1.0 - signal)


def velocity(clean: Example, noise: Example, signal: Scalar) -> Example:
    """What the noisy example changes by, in angle (Salimans and Ho, 2022): noise early, -clean late."""
    return jnp.sqrt(signal) * noise - jnp.sqrt(1.0 - signal) * clean


def noise_of_velocity(noisy: Example, velocity: Example, signal: Scalar) -> Example:
    """The noise in ``noisy``, which moves with ``velocity``."""
    return jnp.sqrt(signal) * velocity + jnp.sqrt(1.0 - signal) * noisy


def guided(plain: Example, conditioned: Example, weight: float) -> Example:
    """Noise predicted under classifier-free guidance (Ajay et al., 2023, Eq. 8); weight 0 is ``plain``."""
    return plain + weight * (conditioned - plain)


def step_back(
    noisy: Example, clean: Example, signal: Scalar, before: Scalar, noise: Example, eta: float
) -> Example:
    """From a moment with ``signal`` to an earlier one with signal ``before``, given the clean estimate.

    Song et al. (2021), Eqs. 12 and 16. ``eta`` 1 draws from the posterior of Ho et al. (2020), Eq. 7,
    with standard normal ``noise``; 0 draws nothing. A step to signal 1 returns ``clean``.
    """
    variance = eta**2 * (1.0 - before) / (1.0 - signal) * (1.0 - signal / before)
    # rounding must not take the root of a negative number
    rest = jnp.sqrt(jnp.maximum(1.0 - before - variance, 0.0))
    mean = jnp.sqrt(before) * clean + rest * noise_of(noisy, clean, signal)
    return mean + jnp.sqrt(variance) * noise


def sample(
    predict: Callable[[Example, Int[Array, ""], Scalar], Example],
    fix: Callable[[Example], Example],
    signals: Float[np.ndarray, "steps"],
    moments: Int[np.ndarray, "taken"],
    noise: Float[Array, "one_more *shape"],
    eta: float,
) -> Example:
    """An example from noise: ``noise[0]`` to begin with, ``noise[1:]`` for the steps back.

    ``predict(noisy, moment, signal)`` estimates the clean example; ``fix`` puts in place what is known
    of it, before every estimate and at the end. Noise below unit variance samples near the mode.
    """
    before = np.append(signals[moments[1:]], np.float32(1.0))

    def back(noisy: Array, now: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        moment, signal, earlier, drawn = now
        clean = predict(noisy, moment, signal)
        return fix(step_back(noisy, clean, signal, earlier, drawn, eta)), None

    passed, following = (jnp.asarray(each, noise.dtype) for each in (signals[moments], before))
    path = (jnp.asarray(moments), passed, following, noise[1:])
    return jax.lax.scan(back, fix(noise[0]), path)[0]
