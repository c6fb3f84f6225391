"""The value learner against NumPy, and what must not flow where."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from plain_numpy import Adam, Arrays, filled, leaves, member, mlp

from ipd.config import ValueConfig
from ipd.types import Spec, Steps
from ipd.value import learn

CONFIG = ValueConfig(
    steps=10, batch_size=13, hidden=(7, 11), dropout=0.0, learning_rate=1e-2, huber_quantile=0.6
)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=50)
DEPTH = 3


def fresh(seed: int) -> learn.State:
    def make(key: jax.Array) -> learn.State:
        return learn.init(CONFIG, SPEC, key)

    nets = filled(make, seed)
    return filled(make, seed, 0.0)._replace(
        critics=nets.critics, target_critics=nets.target_critics, value=nets.value, policy=nets.policy
    )


class PlainValueLearner:
    """The update as the method page words it: V, policy, Q, targets; one Adam each."""

    def __init__(self, state: learn.State):
        self.value, self.policy = leaves(state.value), leaves(state.policy)
        self.critics = [member(state.critics, i) for i in range(2)]
        self.targets = [member(state.target_critics, i) for i in range(2)]
        self.huber_delta, self.step = float(state.huber_delta), 0
        self.value_adam = Adam(self.value, lambda k: 1e-2)
        self.policy_adam = Adam(self.policy, lambda k: 1e-2 * 0.5 * (1 + np.cos(np.pi * k / CONFIG.steps)))
        self.critic_adams = [Adam(critic, lambda k: 1e-2) for critic in self.critics]

    def update(self, b: Steps) -> None:
        rows = len(b.rewards)
        pair = np.concatenate([b.observations, b.actions], axis=1)
        target_q = np.minimum(*(mlp(target, pair, DEPTH)[0][:, 0] for target in self.targets))

        v, back = mlp(self.value, b.observations, DEPTH)
        e = target_q - v[:, 0]
        rate = max(0.01, 1.0 / (1 + self.step))
        self.huber_delta = (1 - rate) * self.huber_delta + rate * np.quantile(np.abs(e), 0.6)
        weight = np.where(e < 0, 1 - CONFIG.expectile, CONFIG.expectile)
        slope = -weight * np.clip(e, -self.huber_delta, self.huber_delta) / rows
        self.value = self.value_adam.step(self.value, back(slope[:, None]))

        advantage = target_q - mlp(self.value, b.observations, DEPTH)[0][:, 0]
        weight = np.minimum(np.exp(CONFIG.inverse_temperature * advantage), CONFIG.max_advantage_weight)
        out, back = mlp(self.policy[:-1], b.observations, DEPTH)
        mean, std = np.tanh(out), np.exp(self.policy[-1])
        by_mean = -weight[:, None] * (b.actions - mean) / std**2 / rows
        by_log_std = -(weight[:, None] * (((b.actions - mean) / std) ** 2 - 1)).mean(0)
        self.policy = self.policy_adam.step(self.policy, [*back(by_mean * (1 - mean**2)), by_log_std])

        next_v = mlp(self.value, b.next_observations, DEPTH)[0][:, 0]
        target = b.rewards + CONFIG.discount * (1 - b.terminated) * next_v
        for i, adam in enumerate(self.critic_adams):
            q, back = mlp(self.critics[i], pair, DEPTH)
            self.critics[i] = adam.step(self.critics[i], back(-2 * (target[:, None] - q) / rows))
            self.targets[i] = [
                t + CONFIG.polyak * (c - t) for t, c in zip(self.targets[i], self.critics[i], strict=True)
            ]
        self.step += 1


def same(ours: Any, plain: Arrays) -> None:
    for a, b in zip(leaves(ours), plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


def stacked(nets: list[Arrays]) -> Arrays:
    return [np.stack(pair) for pair in zip(*nets, strict=True)]


def test_updates_are_those_of_plain_numpy(small_steps: Steps) -> None:
    with jax.enable_x64(True):
        steps = jax.tree.map(np.float64, small_steps)
        state = fresh(0)  # its targets differ from the critics, so that a mix-up of the two shows
        plain = PlainValueLearner(state)
        update = jax.jit(lambda s, b: learn.update(CONFIG, s, b, jax.random.key(2)))
        # two updates: Adam's first step knows the gradients' signs only
        for k in range(2):
            batch = jax.tree.map(lambda leaf, k=k: leaf[13 * k : 13 * k + 13], steps)
            assert 0 < batch.terminated.sum() < 13
            state, _ = update(state, jax.tree.map(jnp.asarray, batch))
            plain.update(batch)
        np.testing.assert_allclose(float(state.huber_delta), plain.huber_delta, rtol=1e-9)
        same(state.value, plain.value)
        same(state.policy, plain.policy)
        same(state.critics, stacked(plain.critics))
        same(state.target_critics, stacked(plain.targets))
        same(state.value_optimiser[0].mu, plain.value_adam.first)
        same(state.critics_optimiser[0].mu, stacked([adam.first for adam in plain.critic_adams]))
        same(state.policy_optimiser[0].mu, plain.policy_adam.first)
        assert int(state.step) == 2


def test_the_huber_threshold_follows_the_quantile_and_keeps_its_floor() -> None:
    sizes = jnp.arange(1.0, 102.0)  # 0.96 quantile: 97
    first = learn.track_quantile(jnp.asarray(5.0), sizes, 0.96, jnp.asarray(0))
    np.testing.assert_allclose(float(first), 97.0, rtol=1e-6)  # the first batch replaces the start value
    later = learn.track_quantile(jnp.asarray(5.0), sizes, 0.96, jnp.asarray(10_000))
    np.testing.assert_allclose(float(later), 0.99 * 5.0 + 0.01 * 97.0, rtol=1e-6)
    floor = learn.track_quantile(jnp.asarray(0.0), jnp.zeros(9), 0.96, jnp.asarray(0))
    assert float(floor) == np.float32(learn.HUBER_FLOOR)
    slope = jax.grad(lambda s: learn.track_quantile(jnp.asarray(5.0), s, 0.96, jnp.asarray(0)))(sizes)
    assert not slope.any()


def test_the_threshold_scales_with_the_reward() -> None:
    """A quantile of |e|, not a fixed 0.96: ten times the reward, ten times the threshold."""
    sizes, nothing, first = jnp.arange(1.0, 102.0), jnp.asarray(0.0), jnp.asarray(0)
    one = learn.track_quantile(nothing, sizes, 0.96, first)
    ten = learn.track_quantile(nothing, 10.0 * sizes, 0.96, first)
    np.testing.assert_allclose(float(ten), 10.0 * float(one), rtol=1e-5)


def test_values_bootstrap_through_a_truncation_only() -> None:
    """One state that pays 1 for ever: V tends to 1 / (1 - 0.5) = 2 where logged steps go on (a time
    limit is not marked), to 1 where they terminate."""
    config = ValueConfig(
        steps=300, batch_size=8, hidden=(7, 11), dropout=0.0, learning_rate=1e-2, discount=0.5, polyak=0.2
    )
    ones = jnp.ones((8, 1))

    def train(terminated: jax.Array) -> jax.Array:
        batch = Steps(jnp.ones((8, 5)), 0.0 * jnp.ones((8, 3)), ones[:, 0], jnp.ones((8, 5)), terminated)
        state = learn.init(config, SPEC, jax.random.key(0))

        def step(s: learn.State, k: jax.Array) -> tuple[learn.State, None]:
            return learn.update(config, s, batch, k)[0], None

        state, _ = jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 300))
        return state.value(jnp.ones(5))

    on, ended = jax.jit(jax.vmap(train))(jnp.stack([jnp.zeros(8), jnp.ones(8)]))
    np.testing.assert_allclose([float(on), float(ended)], [2.0, 1.0], atol=0.05)


def test_policy_samples_stay_in_bounds_and_zero_noise_is_the_mean() -> None:
    state = fresh(0)
    observations = jax.random.normal(jax.random.key(1), (17, 5))
    policy = learn.policy_fn(state)
    noise = 5.0 * jax.random.normal(jax.random.key(2), (17, 3))
    assert float(jnp.abs(policy(observations, noise)).max()) <= 1.0
    means = jax.vmap(state.policy.mean)(observations)
    np.testing.assert_array_equal(policy(observations, jnp.zeros((17, 3))), means)
    # one standard deviation of noise moves the action by exp(log_std)
    moved = policy(observations, 0.1 * jnp.ones((17, 3)))
    std = np.exp(np.asarray(state.policy.log_std))
    np.testing.assert_allclose(moved, np.clip(np.asarray(means) + 0.1 * std, -1.0, 1.0), atol=1e-5)


def test_draw_takes_whole_rows(small_steps: Steps) -> None:
    batch = learn.draw(CONFIG, jax.tree.map(jnp.asarray, small_steps), jax.random.key(3))
    rows = [
        int(np.flatnonzero((small_steps.observations == o).all(1))[0]) for o in np.asarray(batch.observations)
    ]
    for name in Steps._fields:
        np.testing.assert_array_equal(getattr(batch, name), getattr(small_steps, name)[rows])
