"""Decision Transformer: returns in use are those of training, the loss, and obedience to the target."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled

from ipd.baseline_config import DTConfig
from ipd.baselines import dt, sequences
from ipd.baselines.material import Material
from ipd.types import Spec, Steps

CONFIG = DTConfig(batch_size=6, layers=1, heads=2, width=8, context_len=4, dropout=0.0, warmup_steps=1)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=9)
STARTS = np.array([0, 50, 61, 97])


@pytest.fixture(scope="module")
def material(small_steps: Steps) -> Material:
    return Material(small_steps, STARTS, SPEC, 0.1)


def test_returns_and_actions_in_use_are_those_of_training(material: Material) -> None:
    """A logged episode played back, its return the target: every step is the window that ends there."""
    total = float(np.asarray(material.steps.rewards)[50:61].sum())
    config = dataclasses.replace(CONFIG, target=total / material.reward_scale)
    data, constants = dt.prepare(config, material)
    state = filled(lambda key: dt.init(config, SPEC, key), 0)
    state = state._replace(model=None)  # the average acts
    trained = jax.jit(lambda window: state.acting(window)[-1])
    play = jax.jit(lambda memory, s, r: dt.act(config, state, constants, memory, s, r, jax.random.key(0)))
    memory, reward = dt.begin(config, SPEC, constants), jnp.asarray(0.0)
    for row in range(50, 61):
        action, memory = play(memory, data.observations[row], reward)
        window = sequences.windows(data, jnp.asarray([row]), config.context_len)
        window = jax.tree.map(lambda leaf: leaf[0], window)
        there = np.asarray(window.present)
        assert there.sum() == min(row - 49, 4)
        np.testing.assert_array_equal(memory.present, there)
        np.testing.assert_array_equal(memory.timesteps[there], window.timesteps[there])
        np.testing.assert_allclose(memory.returns[there], window.returns[there], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(action, trained(window), rtol=1e-3, atol=1e-5)
        memory, reward = sequences.chosen(memory, data.actions[row]), data.rewards[row]
    # nothing is left once the last reward has come
    assert float(memory.returns[-1] - reward / constants["return_scale"]) == pytest.approx(0.0, abs=1e-6)


def test_the_action_knows_its_return_and_observation_but_not_itself(material: Material) -> None:
    data, _ = dt.prepare(CONFIG, material)
    window = jax.tree.map(lambda leaf: leaf[0], sequences.windows(data, jnp.asarray([30]), 4))
    policy = filled(lambda key: dt.init(CONFIG, SPEC, key), 0).model

    @jax.jit
    @jax.grad
    def moves(inputs: tuple[jax.Array, ...]) -> jax.Array:
        returns, observations, actions = inputs
        seen = window._replace(returns=returns, observations=observations, actions=actions)
        return policy(seen)[-2].sum()

    by_return, by_observation, by_action = moves((window.returns, window.observations, window.actions))
    assert (np.abs(by_return) > 1e-9).tolist() == [True, True, True, False]
    assert (np.abs(by_observation).max(1) > 1e-9).tolist() == [True, True, True, False]
    assert (np.abs(by_action).max(1) > 1e-9).tolist() == [True, True, False, False]


def test_loss_is_the_mean_over_steps_that_exist(material: Material) -> None:
    data, _ = dt.prepare(CONFIG, material)
    rows = jnp.asarray([0, 1, 50, 60, 62, 96])
    window = sequences.windows(data, rows, CONFIG.context_len)
    state = filled(lambda key: dt.init(CONFIG, SPEC, key), 0)
    update = jax.jit(lambda batch: dt.update(CONFIG, state, batch, jax.random.key(0)))
    after, metrics = update(window)
    predicted = np.asarray(jax.jit(jax.vmap(state.model))(window))
    errors = [
        ((predicted[i, t] - np.asarray(window.actions)[i, t]) ** 2).mean()
        for i in range(6)
        for t in range(4)
        if window.present[i, t]
    ]
    assert len(errors) == 1 + 2 + 1 + 4 + 2 + 4
    np.testing.assert_allclose(metrics["action_error"], np.mean(errors), rtol=1e-5)

    def spoil(leaf: jax.Array) -> jax.Array:
        there = window.present.reshape(6, 4, *[1] * (leaf.ndim - 2))
        return jnp.where(there, leaf, jnp.ones((), leaf.dtype))

    spoilt = jax.tree.map(spoil, window)._replace(present=window.present)
    assert not np.array_equal(spoilt.actions, window.actions)
    for ours, theirs in zip(jax.tree.leaves(after), jax.tree.leaves(update(spoilt)[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_action_follows_the_target() -> None:
    """Four steps of one action each, paid by its size: a return of 4 a asks for the action a."""
    random = np.random.default_rng(0)
    starts = 4 * np.arange(51)
    actions = np.repeat(random.uniform(-0.8, 0.8, 50), 4).astype(np.float32)
    observations = random.normal(size=(200, 5)).astype(np.float32)
    steps = Steps(observations, actions[:, None], actions, observations, np.zeros(200, np.float32))
    spec = Spec(observation_size=5, action_size=1, max_episode_steps=4)
    config = dataclasses.replace(CONFIG, learning_rate=1e-2, warmup_steps=20, batch_size=32, width=16)
    data, constants = dt.prepare(config, Material(steps, starts, spec, 1.0))
    state = jax.jit(lambda key: dt.init(config, spec, key))(jax.random.key(0))

    @jax.jit
    def learn(state: sequences.State) -> sequences.State:
        def body(k: int, state: sequences.State) -> sequences.State:
            draw, update = jax.random.split(jax.random.fold_in(jax.random.key(1), k))
            return dt.update(config, state, dt.draw(config, data, draw), update)[0]

        return jax.lax.fori_loop(0, 300, body, state)

    state = learn(state)

    def play(target: jax.Array) -> jax.Array:
        asked = constants | {"target": target / constants["return_scale"]}

        def step(carry: tuple[sequences.Context, jax.Array], _: None) -> tuple[Any, jax.Array]:
            memory, reward = carry
            key = jax.random.key(0)
            action, memory = dt.act(config, state, asked, memory, jnp.zeros(5), reward, key)
            return (memory, action[0]), action[0]

        return jax.lax.scan(step, (dt.begin(config, spec, asked), jnp.zeros(())), length=4)[1]

    wanted = np.array([-0.6, 0.0, 0.6], np.float32)
    taken = jax.jit(jax.vmap(play))(4 * wanted)
    np.testing.assert_allclose(taken, np.repeat(wanted[:, None], 4, axis=1), atol=0.15)
