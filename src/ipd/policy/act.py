"""Driving the trained policy: rolling context, prompt V(s_t) at every step, one deterministic action."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ipd.data.episodes import Normaliser
from ipd.nn.mlp import PRNG
from ipd.policy.model import SequencePolicy
from ipd.types import Spec
from ipd.value.networks import Critics, Value

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


class Memory(NamedTuple):
    """What one episode leaves behind from step to step."""

    context: Context
    time: Int[Array, ""]
    target: Float[Array, ""]
    """Discounted return still asked for, scaled reward units; only a fixed target return is read."""


def begin(context_len: int, spec: Spec, target: Float[Array, ""] | float = 0.0) -> Memory:
    """Memory before the first step of an episode."""
    blank = empty(context_len, spec.observation_size, spec.action_size)
    return Memory(blank, jnp.asarray(0, jnp.int32), jnp.asarray(target, jnp.float32))


def act(
    driver: Driver,
    memory: Memory,
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
    rerank: int = 0,
    discount: float | None = None,
) -> tuple[Float[Array, "act"], Memory]:
    """Action for a normalised observation, and the memory with this step in it.

    The prompt is V(s) / std(V). With ``discount`` it is the fixed target return instead, less the
    (scaled) rewards earned on the way (Fig. 3). With ``rerank`` the action competes with so many
    noisy copies of itself, and the one with the largest min Q(s, a) is taken.
    """

    def push(row: Array, new: Array) -> Array:
        return jnp.concatenate([row[1:], jnp.asarray(new, row.dtype)[None]])

    target = memory.target
    if discount is None:
        prompt = driver.value(observation)
    else:
        prompt = target = jnp.where(memory.time == 0, target, (target - reward) / discount)
    time = jnp.minimum(memory.time, driver.policy.embed_timestep.shape[0] - 1)
    context = memory.context
    context = Context(
        push(context.observations, observation),
        push(context.actions, jnp.zeros(context.actions.shape[1])),
        push(context.prompts, prompt / driver.prompt_scale),
        push(context.timesteps, time),
        push(context.present, jnp.asarray(True)),
    )
    action = driver.policy.newest(
        context.prompts, context.observations, context.actions, context.timesteps, context.present
    )
    if rerank:
        noise = RERANK_SPREAD * jax.random.normal(key, (rerank, action.shape[0]))
        # the policy's own action stands first, so that it wins a tie
        candidates = jnp.concatenate([action[None], jnp.clip(action + noise, -1.0, 1.0)])
        action = candidates[jnp.argmax(jax.vmap(lambda a: driver.critics(observation, a).min())(candidates))]
    context = context._replace(actions=context.actions.at[-1].set(action))
    return action, Memory(context, memory.time + 1, target)


def action_range(
    normaliser: Normaliser,
) -> tuple[Float[np.ndarray, "act"], Float[np.ndarray, "act"]]:
    """Half of the range of the actions, 1 where there is none, and its centre; logged units."""
    low, high = normaliser.action_low, normaliser.action_high
    half = (high - low) / np.float32(2)
    return np.where(half > 0, half, np.float32(1)), (high + low) / np.float32(2)


def widened(tree: Any) -> Any:
    """Float64 copies of the floating-point leaves; within ``jax.enable_x64`` alone."""
    floats = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64) if floats(leaf) else leaf, tree)


class Controller:
    """Acts for ``rows`` episodes at once in the task's own units; rows are grouped by trained seed.

    Computes in float64 and rounds the action to float32: what a sum comes to depends on the order of its
    terms, so on the number of rows and on the library, and contacts magnify the last bit of an action into
    another episode. Rounded from so far behind that bit, actions are equal. Learning stays float32: JAX is
    told to allow 64 bits in here only, and in this thread only.

    ``act(actor, memory, observation, reward, key) -> (action, memory)`` is written for one row in
    learner's units. ``actors`` and ``blank``, the memory before an episode, are stacked over seeds on
    the first axis. With S seeds, row i belongs to seed ``i // (rows / S)``. One row of one seed also
    takes and returns plain vectors. ``needs_reward`` tells policies that count down the return they
    were asked for.
    """

    def __init__(
        self,
        act: Callable[..., tuple[Array, Any]],
        actors: Any,
        blank: Any,
        seeds: int,
        normaliser: Normaliser,
        needs_reward: bool = False,
    ):
        self._normaliser, self._seeds, self.needs_reward = normaliser, seeds, needs_reward
        with jax.enable_x64(True):
            self._actors, self._blank = widened((actors, blank))

        def step(actors: Any, memory: Any, rows: Array, rewards: Array, time: Array) -> tuple[Array, Any]:
            key = jax.random.fold_in(jax.random.PRNGKey(0), time)
            keys = jax.random.split(key, rewards.shape)
            each = jax.vmap(jax.vmap(act, in_axes=(None, 0, 0, 0, 0)))
            return each(actors, memory, rows, rewards, keys)

        self._step = eqx.filter_jit(step)
        self.reset()

    def __repr__(self) -> str:
        """Sizes, seeds and rows."""
        observation, action = len(self._normaliser.observation_mean), len(self._normaliser.action_low)
        sizes = f"{observation} observation and {action} action dimensions"
        return f"<Controller: {sizes}, {self._shape[0]} seeds of {self._shape[1]} rows, step {self._time}>"

    def reset(self, rows: int | None = None) -> None:
        """Forget everything; ``rows`` episodes begin (default: one for each seed)."""
        rows = self._seeds if rows is None else rows
        if rows % self._seeds:
            raise ValueError(f"{rows} rows cannot be shared evenly by {self._seeds} seeds")
        self._shape = (self._seeds, rows // self._seeds)
        with jax.enable_x64(True):
            self._memory = jax.tree.map(
                lambda leaf: jnp.broadcast_to(leaf[:, None], (*self._shape, *leaf.shape[1:])), self._blank
            )
        self._time = 0

    def act(
        self, observations: Float[np.ndarray, "*rows obs"], rewards: Any = None
    ) -> Float[np.ndarray, "*rows act"]:
        """Actions for observations and the rewards of the step before, all in the task's units.

        Rewards, one number or one a row, are read where ``needs_reward``, and may be left out only at the
        first step after ``reset``, when all rows begin. IPD's policy reads none. Raises ``ValueError`` where
        they are missing, or the shape is not that of the rows that began.
        """
        if rewards is None and self.needs_reward and self._time:  # 0 would ask for the whole return for ever
            raise ValueError("the policy counts its return down: act(observation, reward of the step before)")
        raw, size = np.asarray(observations, np.float32), len(self._normaliser.observation_mean)
        rows = self._shape[0] * self._shape[1]
        if raw.shape[-1:] != (size,) or raw.size != rows * size:
            expected = f"({rows}, {size})" if rows > 1 else f"({size},)"
            message = f"observations of shape {raw.shape}, expected {expected}; reset(rows) sets the rows"
            raise ValueError(message)
        by = self._normaliser
        normal = (raw.astype(np.float64) - by.observation_mean) / by.observation_std
        earned = np.asarray(0 if rewards is None else rewards, np.float32)
        each = np.broadcast_to(earned, raw.shape[:-1]).reshape(self._shape)
        scaled = each.astype(np.float64) * by.reward_scale
        told = normal.reshape(*self._shape, -1), scaled, np.int32(self._time)
        with jax.enable_x64(True):
            now = jax.tree.map(jnp.asarray, told)
            actions, self._memory = self._step(self._actors, self._memory, *now)
        self._time += 1
        half, centre = action_range(by)
        inside = np.clip(np.asarray(actions) * half + centre, by.action_low, by.action_high)
        return inside.astype(np.float32).reshape(*raw.shape[:-1], -1)
