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

from ipd.baselines.sequences import chosen
from ipd.data.windows import window_rows
from ipd.policy.act import Driver
from ipd.types import Steps

BATCH = 4_096
EPISODES, TOGETHER = 256, 1 << 20
"""Episodes followed side by side, at most, and the steps that they have together."""


class Layout(NamedTuple):
    """N logged steps of E episodes in N + E rows."""

    observations: NDArray[np.float32]
    """(N + E, obs), normalised."""
    actions: NDArray[np.float32]
    """(N + E, act) logged ones; 0 behind an episode, where none was taken."""
    heard: NDArray[np.float32]
    """(N + E,) scaled reward of the step before; 0 at an episode's first."""
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
    heard = np.zeros(rows, np.float32)
    heard[logged + 1] = steps.rewards
    first = np.repeat(starts[:-1] + np.arange(len(lengths)), lengths + 1)
    return Layout(observations, actions, heard, first.astype(np.int32), logged)


def sequence_actions(driver: Driver, context_len: int, rows: Layout) -> NDArray[np.float32]:
    """(N + E, act): the sequence policy's actions, each with the logged steps before it as its context.

    As in use the prompt is V(s) / std(V), and a timestep beyond the table is the table's last.
    """
    data = tuple(jnp.asarray(each) for each in (rows.observations, rows.actions, rows.episode_start))
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


def remembered_actions(act: Any, actor: Any, blank: Any, rows: Layout) -> NDArray[np.float32]:
    """(N + E, act) of a policy whose memory is a ``baselines.sequences.Context``, ``blank`` at first.

    It hears the logged rewards, and remembers the logged action in place of its own; ``act`` as in
    ``memoryless_actions``.
    """
    starts, lengths = np.unique(rows.episode_start, return_counts=True)
    found = np.zeros_like(rows.actions)
    order = np.argsort(-lengths, kind="stable")  # episodes of like length side by side
    begin = 0
    while begin < len(order):
        longest = 1 << int(lengths[order[begin]] - 1).bit_length()  # few lengths, few programs to compile
        count = min(EPISODES, max(1, TOGETHER // longest), len(order))
        part = np.resize(order[begin : begin + count], count)
        steps = np.arange(longest)[:, None]
        at = starts[part] + np.minimum(steps, lengths[part] - 1)
        seen = tuple(jnp.asarray(each[at]) for each in (rows.observations, rows.heard, rows.actions))
        key = jax.random.fold_in(jax.random.key(0), begin)
        said = np.asarray(_followed(act, actor, blank, seen, key))
        inside = steps < lengths[part]
        found[at[inside]] = said[inside]
        begin += count
    return found


@eqx.filter_jit
def _followed(act: Any, actor: Any, blank: Any, seen: tuple[Array, ...], key: Array) -> Array:
    episodes = seen[0].shape[1]
    memory = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (episodes, *leaf.shape)), blank)

    def step(memory: Any, now: tuple[Array, ...]) -> tuple[Any, Array]:
        observation, heard, logged, key = now
        each = jax.vmap(act, in_axes=(None, 0, 0, 0, 0))
        action, memory = each(actor, memory, observation, heard, jax.random.split(key, episodes))
        return jax.vmap(chosen)(memory, logged), action

    keys = jax.random.split(key, len(seen[0]))
    actions: Array = jax.lax.scan(step, memory, (*seen, keys))[1]
    return actions


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
