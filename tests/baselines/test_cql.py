"""Conservative Q-learning, and the soft actor-critic that it shares with MOBILE."""

from __future__ import annotations

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from ipd.baseline_config import ActorCriticConfig, CQLConfig
from ipd.baselines import actor_critic, cql
from ipd.baselines.material import Material
from ipd.types import Spec, Steps
from ipd.value.networks import Critics, SquashedGaussianPolicy

SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=50)
CONFIG = CQLConfig(batch_size=13, hidden=(7, 11), num_actions=2, conservative_weight=2.0)

UPDATE = eqx.filter_jit(partial(cql.update, CONFIG))


def constant(critics: Critics, *values: float) -> Critics:
    """Critics that answer one number each, whatever they see."""
    critics = jax.tree.map(jnp.zeros_like, critics)
    return eqx.tree_at(lambda c: c.nets.layers[-1].bias, critics, jnp.asarray(values)[:, None])


def batch_of(steps: Steps, terminated: float) -> cql.Data:
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf[:13]), steps)
    return cql.Data(rows._replace(terminated=jnp.full(13, terminated)), jnp.asarray(0.25))


def test_log_density_is_that_of_the_squashed_variable() -> None:
    with jax.enable_x64(True):
        policy = SquashedGaussianPolicy(5, 3, (7,), jax.random.key(0))
        observation, noise = jnp.linspace(-1.0, 1.0, 5), np.array([[0.3, -1.2, 0.8], [1.5, 0.1, -0.4]])
        mean, log_std = np.split(np.asarray(policy.net(observation)), 2)
        actions, log_probs = map(np.asarray, policy.sample(observation, jnp.asarray(noise)))
        np.testing.assert_allclose(actions, np.tanh(mean + np.exp(log_std) * noise), rtol=1e-12)

        def chance(a: np.ndarray) -> np.ndarray:  # that the action is below a, in each dimension
            return norm.cdf((np.arctanh(a) - mean) / np.exp(log_std))

        density = (chance(actions + 1e-6) - chance(actions - 1e-6)) / 2e-6
        np.testing.assert_allclose(log_probs, np.log(density).sum(axis=1), rtol=1e-7)


def test_log_density_stays_finite_where_tanh_is_one() -> None:
    policy = SquashedGaussianPolicy(5, 3, (7,), jax.random.key(0))
    far = eqx.tree_at(lambda p: p.net.layers[-1].bias, policy, jnp.asarray([30.0] * 3 + [0.0] * 3))
    gradient = eqx.filter_jit(jax.grad(lambda p: p.sample(jnp.zeros(5), jnp.ones(3))[1]))(far)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_gap_by_hand_and_the_sign_of_its_gradient() -> None:
    sampled, log_density = jnp.asarray([[[2.0], [0.0]]]), jnp.log(jnp.asarray([[0.5, 0.25]]))
    gap = jax.jit(lambda s, q: cql.conservative_gap(s, log_density, q)[0, 0])
    # log of the mean of e^2 / 0.5 and e^0 / 0.25 is 2.2395; the logged action has 1
    assert gap(sampled, jnp.asarray([[1.0]])) == pytest.approx(1.2395, abs=1e-4)
    at_sampled, at_logged = jax.grad(gap, argnums=(0, 1))(sampled, jnp.asarray([[1.0]]))
    # a step downhill pushes sampled actions down, most the one that is too good, and the logged one up
    np.testing.assert_allclose(at_sampled[0, :, 0], [14.778 / 18.778, 4.0 / 18.778], rtol=1e-4)
    assert at_logged[0, 0] == -1.0


