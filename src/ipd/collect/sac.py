"""Soft actor-critic with an automatic temperature, for one agent.

Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications" (arXiv:1812.05905). With actions
a = tanh(u), u ~ N(mu(s), sigma(s)), two critics Q_i, their slow copies Q'_i and the temperature alpha:

    y        = r + gamma (1 - terminated) (min_i Q'_i(s', a') - alpha log pi(a' | s')),  a' ~ pi(s')
    J_Q      = mean sum_i (Q_i(s, a) - y)^2 / 2                                 (their Eqs. 5, 6)
    J_pi     = mean alpha log pi(a | s) - min_i Q_i(s, a),  a ~ pi(s)           (Eqs. 7 to 9)
    J_alpha  = mean -alpha (log pi(a | s) + target entropy)                     (Eq. 18)

A time limit is not a termination: values bootstrap through it. Departures from the authors' code: the
temperature's step is taken on log alpha, which keeps it positive, and all three steps of one update
see the critics of before it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ipd.nn.mlp import MLP, PRNG
from ipd.types import Metrics, Steps
from ipd.value.networks import SquashedGaussianPolicy


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Settings of the learner; the paper's (Table 1) where nothing is said."""

    hidden: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of policy and critics."""
    learning_rate: float = 3e-4
    """Adam's, for policy, critics and temperature."""
    batch_size: int = 256
    """Steps drawn from the buffer in one update."""
    discount: float = 0.99
    """gamma."""
    polyak: float = 0.005
    """Share of the critics that goes into their slow copies at each update."""


class TwinCritics(eqx.Module):
    """Two independent Q networks."""

    first: MLP
    second: MLP

    def __init__(self, observation_size: int, action_size: int, hidden: tuple[int, ...], key: PRNG):
        # Not stacked: two plain products are faster on a CPU than one batched product.
        one, two = jax.random.split(key)
        self.first = MLP(observation_size + action_size, hidden, 1, one)
        self.second = MLP(observation_size + action_size, hidden, 1, two)

    def __call__(
        self, observation: Float[Array, "obs"], action: Float[Array, "act"]
    ) -> Float[Array, "critics=2"]:
        """Q_i(s, a)."""
        pair = jnp.concatenate([observation, action])
        return jnp.concatenate([self.first(pair), self.second(pair)])


class State(NamedTuple):
    """Everything the learner knows."""

    policy: SquashedGaussianPolicy
    critics: TwinCritics
    target_critics: TwinCritics
    log_alpha: Float[Array, ""]
    optimisers: Any
    """Adam's state for (policy, critics, log_alpha)."""


def init(config: SACConfig, observation_size: int, action_size: int, key: PRNG) -> State:
    """Fresh state; the slow critics start as copies, the temperature at 1."""
    policy_key, critics_key = jax.random.split(key)
    policy = SquashedGaussianPolicy(observation_size, action_size, config.hidden, policy_key)
    critics = TwinCritics(observation_size, action_size, config.hidden, critics_key)
    log_alpha = jnp.zeros(())
    learned = (policy, critics, log_alpha)
    return State(
        policy,
        critics,
        jax.tree.map(jnp.copy, critics),
        log_alpha,
        optax.adam(config.learning_rate).init(learned),
    )


def bellman_target(
    config: SACConfig, state: State, batch: Steps, noise: Float[Array, "batch act"]
) -> Float[Array, "batch"]:
    """y of the module's docstring; ``noise`` draws a'."""
    actions, log_probs = jax.vmap(state.policy.sample)(batch.next_observations, noise)
    values = jax.vmap(state.target_critics)(batch.next_observations, actions).min(1)
    soft = values - jnp.exp(state.log_alpha) * log_probs
    return batch.rewards + config.discount * (1.0 - batch.terminated) * soft


def alpha_loss(log_alpha: Float[Array, ""], entropy: Float[Array, ""], target: float) -> Float[Array, ""]:
    """J_alpha; its step raises the temperature where the policy's entropy is below the target."""
    return jnp.exp(log_alpha) * (jax.lax.stop_gradient(entropy) - target)


def update(config: SACConfig, state: State, batch: Steps, key: PRNG) -> tuple[State, Metrics]:
    """One step of Adam on critics, policy and temperature, then the slow critics.

    ``batch`` has actions in [-1, 1] and everything else in the task's units. The target entropy is
    minus the number of action dimensions.
    """
    noise, next_noise = jax.random.normal(key, (2, *batch.actions.shape))
    target = jax.lax.stop_gradient(bellman_target(config, state, batch, next_noise))

    def loss(learned: tuple[SquashedGaussianPolicy, TwinCritics, Array]) -> tuple[Array, Metrics]:
        policy, critics, log_alpha = learned
        values = jax.vmap(critics)(batch.observations, batch.actions)
        critics_loss = 0.5 * jnp.mean(jnp.sum((values - target[:, None]) ** 2, axis=1))
        actions, log_probs = jax.vmap(policy.sample)(batch.observations, noise)
        fixed = jax.lax.stop_gradient(state.critics)
        chosen = jax.vmap(fixed)(batch.observations, actions).min(1)
        entropy = -jnp.mean(log_probs)
        policy_loss = -jax.lax.stop_gradient(jnp.exp(log_alpha)) * entropy - jnp.mean(chosen)
        temperature_loss = alpha_loss(log_alpha, entropy, -float(batch.actions.shape[1]))
        metrics = {"critics_loss": critics_loss, "policy_loss": policy_loss, "entropy": entropy}
        # No parameter is in two of the three, so their sum has the gradient of each.
        return critics_loss + policy_loss + temperature_loss, metrics

    learned = (state.policy, state.critics, state.log_alpha)
    gradient, metrics = jax.grad(loss, has_aux=True)(learned)
    steps, optimisers = optax.adam(config.learning_rate).update(gradient, state.optimisers)
    policy, critics, log_alpha = optax.apply_updates(learned, steps)
    slow = jax.tree.map(lambda old, new: old + config.polyak * (new - old), state.target_critics, critics)
    return State(policy, critics, slow, log_alpha, optimisers), metrics
