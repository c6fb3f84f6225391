"""The probabilistic ensemble (Eq. 7), the reward ensemble and the termination head, for one pair (s, a)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ipd.maths.gaussians import soft_clamp
from ipd.nn.mlp import MLP, PRNG
from ipd.types import Steps


class ChangeScale(eqx.Module):
    """Mean and standard deviation of the change of observation in one step, fixed from the data."""

    mean: Float[Array, "obs"]
    std: Float[Array, "obs"]

    def encode(self, change: Float[Array, "*batch obs"]) -> Float[Array, "*batch obs"]:
        """Change of (normalised) observation -> what the members predict."""
        return (change - jnp.broadcast_to(self.mean, change.shape)) / jnp.broadcast_to(self.std, change.shape)

    def decode(self, encoded: Float[Array, "*batch obs"]) -> Float[Array, "*batch obs"]:
        """Inverse of ``encode``."""
        return encoded * jnp.broadcast_to(self.std, encoded.shape) + jnp.broadcast_to(
            self.mean, encoded.shape
        )


def change_scale(steps: Steps) -> ChangeScale:
    """Scale of the change of observation over logged steps."""
    change = steps.next_observations - steps.observations
    return ChangeScale(jnp.asarray(change.mean(0)), jnp.maximum(change.std(0), 1e-6))


class Ensemble(eqx.Module):
    """Members are stacked on the first axis of ``dynamics`` and of ``reward``.

    Each member of ``dynamics`` outputs mean and log-variance of the encoded change; each of
    ``reward`` the reward of (s, a); ``termination``, where learned, the logit that s' is terminal.
    """

    dynamics: MLP
    reward: MLP
    termination: MLP | None
    scale: ChangeScale
    log_variance_bounds: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: tuple[int, ...],
        num_members: int,
        log_variance_bounds: tuple[float, float],
        scale: ChangeScale,
        learn_termination: bool,
        key: PRNG,
    ):
        inputs = observation_size + action_size
        keys = jax.random.split(key, 3)
        self.dynamics = jax.vmap(lambda k: MLP(inputs, hidden, 2 * observation_size, k, layer_norm=True))(
            jax.random.split(keys[0], num_members)
        )
        self.reward = jax.vmap(lambda k: MLP(inputs, hidden, 1, k, layer_norm=True))(
            jax.random.split(keys[1], num_members)
        )
        self.termination = MLP(inputs, hidden, 1, keys[2], layer_norm=True) if learn_termination else None
        self.scale = scale
        self.log_variance_bounds = log_variance_bounds

    def gaussian(
        self, member: MLP, pair: Float[Array, "inputs"]
    ) -> tuple[Float[Array, "obs"], Float[Array, "obs"]]:
        """Mean and bounded log-variance of the encoded change, by one member."""
        mean, log_variance = jnp.split(member(pair), 2)
        return mean, soft_clamp(log_variance, *self.log_variance_bounds)

    def members(
        self, observation: Float[Array, "obs"], action: Float[Array, "act"]
    ) -> tuple[Float[Array, "members obs"], Float[Array, "members obs"]]:
        """Mean and log-variance of the encoded change, by every member."""
        pair = jnp.concatenate([observation, action])
        return jax.vmap(lambda member: self.gaussian(member, pair))(self.dynamics)

    def mean_reward(self, observation: Float[Array, "obs"], action: Float[Array, "act"]) -> Float[Array, ""]:
        """Mean of the reward members, scaled units."""
        pair = jnp.concatenate([observation, action])
        return jax.vmap(lambda member: member(pair)[0])(self.reward).mean()
