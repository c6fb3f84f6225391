"""Multi-layer perceptrons, for one example; stacked copies are made and applied with vmap."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

PRNG = Key[Array, ""] | UInt32[Array, "2"]


def drop(x: Float[Array, "*shape"], rate: float, key: PRNG | None) -> Float[Array, "*shape"]:
    """Dropout; the identity without a key (in use) or at rate 0."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


class MLP(eqx.Module):
    """Linear layers with ReLU between them, optionally LayerNorm before each ReLU.

    Maps ``(inputs,)`` to ``(outputs,)``.
    """

    layers: tuple[eqx.nn.Linear, ...]
    norms: tuple[eqx.nn.LayerNorm, ...]

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], outputs: int, key: PRNG, layer_norm: bool = False
    ):
        sizes = (inputs, *hidden, outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(
            eqx.nn.Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )
        self.norms = tuple(eqx.nn.LayerNorm(size) for size in hidden) if layer_norm else ()

    def __call__(
        self, x: Float[Array, "inputs"], dropout: float = 0.0, key: PRNG | None = None
    ) -> Float[Array, "outputs"]:
        """Output for one input; ``dropout`` acts after each ReLU when a key is given."""
        keys = [None] * len(self.layers) if key is None else list(jax.random.split(key, len(self.layers)))
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x)
            x = drop(jax.nn.relu(x), dropout, keys[i])
        return self.layers[-1](x)
