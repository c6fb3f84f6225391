"""Driving the trained policy: rolling context, prompt V(s_t) at every step, one deterministic action."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ipd.data.episodes import Normaliser
from ipd.policy.model import SequencePolicy
from ipd.value.networks import Critics, GaussianPolicy, Value

RERANK_SPREAD = 0.1
"""Standard deviation of the candidates around the policy's action, as a share of half its range."""


class Driver(NamedTuple):
    """What acting needs of one trained seed."""

    policy: SequencePolicy
    value: Value
    critics: Critics
    prompt_scale: Float[Array, ""]
    """std(V) of the data; prompts are V(s) divided by it."""


class Context(NamedTuple):
    """The last ``context_len`` steps of one episode, newest last."""

    observations: Float[Array, "context obs"]
    actions: Float[Array, "context act"]
    prompts: Float[Array, "context"]
    timesteps: Int[Array, "context"]
    present: Bool[Array, "context"]


def empty(context_len: int, observation_size: int, action_size: int) -> Context:
    """Context before the first step of an episode."""
    return Context(
        jnp.zeros((context_len, observation_size)),
        jnp.zeros((context_len, action_size)),
        jnp.zeros(context_len),
        jnp.zeros(context_len, jnp.int32),
        jnp.zeros(context_len, bool),
    )


def act(
    driver: Driver,
    context: Context,
    observation: Float[Array, "obs"],
    time: Int[Array, ""],
    prompt: Float[Array, ""] | None = None,
    noise: Float[Array, "candidates act"] | None = None,
) -> tuple[Float[Array, "act"], Context]:
    """Action for a normalised observation, and the context with this step in it.

    ``prompt`` overrides V(s) / std(V) (Fig. 3's fixed target returns). With ``noise`` the action
    competes with noisy copies of itself, and the one with the largest min Q(s, a) is taken.
    """

    def push(row: Array, new: Array) -> Array:
        return jnp.concatenate([row[1:], jnp.asarray(new, row.dtype)[None]])

    if prompt is None:
        prompt = driver.value(observation) / driver.prompt_scale
    time = jnp.minimum(time, driver.policy.embed_timestep.shape[0] - 1)
    context = Context(
        push(context.observations, observation),
        push(context.actions, jnp.zeros(context.actions.shape[1])),
        push(context.prompts, prompt),
        push(context.timesteps, time),
        push(context.present, jnp.asarray(True)),
    )
    actions = driver.policy(
        context.prompts, context.observations, context.actions, context.timesteps, context.present
    )
    action = actions[-1]
    if noise is not None:
        # the policy's own action stands first, so that it wins a tie
        candidates = jnp.concatenate([action[None], jnp.clip(action + noise, -1.0, 1.0)])
        action = candidates[jnp.argmax(jax.vmap(lambda a: driver.critics(observation, a).min())(candidates))]
    return action, context._replace(actions=context.actions.at[-1].set(action))


class Controller:
    """Acts for ``rows`` episodes at once in the task's own units; rows are grouped by trained seed.

    ``drivers`` is one ``Driver`` with seeds stacked on the first axis. With S seeds, row i belongs
    to seed ``i // (rows / S)``. One row of one seed also takes and returns plain vectors. ``prompt``
    fixes the prompt; ``rerank`` candidates around each action compete by Q (the paper has neither).
    """

    def __init__(
        self,
        drivers: Driver,
        normaliser: Normaliser,
        context_len: int,
        prompt: float | None = None,
        rerank: int = 0,
    ):
        self._drivers, self._normaliser, self._context_len = drivers, normaliser, context_len
        self._seeds = drivers.prompt_scale.shape[0]
        fixed = None if prompt is None else jnp.asarray(prompt, jnp.float32)

        def step(drivers: Driver, contexts: Context, rows: Array, time: Array) -> tuple[Array, Context]:
            noise = None
            if rerank:
                key = jax.random.fold_in(jax.random.PRNGKey(0), time)
                noise = RERANK_SPREAD * jax.random.normal(key, (rerank, len(normaliser.action_low)))
            one = partial(act, prompt=fixed, noise=noise)
            each = jax.vmap(jax.vmap(one, in_axes=(None, 0, 0, None)), in_axes=(0, 0, 0, None))
            return each(drivers, contexts, rows, time)

        self._step = eqx.filter_jit(step)
        self.reset()

    def reset(self, rows: int | None = None) -> None:
        """Forget the context; ``rows`` episodes begin (default: one for each seed)."""
        rows = self._seeds if rows is None else rows
        if rows % self._seeds:
            raise ValueError(f"{rows} rows cannot be shared evenly by {self._seeds} seeds")
        blank = empty(
            self._context_len, len(self._normaliser.observation_mean), len(self._normaliser.action_low)
        )
        shape = (self._seeds, rows // self._seeds)
        self._context = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (*shape, *leaf.shape)), blank)
        self._time, self._shape = 0, shape

    def act(self, observations: Float[np.ndarray, "*rows obs"]) -> Float[np.ndarray, "*rows act"]:
        """Actions in the task's units for observations in the task's units."""
        raw = np.asarray(observations, np.float32)
        normal = self._normaliser.observations(raw).reshape(*self._shape, -1)
        actions, self._context = self._step(
            self._drivers, self._context, jnp.asarray(normal), jnp.asarray(self._time)
        )
        self._time += 1
        flat = np.asarray(actions).reshape(-1, actions.shape[-1])
        return self._normaliser.raw_actions(flat).reshape(*raw.shape[:-1], -1)


class MeanController:
    """Mean action of a memoryless policy for every row: the quasi-optimal policy, or plain cloning."""

    def __init__(self, policies: GaussianPolicy, normaliser: Normaliser):
        self._policies, self._normaliser = policies, normaliser
        self._seeds = jax.tree.leaves(policies)[0].shape[0]
        self._act: Callable[[GaussianPolicy, Array], Array] = eqx.filter_jit(
            jax.vmap(lambda policy, batch: jax.vmap(policy.mean)(batch))
        )

    def reset(self, rows: int | None = None) -> None:
        """Nothing to forget."""

    def act(self, observations: Float[np.ndarray, "rows obs"]) -> Float[np.ndarray, "rows act"]:
        """Actions in the task's units; rows are grouped by seed as in ``Controller``."""
        raw = np.asarray(observations, np.float32)
        normal = self._normaliser.observations(raw).reshape(self._seeds, -1, raw.shape[-1])
        actions = self._act(self._policies, jnp.asarray(normal))
        return self._normaliser.raw_actions(np.asarray(actions).reshape(-1, actions.shape[-1]))
