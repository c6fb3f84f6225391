"""Multi-layer perceptrons, for one example; stacked copies are made and applied with vmap."""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from ipd.nn.norm import layer_norm

PRNG = Key[Array, ""] | UInt32[Array, "2"]


def drop(x: Float[Array, "*shape"], rate: float, key: PRNG | None) -> Float[Array, "*shape"]:
    """Dropout; the identity without a key (in use) or at rate 0."""
    if key is None or rate == 0.0:
        return x
    keep = random_bits(key, x.shape) >= round(rate * 2**16)
    return jnp.where(keep, x / (1.0 - rate), 0.0)


def random_bits(key: PRNG, shape: tuple[int, ...]) -> UInt32[Array, "*shape"]:
    """Uniform numbers below 2^16, one an element.

    The key's words and the element's number, mixed twice by Wellons' "lowbias32". JAX's own generator is
    made for more than dropout asks for, and takes a tenth of a Transformer's training time on a CPU.
    """
    first, second = jax.random.key_data(key)
    half = (*shape[:-1], -(-shape[-1] // 2))
    number = jax.lax.iota(jnp.uint32, math.prod(half)).reshape(half)
    words = _mix(_mix(number ^ first) ^ second)
    return jnp.concatenate([words & 0xFFFF, words >> 16], axis=-1)[..., : shape[-1]]


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def einsum(what: str, a: Array, b: Array, half: bool) -> Array:
    """``jnp.einsum``; with ``half`` in bfloat16, its gradients too. The result has the type of ``a``.

    Tensor cores add such products up in float32 and round the sum: 8 bits, a relative error of 0.4 %.
    """
    if not half:
        return jnp.einsum(what, a, b)
    return jnp.einsum(what, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)).astype(a.dtype)


class Linear(eqx.Module):
    """Rows times ``weight``, plus ``bias``.

    Equinox's own layer keeps the weight the other way round and takes one vector: vmapped it multiplies
    columns and turns them over, and a product of rows would turn the weight over at every call.
    """

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, "outputs"]

    def __init__(self, inputs: int, outputs: int, key: PRNG):
        a, b = jax.random.split(key)
        limit = 1.0 / math.sqrt(inputs)
        self.weight = jax.random.uniform(a, (outputs, inputs), minval=-limit, maxval=limit).T
        self.bias = jax.random.uniform(b, (outputs,), minval=-limit, maxval=limit)

    def __call__(self, x: Float[Array, "*rows inputs"], half: bool = False) -> Float[Array, "*rows outputs"]:
        """Output for one vector, or for every row; ``half``: see ``einsum``."""
        product = einsum("...i,io->...o", x, self.weight, half=half) if half else x @ self.weight
        return product + jnp.broadcast_to(self.bias, product.shape)


class MLP(eqx.Module):
    """Linear layers with ReLU between them, optionally LayerNorm before each ReLU.

    Maps ``(inputs,)`` to ``(outputs,)``.
    """

    layers: tuple[Linear, ...]
    norms: tuple[eqx.nn.LayerNorm, ...]

    def __init__(
        self, inputs: int, hidden: tuple[int, ...], outputs: int, key: PRNG, layer_norm: bool = False
    ):
        sizes = (inputs, *hidden, outputs)
        keys = jax.random.split(key, len(sizes) - 1)
        self.layers = tuple(Linear(a, b, k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True))
        self.norms = tuple(eqx.nn.LayerNorm(size) for size in hidden) if layer_norm else ()

    def __call__(
        self, x: Float[Array, "inputs"], dropout: float = 0.0, key: PRNG | None = None
    ) -> Float[Array, "outputs"]:
        """Output for one input; ``dropout`` acts after each ReLU when a key is given."""
        keys = [None] * len(self.layers) if key is None else list(jax.random.split(key, len(self.layers)))
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if self.norms:
                x = layer_norm(self.norms[i], x)
            x = drop(jax.nn.relu(x), dropout, keys[i])
        return self.layers[-1](x)
