"""MOBILE (Sun et al., 2023): soft actor-critic in a world model, penalised where its members disagree on Q.

A batch holds logged steps and steps imagined with the newest policy. With slow critics Q'_i, a' ~ pi(s')
and, for imagined steps only, the penalty U:

    T_m(s, a)  = gamma mean over s' ~ member m of (1 - terminated) min_i Q'_i(s', a')
    U(s, a)    = standard deviation of T_m(s, a) over the members m
    y          = max(r - c U(s, a) + gamma (1 - terminated) min_i Q'_i(s', a'), floor)
    J_Q        = sum_i mean (Q_i(s, a) - y)^2

As in the public code: no entropy in y, the members share one reward (so that it does not enter U), the
standard deviation is that of a sample (members - 1), and the policy learns on the whole batch. There
the floor is 0, which holds where no reward is negative; here it is the smallest discounted return
logged from any step, or 0 where that is positive.

Departures: roll-outs are made anew in every update, from logged states through a random member at each
step, where the public code keeps a buffer of them that it renews every 1,000 updates; a roll-out that
ends begins anew from another logged state, so that every row of a batch counts; a next state that ends
the episode is worth 0 in T_m too; the ensemble is this project's world stage (fewer members, no choice
of elites, a separate reward ensemble whose mean is the reward); the policy's learning rate is constant.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ipd.baseline_config import MOBILEConfig
from ipd.baselines import actor_critic
from ipd.baselines.actor_critic import State, act, begin, init
from ipd.baselines.material import Constants, Material, on_device
from ipd.maths.losses import td_target
from ipd.maths.returns import reward_to_go
from ipd.nn.mlp import PRNG
from ipd.types import Metrics, Steps
from ipd.value.networks import Critics, SquashedGaussianPolicy
from ipd.world.ensemble import Ensemble
from ipd.world.uncertainty import ends

__all__ = ["DATA_AXES", "State", "act", "begin", "draw", "init", "prepare", "update"]


class Model(NamedTuple):
    """The world model and how its episodes end."""

    ensemble: Ensemble
    rule: jax.tree_util.Partial | None


class Data(NamedTuple):
    """Logged steps and what imagining needs."""

    steps: Steps
    model: Model
    floor: Float[Array, ""]
    """No target is smaller; scaled reward units."""


class Batch(NamedTuple):
    """What one update sees."""

    logged: Steps
    starts: Float[Array, "time rollouts obs"]
    """Logged states: the first row to begin from, the others to begin anew from after an end."""
    model: Model
    floor: Float[Array, ""]


DATA_AXES = Data(None, Model(0, None), None)  # type: ignore[arg-type]


def prepare(config: MOBILEConfig, material: Material) -> tuple[Data, Constants]:
    """All logged steps, the world model, and the smallest discounted return in the data (at most 0)."""
    assert material.ensemble is not None, "the world stage comes first"
    steps = on_device(material.steps)
    last = np.zeros(len(material.steps.rewards), bool)
    last[material.starts[1:] - 1] = True
    returns = reward_to_go(steps.rewards, jnp.asarray(last), jnp.zeros(len(last)), config.discount)
    model = Model(material.ensemble, material.rule)
    return Data(steps, model, jnp.minimum(returns.min(), 0.0)), {}


def draw(config: MOBILEConfig, data: Data, key: PRNG) -> Batch:
    """`real_share` of a batch as logged steps, and the states from which the rest is imagined."""
    logged_key, start_key = jax.random.split(key)
    real = max(1, round(config.real_share * config.batch_size))
    rollouts = max(1, (config.batch_size - real) // config.rollout_steps)
    rows = jax.random.randint(start_key, (config.rollout_steps, rollouts), 0, data.steps.rewards.shape[0])
    return Batch(
        actor_critic.draw_rows(real, data.steps, logged_key),
        data.steps.observations[rows],
        data.model,
        data.floor,
    )


def imagine(policy: SquashedGaussianPolicy, batch: Batch, key: PRNG) -> Steps:
    """Steps of all roll-outs, ``(time * rollouts, ...)``: sampled actions, sampled next states."""
    ensemble, rule = batch.model

    def one(
        observation: Float[Array, "obs"], action: Float[Array, "act"], key: PRNG
    ) -> tuple[Array, Array, Array]:
        member_key, noise_key = jax.random.split(key)
        means, log_variances = ensemble.members(observation, action)
        member = jax.random.randint(member_key, (), 0, means.shape[0])
        noise = jax.random.normal(noise_key, observation.shape)
        change = means[member] + jnp.exp(0.5 * log_variances[member]) * noise
        next_observation = observation + ensemble.scale.decode(change)
        ended = ends(ensemble, rule, observation, action, next_observation)
        return ensemble.mean_reward(observation, action), next_observation, ended

    def advance(observations: Array, inputs: tuple[Array, Array]) -> tuple[Array, Steps]:
        anew, key = inputs
        action_key, model_key = jax.random.split(key)
        actions = actor_critic.sample(policy, observations, action_key)[0][:, 0]
        keys = jax.random.split(model_key, len(observations))
        rewards, next_observations, ended = jax.vmap(one)(observations, actions, keys)
        steps = Steps(observations, actions, rewards, next_observations, ended)
        return jnp.where(ended[:, None] > 0, anew, next_observations), steps

    keys = jax.random.split(key, len(batch.starts))
    _, steps = jax.lax.scan(advance, batch.starts[0], (jnp.roll(batch.starts, -1, axis=0), keys))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)


def inconsistency(
    config: MOBILEConfig,
    state: State,
    model: Model,
    observations: Float[Array, "batch obs"],
    actions: Float[Array, "batch act"],
    key: PRNG,
) -> Float[Array, "batch"]:
    """U(s, a) of the module's docstring, scaled reward units."""
    noise_key, action_key = jax.random.split(key)
    means, log_variances = jax.vmap(model.ensemble.members)(observations, actions)
    means, log_variances = means[:, :, None], log_variances[:, :, None]
    rows, members, _, size = means.shape
    noise = jax.random.normal(noise_key, (rows, members, config.num_samples, size))
    change = model.ensemble.scale.decode(means + jnp.exp(0.5 * log_variances) * noise)
    next_observations = (observations[:, None, None] + change).reshape(rows, -1, size)

    def ended(observation: Array, action: Array, nexts: Array) -> Array:
        return jax.vmap(lambda n: ends(model.ensemble, model.rule, observation, action, n))(nexts)

    over = jax.vmap(ended)(observations, actions, next_observations)
    values = actor_critic.next_value(state, next_observations.reshape(-1, size), action_key)
    targets = (1.0 - over) * values.reshape(over.shape)
    return config.discount * targets.reshape(rows, members, -1).mean(axis=2).std(axis=1, ddof=1)


