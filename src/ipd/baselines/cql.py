"""Conservative Q-learning, CQL(H) (Kumar et al., 2020, arXiv:2006.04779) on soft actor-critic.

With a' ~ pi(s'), slow critics Q'_i and the fixed weight w:

    y    = r + gamma (1 - terminated) min_i Q'_i(s', a')
    J_Q  = sum_i  mean (Q_i(s, a) - y)^2  +  w mean [log integral exp Q_i(s, .) - Q_i(s, a)]    (their Eq. 4)

The integral over actions is estimated from `num_actions` actions of each of three kinds, uniform,
pi(s) and pi(s'), all put into Q_i(s, .), each with the weight 1 / density of its kind (appendix F).
Nothing flows back into the policy from here. The policy's loss is `ipd.baselines.actor_critic`'s.

As in the public code: no entropy in y, the smaller of two critics (no maximum over actions), a fixed
weight on the MuJoCo tasks, one learning rate for policy and temperature. Weight and exponential belong
to logged rewards: with rewards scaled by c the bracket is taken of Q / c, and w is multiplied by c^2.
Departures: observations are
normalised; the policy does not begin with cloning (off by default there too); the policy's step sees
the critics of before the update and the critics the policy of after it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ipd.baseline_config import CQLConfig
from ipd.baselines import actor_critic
from ipd.baselines.actor_critic import State, act, begin, init, q_values
from ipd.baselines.material import Constants, Material, on_device
from ipd.maths.losses import td_target
from ipd.nn.mlp import PRNG
from ipd.types import Metrics, Steps
from ipd.value.networks import Critics, SquashedGaussianPolicy

__all__ = ["DATA_AXES", "State", "act", "begin", "draw", "init", "prepare", "update"]

DATA_AXES = None


class Data(NamedTuple):
    """Logged steps, all of them or a batch."""

    steps: Steps
    reward_scale: Float[Array, ""]
    """A logged reward times this is a scaled one."""


def prepare(config: CQLConfig, material: Material) -> tuple[Data, Constants]:
    """All logged steps, and the scale of their rewards."""
    return Data(on_device(material.steps), jnp.asarray(material.reward_scale, jnp.float32)), {}


def draw(config: CQLConfig, data: Data, key: PRNG) -> Data:
    """A batch of logged steps."""
    return data._replace(steps=actor_critic.draw_rows(config.batch_size, data.steps, key))


def proposals(
    config: CQLConfig, policy: SquashedGaussianPolicy, batch: Steps, key: PRNG
) -> tuple[Float[Array, "batch samples act"], Float[Array, "batch samples"]]:
    """`num_actions` uniform actions, as many of pi(s), as many of pi(s'); and their log-densities."""
    keys = jax.random.split(key, 3)
    shape = (len(batch.rewards), config.num_actions, batch.actions.shape[1])
    uniform = jax.random.uniform(keys[0], shape, minval=-1.0, maxval=1.0)
    here, here_log = actor_critic.sample(policy, batch.observations, keys[1], config.num_actions)
    there, there_log = actor_critic.sample(policy, batch.next_observations, keys[2], config.num_actions)
    uniform_log = jnp.full(shape[:2], -shape[2] * jnp.log(2.0))
    return (
        jnp.concatenate([uniform, here, there], axis=1),
        jnp.concatenate([uniform_log, here_log, there_log], axis=1),
    )


def conservative_gap(
    sampled: Float[Array, "batch samples critics"],
    log_density: Float[Array, "batch samples"],
    logged: Float[Array, "batch critics"],
) -> Float[Array, "batch critics"]:
    """log integral exp Q(s, .) - Q(s, a): positive where Q is large away from the logged action."""
    log_mean = jax.nn.logsumexp(sampled - log_density[..., None], axis=1) - jnp.log(sampled.shape[1])
    return log_mean - logged


def update(config: CQLConfig, state: State, batch: Data, key: PRNG) -> tuple[State, Metrics]:
    """One update of policy, temperature, critics and slow critics."""
    policy_key, next_key, proposal_key = jax.random.split(key, 3)
    steps = batch.steps
    state, metrics = actor_critic.improve_policy(config, state, steps.observations, policy_key)

    next_q = actor_critic.next_value(state, steps.next_observations, next_key)
    target = td_target(steps.rewards, steps.terminated, next_q, config.discount)
    actions, log_density = proposals(config, state.policy, steps, proposal_key)
    actions = jnp.concatenate([steps.actions[:, None], actions], axis=1)

    def loss(critics: Critics) -> tuple[Array, Metrics]:
        q = q_values(critics, steps.observations, actions)
        error = ((q[:, 0] - target[:, None]) ** 2).mean(axis=0).sum()
        in_logged = q / batch.reward_scale
        gap = conservative_gap(in_logged[:, 1:], log_density, in_logged[:, 0]).mean(axis=0).sum()
        metrics = {"critic_loss": error, "conservative_gap": gap / q.shape[2], "q_mean": q[:, 0].mean()}
        return error + config.conservative_weight * batch.reward_scale**2 * gap, metrics

    grads, more = jax.grad(loss, has_aux=True)(state.critics)
    return actor_critic.step_critics(config, state, grads), metrics | more
