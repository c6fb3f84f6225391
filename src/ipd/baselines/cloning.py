"""Behaviour cloning (`bc`): the yardstick beside every other policy.

The quasi-optimal policy's network with the squared error of its mean action, and nothing else. With
``best_share`` below 1 only the best episodes are cloned (%BC of Chen et al., 2021): what asking for a
high return can be expected to give where nothing is stitched together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from ipd.baselines.material import Constants, Material, on_device
from ipd.config import CloningConfig
from ipd.nn.mlp import PRNG
from ipd.types import Metrics, Spec, Steps
from ipd.value.networks import GaussianPolicy

DATA_AXES = None


class State(NamedTuple):
    """Everything the stage knows, for one seed."""

    policy: GaussianPolicy
    optimiser: Any
    step: Int[Array, ""]


def prepare(config: CloningConfig, material: Material) -> tuple[Steps, Constants]:
    """The steps of the share of episodes with the largest returns, at least one episode."""
    kept = cloned(config, np.asarray(material.steps.rewards), material.starts)
    return on_device(Steps(*(leaf[kept] for leaf in material.steps))), {}


def cloned(
    config: CloningConfig, rewards: Float[np.ndarray, "steps"], starts: Int[np.ndarray, "bounds"]
) -> Bool[np.ndarray, "steps"]:
    """Which steps are cloned."""
    returns = np.add.reduceat(rewards, starts[:-1])
    count = max(1, round(config.best_share * len(returns)))
    chosen = np.zeros(len(returns), bool)
    chosen[np.argsort(-returns, kind="stable")[:count]] = True
    return np.repeat(chosen, np.diff(starts))


def init(config: CloningConfig, spec: Spec, key: PRNG) -> State:
    """Fresh policy."""
    policy = GaussianPolicy(spec.observation_size, spec.action_size, config.hidden, key)
    return State(policy, optax.adam(config.learning_rate).init(policy), jnp.asarray(0))


def draw(config: CloningConfig, data: Steps, key: PRNG) -> Steps:
    """A batch of logged steps, uniformly with replacement."""
    rows = jax.random.randint(key, (config.batch_size,), 0, data.rewards.shape[0])
    return jax.tree.map(lambda leaf: leaf[rows], data)


def update(config: CloningConfig, state: State, batch: Steps, key: PRNG) -> tuple[State, Metrics]:
    """One Adam step on mean((pi(s) - a)^2)."""
    del key

    def loss(policy: GaussianPolicy) -> Array:
        return jnp.mean((jax.vmap(policy.mean)(batch.observations) - batch.actions) ** 2)

    error, grads = jax.value_and_grad(loss)(state.policy)
    steps, optimiser = optax.adam(config.learning_rate).update(grads, state.optimiser)
    return State(optax.apply_updates(state.policy, steps), optimiser, state.step + 1), {"action_error": error}


def begin(config: CloningConfig, spec: Spec, constants: Constants) -> tuple[()]:
    """Nothing to remember."""
    return ()


def act(
    config: CloningConfig,
    state: State,
    constants: Constants,
    memory: tuple[()],
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], tuple[()]]:
    """The mean action."""
    return state.policy.mean(observation), memory
