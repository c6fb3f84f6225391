"""Acting: what the controller sees step by step is what it saw in training windows."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled

from ipd.config import PolicyConfig
from ipd.data.episodes import Normaliser
from ipd.policy.act import Controller, Driver, act, begin
from ipd.policy.model import SequencePolicy
from ipd.types import Spec
from ipd.value.networks import Critics, GaussianPolicy, Value

CONFIG = PolicyConfig(layers=1, heads=2, width=8, context_len=4, dropout=0.0)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=6)
NORMALISER = Normaliser(
    np.arange(5, dtype=np.float32),
    np.full(5, 2.0, np.float32),
    np.full(3, -1.0, np.float32),
    np.full(3, 3.0, np.float32),
    np.float32(0.1),
)
SCALE = jnp.array([0.5, 2.0])


@pytest.fixture(scope="module")
def drivers() -> Driver:
    """Two seeds."""

    def make(key: jax.Array) -> Driver:
        policy = SequencePolicy(CONFIG, SPEC, key)
        return Driver(policy, Value(5, (7,), key), Critics(5, 3, (7,), 2, key), SCALE[0])

    one, other = filled(make, 0), filled(make, 1)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), one, other)._replace(prompt_scale=SCALE)


def controller_of(drivers: Driver, target: float = 0.0, **how: Any) -> Controller:
    seeds = len(drivers.prompt_scale)
    blank = begin(CONFIG.context_len, SPEC, target)
    stacked = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (seeds, *leaf.shape)), blank)
    return Controller(partial(act, **how), drivers, stacked, seeds, NORMALISER, "discount" in how)


@jax.jit
def from_window(
    driver: Driver, raw: jax.Array, actions: jax.Array, steps: jax.Array, prompts: jax.Array
) -> jax.Array:
    return driver.policy(prompts, raw, actions, steps, steps >= 0)[-1]


def test_every_action_is_that_of_the_window_so_far(drivers: Driver) -> None:
    """Two seeds with three rows each, over more steps than the context holds."""
    controller = controller_of(drivers)
    controller.reset(6)
    seen = np.random.default_rng(0).normal(size=(8, 6, 5)).astype(np.float32)
    taken = np.stack([controller.act(observations) for observations in seen])
    assert taken.shape == (8, 6, 3) and taken.min() >= -1.0 and taken.max() <= 3.0
    for row, seed in ((0, 0), (2, 0), (3, 1), (5, 1)):  # rows are grouped by seed
        driver = jax.tree.map(lambda leaf, seed=seed: leaf[seed], drivers)
        normal = (seen[:, row] - NORMALISER.observation_mean) / 2.0
        prompts = np.asarray(jax.jit(jax.vmap(driver.value))(normal)) / float(SCALE[seed])
        actions = (taken[:, row] - 1.0) / 2.0  # [-1, 3] -> [-1, 1]
        for t in range(8):
            at = np.arange(t - 3, t + 1)
            rows = np.maximum(at, 0)
            past = np.where((at < t)[:, None], actions[rows], 0.0)
            # the table of timesteps ends with the longest episode
            steps = np.where(at < 0, -1, np.minimum(at, SPEC.max_episode_steps - 1))
            expected = from_window(driver, *map(jnp.asarray, (normal[rows], past, steps, prompts[rows])))
            np.testing.assert_allclose(actions[t], expected, rtol=1e-3, atol=1e-4)


def test_reset_forgets_and_one_environment_gets_vectors(drivers: Driver) -> None:
    one = jax.tree.map(lambda leaf: leaf[:1], drivers)
    controller = controller_of(one)
    first = controller.act(np.ones(5))
    assert first.shape == (3,)
    assert not np.allclose(controller.act(np.ones(5)), first)
    controller.reset()
    np.testing.assert_array_equal(controller.act(np.ones(5)), first)


def test_a_fixed_target_return_replaces_the_value_and_is_used_up_by_rewards(drivers: Driver) -> None:
    discount, target = 0.9, 5.0
    controller = controller_of(drivers, target, discount=discount)
    controller.reset(4)
    random = np.random.default_rng(0)
    seen = random.normal(size=(3, 4, 5)).astype(np.float32)
    earned = random.normal(size=(3, 4)).astype(np.float32)  # in the task's units; the first is none
    taken = np.stack([controller.act(*now) for now in zip(seen, earned, strict=True)])
    left = [np.full(4, target)]
    for reward in earned[1:]:
        left.append((left[-1] - 0.1 * reward) / discount)
    for row, seed in ((1, 0), (2, 1)):
        driver = jax.tree.map(lambda leaf, seed=seed: leaf[seed], drivers)
        normal = (seen[:, row] - NORMALISER.observation_mean) / 2.0
        actions = (taken[:, row] - 1.0) / 2.0
        at = np.array([0, 0, 1, 2])
        past = np.where(np.array([[0], [1], [1], [0]]), actions[at], 0.0)
        prompts = np.stack(left)[at, row] / float(SCALE[seed])
        steps = np.array([-1, 0, 1, 2])
        expected = from_window(driver, *map(jnp.asarray, (normal[at], past, steps, prompts)))
        np.testing.assert_allclose(actions[2], expected, rtol=1e-3, atol=1e-4)


def test_a_policy_that_counts_its_return_down_refuses_to_go_on_without_rewards(drivers: Driver) -> None:
    controller = controller_of(drivers, 5.0, discount=0.9)
    assert controller.needs_reward and not controller_of(drivers).needs_reward
    rows = np.ones((4, 5), np.float32)

    def begin_again() -> np.ndarray:
        controller.reset(4)
        return controller.act(rows)  # nothing was earned before

    begin_again()
    second = controller.act(rows, 3.0)
    begin_again()
    with pytest.raises(ValueError, match=r"act\(observation, reward of the step before\)"):
        controller.act(rows)
    np.testing.assert_array_equal(controller.act(rows, np.full(4, 3.0)), second)  # as if not asked
    begin_again()
    assert not np.array_equal(controller.act(rows, 0.0), second)


def test_rows_must_be_shared_evenly(drivers: Driver) -> None:
    with pytest.raises(ValueError, match="3 rows cannot be shared evenly by 2 seeds"):
        controller_of(drivers).reset(3)


def test_memoryless_policies_act_by_seed() -> None:
    both = (filled(lambda key: GaussianPolicy(5, 3, (7,), key), seed) for seed in (0, 1))
    policies = jax.tree.map(lambda *leaves: jnp.stack(leaves), *both)
    observations = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    controller = Controller(lambda policy, _, o, r, k: (policy.mean(o), ()), policies, (), 2, NORMALISER)
    controller.reset(6)
    said = controller.act(observations)
    second = jax.tree.map(lambda leaf: leaf[1], policies)
    normal = (observations[3:] - NORMALISER.observation_mean) / 2.0
    np.testing.assert_allclose(said[3:], 1.0 + 2.0 * jax.vmap(second.mean)(normal), rtol=1e-4, atol=1e-5)
