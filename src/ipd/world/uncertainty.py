"""From a trained ensemble to the callable that planning uses, and its threshold kappa (Eqs. 8, 12)."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ipd.config import WorldConfig
from ipd.maths.gaussians import uncertainty
from ipd.types import PredictFn, Prediction, Steps
from ipd.world.ensemble import Ensemble

TerminationRule = Callable[[Float[Array, "*batch obs"]], Bool[Array, "*batch"]]
"""Known termination: normalised next observation -> whether the episode ends there."""


def ends(
    ensemble: Ensemble,
    rule: TerminationRule | None,
    observation: Float[Array, "obs"],
    action: Float[Array, "act"],
    next_observation: Float[Array, "obs"],
) -> Float[Array, ""]:
    """1 where the episode ends: by the ``rule`` where the task has one, else the learned head, else never."""
    if rule is not None:
        terminated = rule(next_observation)
    elif ensemble.termination is not None:
        terminated = ensemble.termination(jnp.concatenate([observation, action]))[0] > 0.0
    else:
        terminated = jnp.asarray(False)
    return terminated.astype(jnp.float32)


def predict_fn(
    config: WorldConfig,
    ensemble: Ensemble,
    rule: TerminationRule | None,
    member: Int[Array, ""] | None = None,
) -> PredictFn:
    """Mean dynamics, mean reward, termination (see ``ends``) and U(s, a) for a batch of pairs.

    With ``member`` the dynamics are that member's alone; all else is the ensemble's.
    """

    def one(observation: Float[Array, "obs"], action: Float[Array, "act"]) -> Prediction:
        means, log_variances = ensemble.members(observation, action)
        change = means.mean(0) if member is None else means[member]
        next_observation = observation + ensemble.scale.decode(change)
        return Prediction(
            next_observation,
            ensemble.mean_reward(observation, action),
            ends(ensemble, rule, observation, action, next_observation),
            uncertainty(means, log_variances, config.uncertainty, config.reduction),
        )

    return jax.vmap(one)


@eqx.filter_jit
def threshold(config: WorldConfig, ensemble: Ensemble, held_out: Steps) -> Float[Array, ""]:
    """kappa: ``threshold_scale`` times a quantile of U over held-out real pairs."""

    def one(pair: tuple[Float[Array, "obs"], Float[Array, "act"]]) -> Float[Array, ""]:
        means, log_variances = ensemble.members(*pair)
        return uncertainty(means, log_variances, config.uncertainty, config.reduction)

    each = jax.lax.map(one, (held_out.observations, held_out.actions), batch_size=4_096)
    return config.threshold_scale * jnp.quantile(each, config.threshold_quantile)
