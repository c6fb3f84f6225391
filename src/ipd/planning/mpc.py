"""Model predictive control inside the reliable part of a model (Eq. 25), for a batch of states.

Callables in, arrays out: the planner knows neither networks nor where they were learned.

A -> ``actions``, H_m -> ``plan_steps``, N_mpc -> ``num_plans``, kappa -> ``uncertainty_max``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ipd.config import AugmentConfig
from ipd.maths.returns import cut_return
from ipd.nn.mlp import PRNG
from ipd.types import PolicyFn, PredictFn, ValueFn


class Rollout(NamedTuple):
    """Imagined steps from a batch of states, cut at the first unreliable pair or termination."""

    actions: Float[Array, "batch time act"]
    rewards: Float[Array, "batch time"]
    terminated: Float[Array, "batch time"]
    valid: Bool[Array, "batch time"]
    final_observations: Float[Array, "batch obs"]
    """State that the last valid step reached; the start where there is none."""


class Plan(NamedTuple):
    """The best plan of each state."""

    action: Float[Array, "batch act"]
    score: Float[Array, "batch"]
    reliable: Bool[Array, "batch"]
    """False where not even the first pair of any plan is reliable."""


def unroll(
    predict: PredictFn,
    policy: PolicyFn,
    observations: Float[Array, "batch obs"],
    noise: Float[Array, "time batch act"],
    uncertainty_max: Float[Array, ""],
) -> Rollout:
    """Roll ``policy`` through the model along given ``noise`` with mean dynamics."""

    def step(
        carry: tuple[Float[Array, "batch obs"], Bool[Array, "batch"]], noise: Float[Array, "batch act"]
    ) -> tuple[tuple[Array, Array], tuple[Array, Array, Array, Array]]:
        observation, alive = carry
        action = policy(observation, noise)
        said = predict(observation, action)
        valid = alive & (said.uncertainty < uncertainty_max)
        observation = jnp.where(valid[:, None], said.next_observation, observation)
        return (observation, valid & (said.terminated < 0.5)), (action, said.reward, said.terminated, valid)

    alive = jnp.ones(observations.shape[0], bool)
    (final, _), records = jax.lax.scan(step, (observations, alive), noise)
    actions, rewards, terminated, valid = (jnp.swapaxes(record, 0, 1) for record in records)
    return Rollout(actions, rewards, terminated, valid, final)


def rollout_return(rollout: Rollout, value: ValueFn, discount: float) -> Float[Array, "batch"]:
    """Discounted imagined return with V at the cut (Eqs. 17, 25)."""
    return jax.vmap(cut_return, in_axes=(0, 0, 0, 0, None))(
        rollout.rewards, rollout.valid, rollout.terminated, value(rollout.final_observations), discount
    )


def plan(
    predict: PredictFn,
    value: ValueFn,
    policy: PolicyFn,
    config: AugmentConfig,
    discount: float,
    observations: Float[Array, "batch obs"],
    action_size: int,
    key: PRNG,
    uncertainty_max: Float[Array, ""],
) -> Plan:
    """First action of the best of ``num_plans`` plans for each state, Eq. 25.

    Plan 0 follows the policy's mean; the others its noise times ``plan_noise``. A plan is cut,
    and V put in its place, where it leaves the reliable set; one whose first pair is unreliable
    is no plan. With ``num_plans=1`` this is the greedy baseline of Fig. 2.
    """
    batch = observations.shape[0]
    noise = config.plan_noise * jax.random.normal(
        key, (config.plan_steps, config.num_plans, batch, action_size), observations.dtype
    )
    noise = noise.at[:, 0].set(0.0).reshape(config.plan_steps, config.num_plans * batch, action_size)
    rollout = unroll(predict, policy, jnp.tile(observations, (config.num_plans, 1)), noise, uncertainty_max)
    usable = rollout.valid[:, 0]
    scores = jnp.where(usable, rollout_return(rollout, value, discount), -jnp.inf)
    scores = scores.reshape(config.num_plans, batch)
    best = jnp.argmax(scores, axis=0)
    firsts = rollout.actions[:, 0].reshape(config.num_plans, batch, action_size)
    rows = jnp.arange(batch)
    return Plan(firsts[best, rows], scores[best, rows], usable.reshape(config.num_plans, batch).any(axis=0))
