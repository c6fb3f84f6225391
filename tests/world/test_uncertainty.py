"""From ensemble to prediction: mean dynamics, termination, U and kappa."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled

from ipd.config import WorldConfig
from ipd.types import Steps
from ipd.world.ensemble import ChangeScale, Ensemble, change_scale
from ipd.world.uncertainty import predict_fn, threshold

CONFIG = WorldConfig(hidden=(7, 11), num_members=4)


@pytest.fixture(scope="module")
def ensemble(small_steps: Steps) -> Ensemble:
    """Untrained, with a termination head."""
    scale = change_scale(small_steps)
    ensemble = filled(
        lambda key: Ensemble(5, 3, CONFIG.hidden, 4, CONFIG.log_variance_bounds, scale, True, key), 0
    )
    return eqx.tree_at(lambda e: e.scale, ensemble, scale)


def test_prediction_is_the_mean_of_the_members(small_steps: Steps, ensemble: Ensemble) -> None:
    steps = jax.tree.map(jnp.asarray, small_steps)
    arguments = (steps.observations, steps.actions)
    said = jax.jit(predict_fn(CONFIG, ensemble, lambda s: s[..., 1] > 0.0))(*arguments)
    means, logs = jax.jit(jax.vmap(ensemble.members))(*arguments)
    change = small_steps.next_observations - small_steps.observations
    expected = small_steps.observations + np.asarray(means).mean(1) * change.std(0) + change.mean(0)
    np.testing.assert_allclose(said.next_observation, expected, rtol=1e-4, atol=1e-5)
    # the rule speaks of the state that is reached
    np.testing.assert_array_equal(
        said.terminated, (np.asarray(said.next_observation)[:, 1] > 0).astype(np.float32)
    )
    assert 0 < said.terminated.sum() < 97

    # U: Eq. 9 pair by pair, in float64
    means, variances = np.float64(means), np.exp(np.float64(logs))
    total = np.zeros(97)
    pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
    for i, j in pairs:
        v, w, d = variances[:, i], variances[:, j], means[:, i] - means[:, j]
        shape = 0.5 * ((v + w) ** 2 / (4 * v * w) - 1 + np.log(2 * np.sqrt(v * w) / (v + w)))
        total += (shape + d**2 * (v**2 + w**2) / (8 * v * w * (v + w))).sum(1)
    np.testing.assert_allclose(said.uncertainty, total / len(pairs), rtol=1e-3)

    # kappa: a quantile of U over held-out pairs, scaled (Eq. 12)
    config = dataclasses.replace(CONFIG, threshold_quantile=0.8, threshold_scale=1.5)
    kappa = threshold(config, ensemble, steps)
    np.testing.assert_allclose(float(kappa), 1.5 * np.quantile(total / len(pairs), 0.8), rtol=1e-3)


def test_termination_is_the_rule_else_the_head_else_never(small_steps: Steps, ensemble: Ensemble) -> None:
    steps = jax.tree.map(jnp.asarray, small_steps)
    arguments = (steps.observations, steps.actions)
    head = ensemble.termination
    assert head is not None
    head = eqx.tree_at(lambda net: net.layers[-1].bias, head, head.layers[-1].bias - 0.5)
    ensemble = eqx.tree_at(lambda e: e.termination, ensemble, head)
    pairs = jnp.concatenate(arguments, axis=1)

    def ended(ensemble: Ensemble, rule: Callable | None = None) -> np.ndarray:
        return np.asarray(jax.jit(predict_fn(CONFIG, ensemble, rule))(*arguments).terminated)

    logits = np.asarray(jax.jit(jax.vmap(head))(pairs))[:, 0]
    assert (logits > 0).any() and (logits < 0).any()
    np.testing.assert_array_equal(ended(ensemble), logits > 0)
    headless = eqx.tree_at(lambda e: e.termination, ensemble, None)
    assert not ended(headless).any()
    assert ended(ensemble, lambda s: jnp.ones(s.shape[:-1], bool)).all()


def test_change_scale_is_undone(small_steps: Steps) -> None:
    scale = change_scale(jax.tree.map(jnp.asarray, small_steps))
    change = jnp.asarray(small_steps.next_observations - small_steps.observations)
    encoded = scale.encode(change)
    np.testing.assert_allclose(encoded.mean(0), np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(encoded.std(0), np.ones(5), rtol=1e-4)
    np.testing.assert_allclose(scale.decode(encoded), change, rtol=1e-4, atol=1e-5)
    # an observation that never changes does not divide by zero
    still = ChangeScale(jnp.zeros(1), change_scale(Steps(*[jnp.zeros((9, 1))] * 5)).std)
    assert np.isfinite(still.encode(jnp.zeros((2, 1)))).all()