def critic_target(
    config: MOBILEConfig,
    state: State,
    steps: Steps,
    penalty: Float[Array, "batch"],
    floor: Float[Array, ""],
    key: PRNG,
) -> Float[Array, "batch"]:
    """y of the module's docstring; ``penalty`` is U, 0 at logged steps."""
    next_q = actor_critic.next_value(state, steps.next_observations, key)
    target = td_target(steps.rewards, steps.terminated, next_q, config.discount)
    return jnp.maximum(target - config.penalty * penalty, floor)


def update(config: MOBILEConfig, state: State, batch: Batch, key: PRNG) -> tuple[State, Metrics]:
    """One update of policy, temperature, critics and slow critics, on logged and newly imagined steps."""
    keys = jax.random.split(key, 4)
    imagined = imagine(state.policy, batch, keys[0])
    steps = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch.logged, imagined)
    state, metrics = actor_critic.improve_policy(config, state, steps.observations, keys[1])

    doubt = inconsistency(config, state, batch.model, imagined.observations, imagined.actions, keys[2])
    penalty = jnp.concatenate([jnp.zeros(len(batch.logged.rewards)), doubt])
    target = critic_target(config, state, steps, penalty, batch.floor, keys[3])

    def loss(critics: Critics) -> tuple[Array, Array]:
        q = jax.vmap(critics)(steps.observations, steps.actions)
        return ((q - target[:, None]) ** 2).mean(axis=0).sum(), q[: len(batch.logged.rewards)].mean()

    (error, q_mean), grads = jax.value_and_grad(loss, has_aux=True)(state.critics)
    metrics |= {"critic_loss": error, "q_mean": q_mean, "inconsistency": doubt.mean()}
    return actor_critic.step_critics(config, state, grads), metrics
