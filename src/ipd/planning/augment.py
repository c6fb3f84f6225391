"""Algorithm 1: imagined segments from chosen states, in parallel batches of a fixed shape."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ipd.config import AugmentConfig
from ipd.nn.mlp import PRNG
from ipd.planning.mpc import plan
from ipd.types import PolicyFn, PredictFn, Segment, ValueFn


def imagine(
    predict: PredictFn,
    value: ValueFn,
    policy: PolicyFn,
    config: AugmentConfig,
    discount: float,
    observations: Float[Array, "batch obs"],
    action_size: int,
    key: PRNG,
    uncertainty_max: Float[Array, ""],
) -> Segment:
    """Plan, execute the best first action in the model, repeat ``imagine_steps`` times (Eqs. 23, 24).

    The executed *pair* is tested against kappa. A segment ends before its first unreliable pair
    and after a termination; ``valid`` marks what belongs to it.
    """

    def step(carry: tuple[Array, Array], key: PRNG) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        observation, alive = carry
        chosen = plan(
            predict, value, policy, config, discount, observation, action_size, key, uncertainty_max
        )
        said = predict(observation, chosen.action)
        valid = alive & chosen.reliable & (said.uncertainty < uncertainty_max)
        following = jnp.where(valid[:, None], said.next_observation, observation)
        record = (
            observation,
            chosen.action,
            said.reward,
            following,
            said.terminated,
            said.uncertainty,
            valid,
        )
        return (following, valid & (said.terminated < 0.5)), record

    alive = jnp.ones(observations.shape[0], bool)
    _, records = jax.lax.scan(step, (observations, alive), jax.random.split(key, config.imagine_steps))
    return Segment(*(jnp.swapaxes(record, 0, 1) for record in records))