def test_integral_of_a_constant_is_the_volume_of_the_box(small_steps: Steps) -> None:
    policy = SquashedGaussianPolicy(5, 3, (7,), jax.random.key(0))
    config = CQLConfig(num_actions=400)
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf[:13]), small_steps)
    actions, log_density = eqx.filter_jit(cql.proposals)(config, policy, batch, jax.random.key(1))
    assert actions.shape == (13, 1200, 3) and float(jnp.abs(actions).max()) <= 1.0
    q = jnp.full((13, 1200, 1), 1.7)
    gap = cql.conservative_gap(q, log_density, jnp.zeros((13, 1)))
    np.testing.assert_allclose(gap.mean(), 1.7 + 3 * np.log(2.0), atol=0.03)

    # the last third was drawn at s' and has the density of there
    def log_prob(observation: jax.Array, action: jax.Array) -> jax.Array:
        mean, log_std = jnp.split(policy.net(observation), 2)
        return policy.sample(observation, (jnp.arctanh(action) - mean) / jnp.exp(log_std))[1]

    for third, places in ((1, batch.observations), (2, batch.next_observations)):
        at = slice(400 * third, 400 * third + 2)
        expected = jax.jit(jax.vmap(jax.vmap(log_prob, in_axes=(None, 0))))(places, actions[:, at])
        np.testing.assert_allclose(log_density[:, at], expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(log_density[:, :400], -3 * np.log(2.0), rtol=1e-6)


def test_training_pushes_q_down_away_from_the_data(small_steps: Steps) -> None:
    plain = CQLConfig(
        batch_size=32, hidden=(16,), num_actions=2, critic_learning_rate=3e-3, conservative_weight=0.0
    )
    data, _ = cql.prepare(plain, Material(small_steps, np.array([0, 40, 97]), SPEC, 1.0))
    elsewhere = jax.random.uniform(jax.random.key(5), (97, 20, 3), minval=-1.0, maxval=1.0)

    @partial(jax.jit, static_argnums=0)
    def trained(config: CQLConfig) -> jax.Array:
        """Q of random actions minus Q of the logged ones, by each critic."""

        def advance(state: cql.State, key: jax.Array) -> tuple[cql.State, None]:
            batch = cql.draw(config, data, key)
            return cql.update(config, state, batch, jax.random.fold_in(key, 1))[0], None

        state = cql.init(config, SPEC, jax.random.key(0))
        critics = jax.lax.scan(advance, state, jax.random.split(jax.random.key(3), 200))[0].critics
        out, logged = (
            actor_critic.q_values(critics, data.steps.observations, actions).mean(axis=(0, 1))
            for actions in (elsewhere, data.steps.actions[:, None])
        )
        return out - logged

    assert (trained(dataclasses.replace(plain, conservative_weight=20.0)) < trained(plain) - 0.1).all()


def test_the_loss_is_that_of_logged_rewards(small_steps: Steps) -> None:
    state, batch = cql.init(CONFIG, SPEC, jax.random.key(0)), batch_of(small_steps, 1.0)
    metrics = {}
    for scale in (1.0, 0.25):
        last = jax.tree.map(lambda leaf, scale=scale: scale * leaf, state.critics.nets.layers[-1])
        critics = eqx.tree_at(lambda c: c.nets.layers[-1], state.critics, last)
        rewards = batch.steps.rewards * scale
        scaled = cql.Data(batch.steps._replace(rewards=rewards), jnp.asarray(scale))
        metrics[scale] = UPDATE(state._replace(critics=critics), scaled, jax.random.key(1))[1]
    np.testing.assert_allclose(metrics[0.25]["conservative_gap"], metrics[1.0]["conservative_gap"], rtol=1e-4)
    np.testing.assert_allclose(metrics[0.25]["critic_loss"], metrics[1.0]["critic_loss"] / 16, rtol=1e-4)


@pytest.mark.parametrize("terminated", [0.0, 1.0])
def test_target_goes_on_behind_a_time_limit_and_not_behind_an_end(
    small_steps: Steps, terminated: float
) -> None:
    state = cql.init(CONFIG, SPEC, jax.random.key(0))
    state = state._replace(
        critics=constant(state.critics, 0.0, 0.0), target_critics=constant(state.critics, 4.0, 3.0)
    )
    batch = batch_of(small_steps, terminated)
    new, metrics = UPDATE(state, batch, jax.random.key(1))
    # the smaller of the slow critics, no entropy: two critics at 0 miss it by the target itself
    target = np.asarray(batch.steps.rewards) + 0.99 * 3.0 * (1.0 - terminated)
    np.testing.assert_allclose(metrics["critic_loss"], 2 * (target**2).mean(), rtol=1e-5)
    assert int(new.step) == 1
    # slow critics: 0.005 of the new ones
    moved = jax.tree.map(lambda t, c: t + 0.005 * (c - t), state.target_critics, new.critics)
    for ours, theirs in zip(jax.tree.leaves(new.target_critics), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_nothing_of_the_conservative_term_reaches_the_policy(small_steps: Steps) -> None:
    state, batch = cql.init(CONFIG, SPEC, jax.random.key(0)), batch_of(small_steps, 0.0)
    news = [
        UPDATE(state, batch._replace(reward_scale=jnp.asarray(s)), jax.random.key(1))[0] for s in (0.1, 9.0)
    ]
    for a, b in zip(*(jax.tree.leaves(new.policy) for new in news), strict=True):
        np.testing.assert_array_equal(a, b)
    weak, strong = (new.critics.nets.layers[0].weight for new in news)
    assert not np.allclose(weak, strong)


def test_policy_climbs_q_and_the_temperature_follows_the_entropy(small_steps: Steps) -> None:
    config = ActorCriticConfig(hidden=(16,), actor_learning_rate=1e-2)
    state = actor_critic.init(config, SPEC, jax.random.key(0))
    observations = jnp.asarray(small_steps.observations)
    step = jax.jit(lambda s, k: actor_critic.improve_policy(config, s, observations, k))
    low = state._replace(log_alpha=jnp.asarray(-9.0))  # next to no entropy bonus
    first = float(step(low, jax.random.key(0))[1]["q_policy"])
    for i in range(60):
        low, metrics = step(low, jax.random.key(i))
    assert float(metrics["q_policy"]) > first + 0.1
    # a fresh policy is wider than the target of -3 nats; one of almost no width is narrower
    bias = jnp.asarray([0.0] * 3 + [-6.0] * 3)
    narrow = eqx.tree_at(lambda p: p.net.layers[-1].bias, state.policy, bias)
    assert float(step(state, jax.random.key(1))[0].log_alpha) == pytest.approx(-1e-2, rel=1e-3)
    later, metrics = step(state._replace(policy=narrow), jax.random.key(1))
    assert float(metrics["entropy"]) < -3.0 and float(later.log_alpha) == pytest.approx(1e-2, rel=1e-3)


def test_in_use_the_action_is_the_squashed_mean() -> None:
    state = cql.init(CONFIG, SPEC, jax.random.key(0))
    observation = jnp.linspace(-2.0, 2.0, 5)
    act = partial(cql.act, CONFIG, state, {}, cql.begin(CONFIG, SPEC, {}), observation, jnp.asarray(0.0))
    mean = np.split(np.asarray(state.policy.net(observation)), 2)[0]
    for seed in (0, 1):
        np.testing.assert_allclose(act(jax.random.key(seed))[0], np.tanh(mean), rtol=1e-6)
