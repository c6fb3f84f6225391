"""What a policy would do at every logged step, the logged past being its own.

Rows are *laid out* with one more behind every episode: the state that its last step led to. Then the action
at the next state of a step is that of the row after it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from numpy.typing import NDArray

from ipd.data.windows import window_rows
from ipd.policy.act import Driver
from ipd.types import Steps

BATCH = 4_096


class Layout(NamedTuple):
    """N logged steps of E episodes in N + E rows."""

    observations: NDArray[np.float32]
    """(N + E, obs), normalised."""
    actions: NDArray[np.float32]
    """(N + E, act) logged ones; 0 behind an episode, where none was taken."""
    episode_start: NDArray[np.int32]
    """(N + E,) row of the first state of the same episode."""
    logged: NDArray[np.int64]
    """(N,) row of each logged step; the state it led to is in the next one."""


def layout(steps: Steps, starts: NDArray[np.int64]) -> Layout:
    """``starts`` (E + 1,) are the first rows of the episodes in ``steps`` (NumPy), then N."""
    lengths = np.diff(starts)
    logged = np.arange(starts[-1]) + np.repeat(np.arange(len(lengths)), lengths)
    rows = int(starts[-1]) + len(lengths)
    behind = starts[1:] + np.arange(len(lengths))
    observations = np.zeros((rows, steps.observations.shape[1]), np.float32)
    observations[logged] = steps.observations
    observations[behind] = np.asarray(steps.next_observations)[starts[1:] - 1]
    actions = np.zeros((rows, steps.actions.shape[1]), np.float32)
    actions[logged] = steps.actions
    first = np.repeat(starts[:-1] + np.arange(len(lengths)), lengths + 1)
    return Layout(observations, actions, first.astype(np.int32), logged)


def sequence_actions(driver: Driver, context_len: int, rows: Layout) -> NDArray[np.float32]:
    """(N + E, act): the sequence policy's actions, each with the logged steps before it as its context.

    As in use the prompt is V(s) / std(V), and a timestep beyond the table is the table's last.
    """
    data = tuple(jnp.asarray(each) for each in rows[:3])
    total = len(rows.observations)
    parts = []
    for begin in range(0, total, BATCH):
        at = np.minimum(np.arange(begin, begin + BATCH), total - 1)
        parts.append(np.asarray(_windowed(driver, context_len, data, jnp.asarray(at, jnp.int32))))
    return np.concatenate(parts)[:total]


@eqx.filter_jit
def _windowed(driver: Driver, context_len: int, data: tuple[Array, ...], at: Int[Array, "batch"]) -> Array:
    observations, actions, episode_start = data
    start = episode_start[at]
    rows, present = window_rows(at, start, context_len)
    seen = observations[rows]
    prompts = jax.vmap(jax.vmap(driver.value))(seen) / driver.prompt_scale
    times = jnp.minimum(rows - start[:, None], driver.policy.embed_timestep.shape[0] - 1)
    return jax.vmap(driver.policy.newest)(prompts, seen, actions[rows], times, present)


@eqx.filter_jit
def _each(act: Any, actor: Any, memory: Any, observations: Array, key: Array) -> Array:
    keys, zero = jax.random.split(key, len(observations)), jnp.zeros(())
    return jax.vmap(lambda row, key: act(actor, memory, row, zero, key)[0])(observations, keys)


def memoryless_actions(act: Any, actor: Any, memory: Any, rows: Layout) -> NDArray[np.float32]:
    """(N + E, act) of a policy that sees the state alone; ``act(actor, memory, observation, reward, key)``
    is written for one row.
    """
    total, parts = len(rows.observations), []
    for begin in range(0, total, BATCH):
        at = np.minimum(np.arange(begin, begin + BATCH), total - 1)
        parts.append(
            np.asarray(
                _each(act, actor, memory, jnp.asarray(rows.observations[at]), jax.random.PRNGKey(begin))
            )
        )
    return np.concatenate(parts)[:total]
