"""Fitted Q evaluation (Le et al. 2019, arXiv:1903.08738): what a policy would earn, from logged steps alone.

Q of the policy is the fixed point of Q(s, a) = r + gamma (1 - terminated) Q(s', pi(s')): logged steps say
what an action leads to, the policy says what comes after. Nothing is bootstrapped behind a termination, and
everything through a truncation.

A learner of the loop (`ipd.runs.loop`) in learner's units, for ONE network: one policy and one member of its
ensemble. Members learn from episodes drawn with replacement, so their spread is that of a bootstrap. Members
of the same number share episodes, first weights and batches whatever the policy: differences between policies
are not differences of luck.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from numpy.typing import NDArray

from ipd.nn.mlp import MLP, PRNG
from ipd.types import Metrics, Spec, Steps


@dataclasses.dataclass(frozen=True)
class FQEConfig:
    """Settings of the fit."""

    steps: int
    hidden: tuple[int, ...]
    discount: float
    batch_size: int = 256
    learning_rate: float = 1e-3
    """At the start; it falls to 0 along a cosine."""
    polyak: float = 0.01
    """Rate at which the targets' network follows."""


class State(NamedTuple):
    """Of one network."""

    q: MLP
    target: MLP
    optimiser: Any
    step: Int[Array, ""]


class Data(NamedTuple):
    """What all networks share, and which policy and member is whose."""

    steps: Steps
    next_actions: Float[Array, "policies steps act"]
    """pi(s') of every policy; not looked at behind a termination."""
    rows: Int[Array, "members drawn"]
    """Steps of each member's episodes (``bootstrap``)."""
    limits: Float[Array, "2"]
    """Smallest and largest value possible; targets are kept inside."""
    policy: Int[Array, ""]
    member: Int[Array, ""]


DATA_AXES = Data(None, None, None, None, 0, 0)  # type: ignore[arg-type]


class Batch(NamedTuple):
    """Logged steps, what follows them, and the bounds of a value."""

    steps: Steps
    next_actions: Float[Array, "batch act"]
    limits: Float[Array, "2"]


def bootstrap(starts: NDArray[np.int64], members: int, seed: int = 0) -> NDArray[np.int32]:
    """(members, N): rows of E episodes drawn with replacement, as often repeated or cut as N rows take."""
    generator, found = np.random.default_rng(seed), []
    episodes, rows = len(starts) - 1, int(starts[-1])
    for _ in range(members):
        drawn = generator.integers(episodes, size=episodes)
        found.append(np.resize(np.concatenate([np.arange(starts[i], starts[i + 1]) for i in drawn]), rows))
    return np.stack(found).astype(np.int32)


def limits(rewards: NDArray[Any], discount: float) -> NDArray[np.float32]:
    """(2,): no policy is worth less than the smallest reward for ever, or more than the largest."""
    bounds = np.array([min(float(rewards.min()), 0.0), max(float(rewards.max()), 0.0)])
    return (bounds / (1.0 - discount)).astype(np.float32)


def _optimiser(config: FQEConfig) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))


def init(config: FQEConfig, spec: Spec, key: PRNG) -> State:
    """Fresh network; its target starts as a copy."""
    # layer norm keeps Q bounded at actions that the data do not have (Ball et al. 2023)
    q = MLP(spec.observation_size + spec.action_size, config.hidden, 1, key, layer_norm=True)
    return State(q, jax.tree.map(jnp.copy, q), _optimiser(config).init(q), jnp.asarray(0))


def draw(config: FQEConfig, data: Data, key: PRNG) -> Batch:
    """A batch of the member's steps, uniformly with replacement."""
    rows = data.rows[data.member, jax.random.randint(key, (config.batch_size,), 0, data.rows.shape[1])]
    return Batch(
        jax.tree.map(lambda leaf: leaf[rows], data.steps), data.next_actions[data.policy, rows], data.limits
    )


def update(config: FQEConfig, state: State, batch: Batch, key: PRNG) -> tuple[State, Metrics]:
    """One Adam step on (Q(s, a) - target)^2."""
    del key
    steps = batch.steps
    behind = q_of(state.target, steps.next_observations, batch.next_actions)
    target = steps.rewards + config.discount * (1.0 - steps.terminated) * behind
    target = jnp.clip(target, batch.limits[0], batch.limits[1])

    def loss(q: MLP) -> tuple[Array, Array]:
        said = q_of(q, steps.observations, steps.actions)
        return jnp.mean((said - target) ** 2), said.mean()

    (error, mean), grads = jax.value_and_grad(loss, has_aux=True)(state.q)
    change, optimiser = _optimiser(config).update(grads, state.optimiser)
    q = optax.apply_updates(state.q, change)
    followed = optax.incremental_update(q, state.target, config.polyak)
    return State(q, followed, optimiser, state.step + 1), {"critic_loss": error, "q_mean": mean}


def q_of(q: MLP, observations: Float[Array, "batch obs"], actions: Float[Array, "batch act"]) -> Array:
    """Q(s, a), ``(batch,)``, scaled reward units."""
    return jax.vmap(q)(jnp.concatenate([observations, actions], axis=-1))[:, 0]


@eqx.filter_jit
def estimates(
    state: State,
    policy: Int[Array, "networks"],
    observations: Float[Array, "starts obs"],
    actions: Float[Array, "policies starts act"],
) -> Float[Array, "networks starts"]:
    """Q(s0, pi(s0)) of every network (stacked in ``state``) by its target, which averages late noise out."""
    return jax.vmap(lambda q, which: q_of(q, observations, actions[which]))(state.target, policy)
