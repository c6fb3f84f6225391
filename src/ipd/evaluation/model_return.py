"""Return of a policy inside a world model, no further than the model can be believed.

A roll-out is cut before its first pair with U(s, a) >= kappa (Eq. 12) and V stands for what would have come
after, as in planning (Eqs. 17, 25). Callables in, arrays out; learner's units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ipd.config import WorldConfig
from ipd.nn.mlp import PRNG
from ipd.types import PredictFn, ValueFn
from ipd.world.ensemble import Ensemble
from ipd.world.uncertainty import TerminationRule, predict_fn

ActFn = Callable[[Any, Array, Array, PRNG], tuple[Array, Any]]
"""(memory, observations (batch, obs), rewards (batch,), key) -> (actions (batch, act), memory)."""


class ModelReturn(NamedTuple):
    """Of every start state."""

    imagined: Float[Array, "*batch"]
    """Discounted reward of the reliable steps."""
    bootstrapped: Float[Array, "*batch"]
    """Discounted V at the cut, or at the horizon; 0 where the episode ended before."""
    length: Int[Array, "*batch"]
    """Reliable steps."""
    cut: Bool[Array, "*batch"]
    """Whether it left the reliable part before the episode or the horizon ended."""
    observations: Float[Array, "*batch time obs"]
    actions: Float[Array, "*batch time act"]
    valid: Bool[Array, "*batch time"]
    """Which steps are reliable; the others are where it stood."""

    @property
    def total(self) -> Any:
        """(*batch), estimate of the discounted return."""
        return self.imagined + self.bootstrapped


def model_return(
    predict: PredictFn,
    act: ActFn,
    memory: Any,
    value: ValueFn,
    observations: Float[Array, "batch obs"],
    horizon: int,
    discount: float,
    uncertainty_max: Float[Array, ""] | float,
    key: PRNG,
) -> ModelReturn:
    """Roll the policy out for at most ``horizon`` steps; ``memory`` is that before an episode's first step.

    The policy acts on its own imagined past. Behind the cut, and at the horizon, stands V.
    """
    batch = observations.shape[0]

    def step(carry: tuple[Any, ...], now: tuple[Array, Array]) -> tuple[tuple[Any, ...], tuple[Array, ...]]:
        observation, memory, reward, alive, cut, ended = carry
        time, key = now
        action, memory = act(memory, observation, reward, key)
        said = predict(observation, action)
        valid = alive & (said.uncertainty < uncertainty_max)
        reward = jnp.where(valid, said.reward, 0.0)
        ended = ended | (valid & (said.terminated > 0.5))
        cut = cut | (alive & ~valid)
        following = jnp.where(valid[:, None], said.next_observation, observation)
        record = (observation, action, valid, discount**time * reward)
        return (following, memory, reward, valid & ~ended, cut, ended), record

    no = jnp.zeros(batch, bool)
    first = (observations, memory, jnp.zeros(batch), jnp.ones(batch, bool), no, no)
    inputs = (jnp.arange(horizon, dtype=jnp.float32), jax.random.split(key, horizon))
    (final, _, _, _, cut, ended), (seen, actions, valid, rewards) = jax.lax.scan(step, first, inputs)
    length = valid.sum(0)
    behind = jnp.where(ended, 0.0, discount ** length.astype(jnp.float32) * value(final))
    seen, actions, valid = (jnp.moveaxis(each, 0, 1) for each in (seen, actions, valid))
    return ModelReturn(rewards.sum(0), behind, length, cut, seen, actions, valid)


@eqx.filter_jit
def ensemble_return(
    config: WorldConfig,
    ensemble: Ensemble,
    rule: TerminationRule | None,
    act: Callable[..., tuple[Array, Any]],
    actor: Any,
    blank: Any,
    value: Any,
    observations: Float[Array, "starts obs"],
    horizon: int,
    discount: float,
    uncertainty_max: Float[Array, ""],
    key: PRNG,
) -> ModelReturn:
    """``model_return`` in the dynamics of each member, ``(members, starts)``.

    ``act(actor, memory, observation, reward, key)`` is written for one row, ``blank`` its first memory, and
    ``value`` the network V.
    """
    starts = observations.shape[0]
    memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (starts, *leaf.shape)), blank)

    def batch_act(memory: Any, observation: Array, reward: Array, key: PRNG) -> tuple[Array, Any]:
        keys = jax.random.split(key, starts)
        return jax.vmap(act, in_axes=(None, 0, 0, 0, 0))(actor, memory, observation, reward, keys)

    def one(member: Int[Array, ""]) -> ModelReturn:
        predict = predict_fn(config, ensemble, rule, member)
        return model_return(
            predict, batch_act, memory, jax.vmap(value), observations, horizon, discount, uncertainty_max, key
        )

    members = jax.tree.leaves(eqx.filter(ensemble.dynamics, eqx.is_array))[0].shape[0]
    return jax.lax.map(one, jnp.arange(members))


def reliable_share(found: ModelReturn) -> float:
    """Share of the discounted return that was imagined, the rest being V's word; in [0, 1].

    Sizes are compared, so that it has a meaning where rewards are costs.
    """
    imagined, behind = float(jnp.abs(found.imagined).mean()), float(jnp.abs(found.bootstrapped).mean())
    return imagined / (imagined + behind) if imagined + behind > 0 else 1.0
