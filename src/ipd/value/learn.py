"""Value stage: Huber-expectile implicit Q-learning (Eqs. 1-6).

Order within an update: V, policy, Q, targets. V and the policy see the *target* critics; Q sees
the V just updated. Nothing here flows back through another network: each loss differentiates its
own network only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ipd.config import ValueConfig
from ipd.maths.losses import advantage_weight, gaussian_log_prob, huber_expectile, td_target
from ipd.nn.mlp import PRNG
from ipd.types import Metrics, PolicyFn, Spec, Steps, ValueFn
from ipd.value.networks import Critics, GaussianPolicy, Value

HUBER_FLOOR = 1e-3
HUBER_RATE = 0.01
"""Share of the newest batch in the running quantile: about the last hundred batches count."""
NO_HUBER = 1e6
"""A threshold beyond every error, finite so that metrics stay so."""


class State(NamedTuple):
    """Everything the value stage knows, for one seed."""

    critics: Critics
    target_critics: Critics
    value: Value
    policy: GaussianPolicy
    critics_optimiser: Any
    value_optimiser: Any
    policy_optimiser: Any
    huber_delta: Float[Array, ""]
    step: Int[Array, ""]


def _optimisers(config: ValueConfig) -> tuple[optax.GradientTransformation, ...]:
    constant = optax.adam(config.learning_rate)
    cosine = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))
    return constant, constant, cosine


def init(config: ValueConfig, spec: Spec, key: PRNG) -> State:
    """Fresh state; the targets start as copies of the critics."""
    keys = jax.random.split(key, 3)
    obs, act = spec.observation_size, spec.action_size
    critics = Critics(obs, act, config.hidden, config.num_critics, keys[0])
    value = Value(obs, config.hidden, keys[1])
    policy = GaussianPolicy(obs, act, config.hidden, keys[2])
    critics_adam, value_adam, policy_adam = _optimisers(config)
    return State(
        critics,
        jax.tree.map(jnp.copy, critics),
        value,
        policy,
        critics_adam.init(critics),
        value_adam.init(value),
        policy_adam.init(policy),
        jnp.asarray(HUBER_FLOOR),
        jnp.asarray(0),
    )


def draw(config: ValueConfig, data: Steps, key: PRNG) -> Steps:
    """A batch of logged steps, uniformly with replacement."""
    rows = jax.random.randint(key, (config.batch_size,), 0, data.rewards.shape[0])
    return jax.tree.map(lambda leaf: leaf[rows], data)


def track_quantile(
    running: Float[Array, ""], sizes: Float[Array, "batch"], quantile: float, step: Int[Array, ""]
) -> Float[Array, ""]:
    """Running ``quantile`` of \\|e\\| over recent batches (Eq. 1's delta), detached and floored.

    The quantile 1 stands for no threshold at all: the loss is a plain square, whatever comes.
    """
    if quantile >= 1.0:
        return jnp.full_like(running, NO_HUBER)
    newest = jnp.quantile(jax.lax.stop_gradient(sizes), quantile)
    rate = jnp.maximum(HUBER_RATE, 1.0 / (1.0 + step))  # the first batches average plainly
    return jnp.maximum((1.0 - rate) * running + rate * newest, HUBER_FLOOR)


def update(config: ValueConfig, state: State, batch: Steps, key: PRNG) -> tuple[State, Metrics]:
    """One update of V, policy, Q and targets on one batch."""
    critics_adam, value_adam, policy_adam = _optimisers(config)
    target_q = jax.vmap(state.target_critics)(batch.observations, batch.actions).min(axis=1)

    error = target_q - jax.vmap(state.value)(batch.observations)
    huber_delta = track_quantile(state.huber_delta, jnp.abs(error), config.huber_quantile, state.step)

    def value_loss(value: Value) -> Float[Array, ""]:
        e = target_q - jax.vmap(value)(batch.observations)
        return jax.vmap(lambda x: huber_expectile(x, config.expectile, huber_delta))(e).mean()

    loss_v, grads = jax.value_and_grad(value_loss)(state.value)
    steps, value_optimiser = value_adam.update(grads, state.value_optimiser)
    value = optax.apply_updates(state.value, steps)

    advantage = target_q - jax.vmap(value)(batch.observations)
    weight = advantage_weight(advantage, config.inverse_temperature, config.max_advantage_weight)
    keys = jax.random.split(key, config.batch_size)

    def policy_loss(policy: GaussianPolicy) -> Float[Array, ""]:
        means = jax.vmap(lambda o, k: policy.mean(o, config.dropout, k))(batch.observations, keys)
        log_std = policy.bounded_log_std()
        log_prob = jax.vmap(lambda a, m: gaussian_log_prob(a, m, log_std))(batch.actions, means)
        return -(weight * log_prob).mean()

    loss_pi, grads = jax.value_and_grad(policy_loss)(state.policy)
    steps, policy_optimiser = policy_adam.update(grads, state.policy_optimiser)
    policy = optax.apply_updates(state.policy, steps)

    next_value = jax.vmap(value)(batch.next_observations)
    target = td_target(batch.rewards, batch.terminated, next_value, config.discount)

    def critics_loss(critics: Critics) -> tuple[Float[Array, ""], Float[Array, ""]]:
        q = jax.vmap(critics)(batch.observations, batch.actions)
        return ((target[:, None] - q) ** 2).mean(axis=0).sum(), q.mean()

    (loss_q, q_mean), grads = jax.value_and_grad(critics_loss, has_aux=True)(state.critics)
    steps, critics_optimiser = critics_adam.update(grads, state.critics_optimiser)
    critics = optax.apply_updates(state.critics, steps)
    target_critics = optax.incremental_update(critics, state.target_critics, config.polyak)

    metrics = {
        "value_loss": loss_v,
        "critic_loss": loss_q,
        "actor_loss": loss_pi,
        "q_mean": q_mean,
        "v_mean": (target_q - advantage).mean(),
        "advantage_mean": advantage.mean(),
        "huber_delta": huber_delta,
        "log_std": policy.log_std.mean(),
    }
    state = State(
        critics,
        target_critics,
        value,
        policy,
        critics_optimiser,
        value_optimiser,
        policy_optimiser,
        huber_delta,
        state.step + 1,
    )
    return state, metrics


def value_fn(state: State) -> ValueFn:
    """V for a batch of normalised observations."""
    return jax.vmap(state.value)


def policy_fn(state: State, noise_scale: float = 1.0) -> PolicyFn:
    """The quasi-optimal policy (Eq. 6) for a batch: observation and standard normal noise to action."""
    return jax.vmap(lambda observation, noise: state.policy.sample(observation, noise_scale * noise))


@eqx.filter_jit
def smallest_q(
    state: State, observations: Float[Array, "batch obs"], actions: Float[Array, "batch act"]
) -> Array:
    """min over target critics of Q(s, a), ``(batch,)``."""
    return jax.vmap(state.target_critics)(observations, actions).min(axis=1)
