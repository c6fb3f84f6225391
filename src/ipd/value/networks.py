"""Q, V and the quasi-optimal policy, for one example."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ipd.nn.mlp import MLP, PRNG

LOG_STD_BOUNDS = (-5.0, 2.0)
SQUASHED_LOG_STD_BOUNDS = (-20.0, 2.0)


class Critics(eqx.Module):
    """Independent Q networks, stacked on the first axis of every array."""

    nets: MLP

    def __init__(
        self,
        observation_size: int,
        action_size: int,
        hidden: tuple[int, ...],
        count: int,
        key: PRNG,
        layer_norm: bool = False,
    ):
        make = lambda k: MLP(observation_size + action_size, hidden, 1, k, layer_norm)  # noqa: E731
        self.nets = jax.vmap(make)(jax.random.split(key, count))

    def __call__(
        self, observation: Float[Array, "obs"], action: Float[Array, "act"]
    ) -> Float[Array, "critics"]:
        """Q(s, a) of every critic, scaled reward units."""
        pair = jnp.concatenate([observation, action])
        return jax.vmap(lambda net: net(pair)[0])(self.nets)


class Value(eqx.Module):
    """V(s), scaled reward units."""

    net: MLP

    def __init__(self, observation_size: int, hidden: tuple[int, ...], key: PRNG):
        self.net = MLP(observation_size, hidden, 1, key)

    def __call__(self, observation: Float[Array, "obs"]) -> Float[Array, ""]:
        return self.net(observation)[0]


class GaussianPolicy(eqx.Module):
    """Gaussian with a tanh mean and a state-independent standard deviation."""

    net: MLP
    log_std: Float[Array, "act"]

    def __init__(self, observation_size: int, action_size: int, hidden: tuple[int, ...], key: PRNG):
        self.net = MLP(observation_size, hidden, action_size, key)
        self.log_std = jnp.zeros(action_size)

    def mean(
        self, observation: Float[Array, "obs"], dropout: float = 0.0, key: PRNG | None = None
    ) -> Float[Array, "act"]:
        """Mean action, in [-1, 1]."""
        return jnp.tanh(self.net(observation, dropout, key))

    def bounded_log_std(self) -> Float[Array, "act"]:
        """log standard deviation inside its bounds."""
        return jnp.clip(self.log_std, *LOG_STD_BOUNDS)

    def sample(self, observation: Float[Array, "obs"], noise: Float[Array, "act"]) -> Float[Array, "act"]:
        """Mean plus ``noise`` standard deviations, kept in [-1, 1]; zero noise is the mean."""
        return jnp.clip(self.mean(observation) + jnp.exp(self.bounded_log_std()) * noise, -1.0, 1.0)


class SquashedGaussianPolicy(eqx.Module):
    """a = tanh(u) with u Gaussian; its mean and standard deviation both depend on the state (SAC)."""

    net: MLP

    def __init__(self, observation_size: int, action_size: int, hidden: tuple[int, ...], key: PRNG):
        self.net = MLP(observation_size, hidden, 2 * action_size, key)

    @property
    def action_size(self) -> int:
        """Dimensions of an action."""
        return self.net.layers[-1].weight.shape[1] // 2

    def mode(self, observation: Float[Array, "obs"]) -> Float[Array, "act"]:
        """tanh of the mean of u: the deterministic action, in [-1, 1]."""
        return jnp.tanh(jnp.split(self.net(observation), 2)[0])

    def sample(
        self, observation: Float[Array, "obs"], noise: Float[Array, "*samples act"]
    ) -> tuple[Float[Array, "*samples act"], Float[Array, "*samples"]]:
        """An action for each vector of standard normal ``noise``, and its log-density over actions."""
        mean, log_std = jnp.split(self.net(observation), 2)
        log_std = jnp.clip(log_std, *SQUASHED_LOG_STD_BOUNDS)
        mean, log_std = jnp.broadcast_to(mean, noise.shape), jnp.broadcast_to(log_std, noise.shape)
        u = mean + jnp.exp(log_std) * noise
        return jnp.tanh(u), squashed_log_prob(u, noise, log_std)


def squashed_log_prob(
    u: Float[Array, "*n act"], noise: Float[Array, "*n act"], log_std: Float[Array, "*n act"]
) -> Float[Array, "*n"]:
    """log-density of tanh(u), log N(u) - sum log(1 - tanh(u)^2), where u = mean + std noise.

    Haarnoja et al. 2018 (arXiv:1812.05905), appendix C. log(1 - tanh(u)^2) is written as
    2 (log 2 - u - softplus(-2 u)), which stays finite where tanh(u) rounds to 1.
    """
    gaussian = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2.0 * jnp.pi)
    return jnp.sum(gaussian - 2.0 * (jnp.log(2.0) - u - jax.nn.softplus(-2.0 * u)), axis=-1)
