"""Soft actor-critic: densities, signs, targets, and a problem whose answer is known."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.collect import sac
from ipd.collect.sac import SACConfig, State
from ipd.collect.training import improve
from ipd.types import Steps
from ipd.value.networks import SquashedGaussianPolicy, squashed_log_prob

CONFIG = SACConfig(hidden=(7,), batch_size=5)
OBS, ACT, ROWS = 3, 2, 5


def batch(seed: int = 0) -> Steps:
    random = np.random.default_rng(seed)
    shapes = ((ROWS, OBS), (ROWS, ACT), (ROWS,), (ROWS, OBS))
    arrays = [jnp.asarray(random.uniform(-0.9, 0.9, shape), jnp.float32) for shape in shapes]
    return Steps(*arrays, jnp.asarray([0.0, 1.0, 0.0, 0.0, 1.0]))


@pytest.fixture(scope="module")
def state() -> State:
    return jax.jit(sac.init, static_argnums=(0, 1, 2))(CONFIG, OBS, ACT, jax.random.key(1))


@pytest.mark.parametrize(("mean", "std"), [(0.4, 0.5), (-1.1, 1.3)])
def test_density_is_that_of_the_action(mean: float, std: float) -> None:
    """Change of variables by counting: how often a = tanh(u) falls into narrow bins."""
    u = mean + std * np.random.default_rng(0).normal(size=2_000_000)
    edges = np.linspace(-0.8, 0.8, 9)
    counted = np.histogram(np.tanh(u), edges)[0] / len(u) / np.diff(edges)
    fine = np.arctanh(np.linspace(-0.8, 0.8, 8 * 100 + 1)[:-1] + 0.8 / 800)
    log_probs = jax.vmap(squashed_log_prob, in_axes=(0, 0, None))(
        jnp.asarray(fine[:, None]), jnp.asarray((fine[:, None] - mean) / std), jnp.log(jnp.full(1, std))
    )
    np.testing.assert_allclose(np.exp(log_probs).reshape(8, 100).mean(1), counted, rtol=0.02)


def test_density_adds_up_over_dimensions_and_stays_finite_at_the_edge() -> None:
    u, noise = jnp.asarray([30.0, -0.2]), jnp.asarray([1.0, 0.5])
    both = squashed_log_prob(u, noise, jnp.zeros(2))
    parts = [squashed_log_prob(u[i : i + 1], noise[i : i + 1], jnp.zeros(1)) for i in range(2)]
    assert np.isfinite(both) and float(jnp.tanh(u[0])) == 1.0
    np.testing.assert_allclose(both, sum(parts), rtol=1e-6)


def test_target_masks_terminations_and_is_soft(state: State) -> None:
    data, noise = batch(), jax.random.normal(jax.random.key(2), (ROWS, ACT))
    state = state._replace(
        log_alpha=jnp.log(0.3), target_critics=jax.tree.map(lambda leaf: 1.5 * leaf, state.critics)
    )
    target = sac.bellman_target(CONFIG, state, data, noise)
    actions, log_probs = jax.vmap(state.policy.sample)(data.next_observations, noise)
    values = np.asarray(jax.vmap(state.target_critics)(data.next_observations, actions))
    for row in range(ROWS):
        later = 0.99 * (values[row].min() - 0.3 * float(log_probs[row]))
        ended = row in (1, 4)
        np.testing.assert_allclose(target[row], data.rewards[row] + (0.0 if ended else later), rtol=1e-5)


@pytest.mark.parametrize(("entropy", "rises"), [(-3.0, True), (-1.0, False)])
def test_temperature_rises_where_entropy_is_below_its_target(entropy: float, rises: bool) -> None:
    gradient = jax.grad(sac.alpha_loss)(jnp.log(0.2), jnp.asarray(entropy), -2.0)
    assert (gradient < 0) == rises  # Adam steps against the gradient
    np.testing.assert_allclose(gradient, 0.2 * (entropy + 2.0), rtol=1e-6)


def test_update_is_the_papers_three_losses_and_a_slow_copy(state: State) -> None:
    """Gradients as Adam has them in its first mean, against losses written out one by one."""
    state = state._replace(log_alpha=jnp.log(0.2))
    data, key = batch(), jax.random.key(3)
    new, _ = jax.jit(sac.update, static_argnums=0)(CONFIG, state, data, key)
    noise, next_noise = jax.random.normal(key, (2, ROWS, ACT))
    target = sac.bellman_target(CONFIG, state, data, next_noise)

    def critics_loss(critics: sac.TwinCritics) -> jax.Array:
        values = jax.vmap(critics)(data.observations, data.actions)
        return jnp.mean((values[:, 0] - target) ** 2 + (values[:, 1] - target) ** 2) / 2

    def policy_loss(policy: SquashedGaussianPolicy) -> jax.Array:
        actions, log_probs = jax.vmap(policy.sample)(data.observations, noise)
        values = jax.vmap(state.critics)(data.observations, actions)
        return jnp.mean(jnp.exp(state.log_alpha) * log_probs - jnp.minimum(values[:, 0], values[:, 1]))

    means = new.optimisers[0].mu
    critics, policy = jax.jit(
        lambda: (jax.grad(critics_loss)(state.critics), jax.grad(policy_loss)(state.policy))
    )()
    for gradients, mean in ((policy, means[0]), (critics, means[1])):
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(other / 0.1, one, rtol=1e-3, atol=1e-6),
            gradients,
            mean,
        )
    for old, now in zip(*map(jax.tree.leaves, (state.policy, new.policy)), strict=True):
        np.testing.assert_allclose(abs(now - old).max(), 3e-4, rtol=1e-2)
    slow = jax.tree.map(lambda a, b: 0.995 * a + 0.005 * b, state.target_critics, new.critics)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.target_critics, slow)


def test_finds_the_best_action_of_a_bandit() -> None:
    """One step, reward -10 |a - g(s)|^2: the policy's mode must come near g(s) and nowhere else."""
    config = dataclasses.replace(CONFIG, hidden=(32, 32), learning_rate=3e-3, batch_size=64)
    random = np.random.default_rng(0)
    observations = random.uniform(-1, 1, (900, 64, OBS)).astype(np.float32)
    actions = random.uniform(-1, 1, (900, 64, ACT)).astype(np.float32)
    best = np.stack([0.6 * observations[..., 0], 0 * observations[..., 1] - 0.4], -1)
    rewards = -10 * ((actions - best) ** 2).sum(-1)
    data = Steps(*map(jnp.asarray, (observations, actions, rewards, observations, np.ones_like(rewards))))
    state = jax.jit(sac.init, static_argnums=(0, 1, 2))(config, OBS, ACT, jax.random.key(0))
    state, _ = improve(config, state, data, jax.random.key(1))
    error = np.abs(jax.vmap(state.policy.mode)(data.observations[0]) - best[0]).mean(0)
    assert (error < 0.12).all()
    # A temperature that started at 1 came down to where the entropy is near -2.
    noise = jax.random.normal(jax.random.key(2), (64, ACT))
    entropy = -jax.vmap(state.policy.sample)(data.observations[0], noise)[1].mean()
    assert state.log_alpha < 0 and abs(float(entropy) + ACT) < 1.0
