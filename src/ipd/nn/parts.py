"""Gradients of a large batch of windows, a part after another, where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ipd.nn.mlp import PRNG

TOKENS_AT_ONCE = 480
"""On a CPU: what the backward pass needs of more of them does not stay in the cache. All of a batch of 3,840
at once takes a seventh longer, a quarter on one core (docs/log.md)."""


def number_of_parts(windows: int, tokens: int) -> int:
    """Into how many equal parts a batch of so many windows, of so many tokens each, is best cut.

    One where equal parts would be small, as of a prime number of windows: many small ones cost more.
    """
    if jax.default_backend() != "cpu":
        return 1
    fits = (n for n in range(1, windows) if windows % n == 0 and windows // n * tokens <= TOKENS_AT_ONCE)
    number = next(fits, windows)
    return number if 2 * (windows // number) * tokens > TOKENS_AT_ONCE else 1


def summed(of: Callable[[Any, PRNG], Any], batch: Any, key: PRNG, parts: int) -> Any:
    """The sum of ``of(part, key)`` over so many equal parts of the batch's first axis, one after another."""
    cut = jax.tree.map(lambda leaf: leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:]), batch)
    keys = jax.random.split(key, parts)

    def add(sums: Any, each: tuple[Any, PRNG]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, of(*each)), None

    shapes = jax.eval_shape(of, jax.tree.map(lambda leaf: leaf[0], cut), keys[0])
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, nothing, (cut, keys))[0]
