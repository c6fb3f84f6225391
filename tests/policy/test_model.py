"""Token order and causality of the sequence policy."""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from plain_numpy import filled

from ipd.config import PolicyConfig
from ipd.policy.model import SequencePolicy
from ipd.types import Spec

CONFIG = PolicyConfig(layers=2, heads=3, width=12, context_len=7, dropout=0.0)
SPEC = Spec(observation_size=5, action_size=4, max_episode_steps=23)
CONTEXT = 7


def network() -> SequencePolicy:
    policy: SequencePolicy = filled(lambda key: SequencePolicy(CONFIG, SPEC, key), 0)
    return policy


def window() -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(1), 3)
    return {
        "prompts": jax.random.normal(keys[0], (CONTEXT,)),
        "observations": jax.random.normal(keys[1], (CONTEXT, 5)),
        "actions": jax.random.normal(keys[2], (CONTEXT, 4)),
    }


@cache
def sensitivities() -> dict[str, np.ndarray]:
    """For prompts, observations and actions: does the action at i move with the input at j?"""
    policy = network()
    present, timesteps = jnp.arange(CONTEXT) >= 1, jnp.arange(CONTEXT) + 3

    def run(inputs: dict[str, jax.Array]) -> jax.Array:
        return policy(inputs["prompts"], inputs["observations"], inputs["actions"], timesteps, present)

    jacobians = jax.jit(jax.jacrev(run))(window())
    flat = {name: np.abs(np.asarray(j)).reshape(CONTEXT, 4, CONTEXT, -1) for name, j in jacobians.items()}
    return {name: j.max(axis=(1, 3))[1:, 1:] > 1e-9 for name, j in flat.items()}


def test_tokens_stand_in_the_order_prompt_observation_action() -> None:
    """The action at t knows prompt_t, s_t and everything before, but neither a_t nor anything later.

    Any other order of the three, or the prompts, states and actions one after another instead of
    interleaved, changes one of these three triangles.
    """
    ones = np.ones((CONTEXT - 1, CONTEXT - 1), bool)
    np.testing.assert_array_equal(sensitivities()["prompts"], np.tril(ones))
    np.testing.assert_array_equal(sensitivities()["observations"], np.tril(ones))
    np.testing.assert_array_equal(sensitivities()["actions"], np.tril(ones, -1))


def test_padding_changes_nothing_and_the_timestep_does() -> None:
    policy = network()
    inputs, present = window(), jnp.arange(CONTEXT) >= 3

    @jax.jit
    def run(inputs: dict[str, jax.Array], timesteps: jax.Array) -> jax.Array:
        return policy(inputs["prompts"], inputs["observations"], inputs["actions"], timesteps, present)

    timesteps = jnp.arange(CONTEXT)
    base = run(inputs, timesteps)
    padded = jax.tree.map(lambda leaf: leaf.at[:3].set(9.0), inputs)
    np.testing.assert_array_equal(run(padded, timesteps)[3:], base[3:])
    assert np.abs(run(inputs, timesteps + 5)[3:] - base[3:]).max() > 1e-4
    assert np.abs(base).max() < 1.0


def test_a_short_context_is_a_long_one_with_padding() -> None:
    """What is learned on padded windows serves at the start of an episode."""
    policy = network()
    inputs = window()
    whole = policy(*inputs.values(), jnp.arange(CONTEXT), jnp.arange(CONTEXT) >= 4)
    short = policy(*(leaf[4:] for leaf in inputs.values()), jnp.arange(4, CONTEXT), jnp.ones(3, bool))
    np.testing.assert_allclose(whole[4:], short, rtol=1e-4, atol=1e-5)


def test_the_newest_action_alone_is_the_last_of_all() -> None:
    """Only the action that is asked for, with nothing of the action that stands in its place."""
    policy, inputs = network(), window()
    for absent in (0, 3, CONTEXT - 1):
        timesteps, present = jnp.arange(CONTEXT) + 2, jnp.arange(CONTEXT) >= absent
        whole = policy(**inputs, timesteps=timesteps, present=present)
        spoilt = inputs | {"actions": inputs["actions"].at[-1].set(9.0)}
        spoilt = jax.tree.map(lambda leaf, absent=absent: leaf.at[:absent].set(7.0), spoilt)
        newest = policy.newest(**spoilt, timesteps=timesteps, present=present)
        np.testing.assert_allclose(newest, whole[-1], rtol=1e-4, atol=1e-5)


def test_place_in_the_window_knows_no_step_of_the_episode() -> None:
    """With `time="window"` the same window late in an episode gives the same actions."""
    config = PolicyConfig(layers=1, heads=3, width=12, context_len=4, time="window")
    spec = Spec(observation_size=5, action_size=2, max_episode_steps=50)
    policy = SequencePolicy(config, spec, jax.random.key(0))
    prompts, observations, actions = jnp.arange(4.0), jnp.ones((4, 5)), jnp.ones((4, 2))
    early, late = jnp.arange(4), jnp.arange(40, 44)
    run = jax.jit(lambda steps: policy(prompts, observations, actions, steps, steps >= 0))
    assert policy.embed_timestep.shape == (4, 12)
    np.testing.assert_array_equal(run(early), run(late))
    with_step = SequencePolicy(dataclasses.replace(config, time="episode"), spec, jax.random.key(0))
    other = jax.jit(lambda steps: with_step(prompts, observations, actions, steps, steps >= 0))
    assert np.abs(other(early) - other(late)).max() > 1e-6
