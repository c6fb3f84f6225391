"""Where the training loop's arrays lie when this machine has several devices.

Seeds know nothing of each other, so their axis is spread where it can be divided; a single seed spreads the
batch of each update instead. With one device, or where nothing can be divided, all stays as it was.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

SEEDS, BATCH = "seeds", "batch"


class Layout(NamedTuple):
    """Devices in a row, and what is spread along it."""

    mesh: Mesh
    axis: str
    """`SEEDS` or `BATCH`."""

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Of an array whose leading axes are these."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def layout(seeds: int) -> Layout | None:
    """For so many seeds on all local devices; None where one device does it all."""
    devices = jax.local_devices()
    if seeds == 1:
        return Layout(Mesh(np.array(devices), (BATCH,)), BATCH) if len(devices) > 1 else None
    used = max(count for count in range(1, len(devices) + 1) if seeds % count == 0)
    return Layout(Mesh(np.array(devices[:used]), (SEEDS,)), SEEDS) if used > 1 else None


def _of_seeds(where: Layout) -> NamedSharding:
    return where.sharding(SEEDS) if where.axis == SEEDS else where.sharding()


def place(where: Layout | None, state: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
    """State and keys, which every seed has its own of, on their devices."""
    if where is None:
        return state, keys
    return jax.device_put((state, keys), _of_seeds(where))


def place_data(where: Layout | None, data_axes: Any, data: Any) -> Any:
    """Data on their devices; `data_axes` is 0 where a leaf has a seed axis, None where all share it."""
    if where is None:
        return jax.tree.map(jnp.asarray, data)

    def spread(axis: int | None, leaves: Any) -> Any:
        return jax.device_put(leaves, _of_seeds(where) if axis == 0 else where.sharding())

    return jax.tree.map(spread, data_axes, data, is_leaf=lambda axis: axis is None)


def spread_batch(where: Layout | None, batch: Any, axis: int) -> Any:
    """Within an update of a single seed: its batch, rows on `axis` of each leaf, shared among the devices."""
    if where is None or where.axis != BATCH:
        return batch
    sharding = where.sharding(*[None] * axis, BATCH)
    count = where.mesh.size

    def spread(leaf: jax.Array) -> jax.Array:
        divides = leaf.ndim > axis and leaf.shape[axis] % count == 0
        return jax.lax.with_sharding_constraint(leaf, sharding) if divides else leaf

    return jax.tree.map(spread, batch)
