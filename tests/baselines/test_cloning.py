"""Plain cloning against NumPy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from plain_numpy import Adam, filled, leaves, mlp

from ipd.baselines import cloning
from ipd.baselines.material import Material
from ipd.config import CloningConfig
from ipd.types import Spec, Steps

CONFIG = CloningConfig(steps=10, batch_size=13, hidden=(7, 11), learning_rate=1e-2)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=50)


def test_updates_are_those_of_plain_numpy(small_steps: Steps) -> None:
    with jax.enable_x64(True):
        steps = jax.tree.map(np.float64, small_steps)
        blank = filled(lambda key: cloning.init(CONFIG, SPEC, key), 0, 0.0)
        state = blank._replace(policy=filled(lambda key: cloning.init(CONFIG, SPEC, key), 0).policy)
        net = leaves(state.policy.net)
        adam = Adam(net, lambda k: CONFIG.learning_rate)
        update = jax.jit(lambda s, b: cloning.update(CONFIG, s, b, jax.random.key(2)))
        for k in range(2):
            batch = jax.tree.map(lambda leaf, k=k: leaf[13 * k : 13 * k + 13], steps)
            state, metrics = update(state, jax.tree.map(jnp.asarray, batch))
            out, back = mlp(net, batch.observations, 3)
            error = np.tanh(out) - batch.actions
            np.testing.assert_allclose(float(metrics["action_error"]), (error**2).mean(), rtol=1e-9)
            net = adam.step(net, back(2 * error * (1 - np.tanh(out) ** 2) / error.size))
        for ours, theirs in zip(leaves(state.policy.net), net, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-10)


def test_the_best_episodes_are_cloned_and_no_others(small_steps: Steps) -> None:
    starts = np.array([0, 3, 40, 60, 97])
    rewards = np.zeros(97, np.float32)
    rewards[[2, 10, 45, 96]] = [5.0, 9.0, -1.0, 7.0]  # returns 5, 9, -1, 7: the longest is not the best
    material = Material(
        Steps(*(leaf[:97] for leaf in small_steps))._replace(rewards=rewards), starts, SPEC, 1.0
    )
    for share, episodes in ((1.0, (0, 1, 2, 3)), (0.5, (1, 3)), (0.3, (1,)), (0.0, (1,))):
        config = dataclasses.replace(CONFIG, best_share=share)
        data, _ = cloning.prepare(config, material)
        rows = np.concatenate([np.arange(starts[k], starts[k + 1]) for k in episodes])
        np.testing.assert_array_equal(data.observations, material.steps.observations[rows])
        np.testing.assert_array_equal(data.rewards, rewards[rows])
