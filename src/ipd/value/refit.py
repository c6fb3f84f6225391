"""Values refitted on the enriched data: policy iteration in imagination (a lever beyond the paper).

The same updates as ``value.learn``, going on from its finished state, on batches of which a share
are imagined steps. The imagined steps show Q and V what follows better actions than the logged ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from ipd.config import ValueConfig
from ipd.nn.mlp import PRNG
from ipd.types import Steps
from ipd.value.learn import State


class Data(NamedTuple):
    """Logged steps, shared by the seeds, and each seed's own imagined steps, padded to one number."""

    logged: Steps
    imagined: Steps
    total: Int[Array, ""]
    """Imagined steps that are real, the first ones; the rest is padding and never drawn."""


DATA_AXES = Data(None, 0, 0)  # type: ignore[arg-type]
"""Which leaves carry a seed axis, for vmap."""


def restart(config: ValueConfig, state: State) -> State:
    """``state`` with a fresh policy optimiser, so that its cosine schedule begins again."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    return state._replace(policy_optimiser=optax.adam(schedule).init(state.policy))


def stack_seeds(parts: Sequence[Steps]) -> tuple[Steps, Int[np.ndarray, "seeds"]]:
    """Every seed's imagined steps on a new first axis, padded to one number, and how many are real; NumPy."""
    counts = [len(part.rewards) for part in parts]

    def stacked(*leaves: Any) -> Any:
        if not leaves[1:]:  # one seed alone needs no copy
            return np.asarray(leaves[0])[None]
        return np.stack([np.pad(x, [(0, max(counts) - len(x)), *[(0, 0)] * (x.ndim - 1)]) for x in leaves])

    steps: Steps = jax.tree.map(stacked, *parts)
    return steps, np.asarray(counts, np.int32)


def draw(share: float, config: ValueConfig, data: Data, key: PRNG) -> Steps:
    """A batch of logged and, to that ``share``, imagined steps, each uniformly with replacement."""
    keys = jax.random.split(key)
    dreams = round(share * config.batch_size)
    rows = jax.random.randint(keys[0], (config.batch_size - dreams,), 0, data.logged.rewards.shape[0])
    dreamed = jax.random.randint(keys[1], (dreams,), 0, data.total)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[rows], b[dreamed]]), data.logged, data.imagined)
