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


def plan_noise(
    config: AugmentConfig, key: PRNG, batch: int, action_size: int
) -> Float[Array, "time plans batch act"]:
    """Noise along which plans are drawn: none for plan 0, else standard normal times ``plan_noise``."""
    shape = (config.plan_steps, config.num_plans, batch, action_size)
    return (config.plan_noise * jax.random.normal(key, shape)).at[:, 0].set(0.0)


def consider(
    predict: PredictFn,
    value: ValueFn,
    policy: PolicyFn,
    discount: float,
    observations: Float[Array, "batch obs"],
    noise: Float[Array, "time plans batch act"],
    uncertainty_max: Float[Array, ""],
) -> tuple[Rollout, Float[Array, "plans batch"]]:
    """Every plan of each state, as rows of one roll-out (plan by plan), and their scores, Eq. 25.

    A plan is cut, and V put in its place, where it leaves the reliable set; one whose first pair is
    unreliable is no plan: its score is -inf.
    """
    time, plans, batch, action_size = noise.shape
    flat = noise.reshape(time, plans * batch, action_size)
    rollout = unroll(predict, policy, jnp.tile(observations, (plans, 1)), flat, uncertainty_max)
    scores = jnp.where(rollout.valid[:, 0], rollout_return(rollout, value, discount), -jnp.inf)
    return rollout, scores.reshape(plans, batch)


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

    With ``num_plans=1`` this is the greedy baseline of Fig. 2.
    """
    noise = plan_noise(config, key, len(observations), action_size)
    rollout, scores = consider(predict, value, policy, discount, observations, noise, uncertainty_max)
    best, rows = jnp.argmax(scores, axis=0), jnp.arange(len(observations))
    firsts = rollout.actions[:, 0].reshape(*scores.shape, action_size)
    return Plan(firsts[best, rows], scores[best, rows], jnp.isfinite(scores).any(axis=0))
