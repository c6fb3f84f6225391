"""A temporal U-Net: 1-D convolutions over one sequence, told of a moment of noise and of a label.

The network of Janner et al. (2022) and Ajay et al. (2023): residual blocks of two convolutions with
5 taps, GroupNorm and Mish; every block's first convolution is shifted by an embedding. A sequence is
``(time, channels)`` and a convolution is a matrix product over gathered neighbours: XLA has no fast
grouped convolution on a CPU, which is what a convolution becomes when seeds are vmapped.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ipd.nn.mlp import PRNG, Linear

TAPS = 5
GROUPS = 8
"""Of channels that are normalised together; every width is a multiple of it."""


def mish(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x tanh(log(1 + e^x)) (Misra, 2019), with one exponential."""
    # beyond 20 the factor is 1 in float32, and e^x must not overflow
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * n / (n + 2.0)


def sinusoids(x: Float[Array, ""], width: int) -> Float[Array, "width"]:
    """Sines and cosines of ``x`` at ``width / 2`` frequencies from 1 to 1/10000 (Vaswani et al., 2017)."""
    frequencies = jnp.exp(jnp.linspace(0.0, -jnp.log(10_000.0), width // 2))
    return jnp.concatenate([jnp.sin(x * frequencies), jnp.cos(x * frequencies)])


class Conv(eqx.Module):
    """Convolution over time with an odd number of taps; zeros stand outside the sequence."""

    linear: Linear
    taps: int = eqx.field(static=True)

    def __init__(self, inputs: int, outputs: int, taps: int, key: PRNG):
        self.linear = Linear(taps * inputs, outputs, key)
        self.taps = taps

    def __call__(self, x: Float[Array, "time inputs"], stride: int = 1) -> Float[Array, "shorter outputs"]:
        """Every ``stride``-th output; the first is centred on the first input."""
        side = self.taps // 2
        padded = jnp.pad(x, ((side, side), (0, 0)))
        near = jnp.concatenate([padded[i : i + len(x) : stride] for i in range(self.taps)], axis=1)
        return self.linear(near)


class ConvBlock(eqx.Module):
    """Convolution, GroupNorm, Mish."""

    conv: Conv
    scale: Float[Array, "outputs"]
    shift: Float[Array, "outputs"]

    def __init__(self, inputs: int, outputs: int, key: PRNG):
        self.conv = Conv(inputs, outputs, TAPS, key)
        self.scale, self.shift = jnp.ones(outputs), jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "time inputs"]) -> Float[Array, "time outputs"]:
        """Same length."""
        y = self.conv(x)
        grouped = y.reshape(len(y), GROUPS, -1)
        mean = grouped.mean(axis=(0, 2), keepdims=True)
        variance = jnp.square(grouped - mean).mean(axis=(0, 2), keepdims=True)
        y = ((grouped - mean) * jax.lax.rsqrt(variance + 1e-5)).reshape(y.shape)
        return mish(y * self.scale[None] + self.shift[None])


class Residual(eqx.Module):
    """Two convolutions beside a straight path; the embedding shifts every moment between them."""

    first: ConvBlock
    second: ConvBlock
    embed: Linear
    straight: Conv | None
    """None where the number of channels stays."""

    def __init__(self, inputs: int, outputs: int, embedding: int, key: PRNG):
        a, b, c, d = jax.random.split(key, 4)
        self.first, self.second = ConvBlock(inputs, outputs, a), ConvBlock(outputs, outputs, b)
        self.embed = Linear(embedding, outputs, c)
        self.straight = None if inputs == outputs else Conv(inputs, outputs, 1, d)

    def __call__(
        self, x: Float[Array, "time inputs"], embedding: Float[Array, "embedding"]
    ) -> Float[Array, "time outputs"]:
        """Same length."""
        y = self.second(self.first(x) + self.embed(mish(embedding))[None])
        return y + (x if self.straight is None else self.straight(x))


class Embed(eqx.Module):
    """Two layers with Mish between and four times the width there."""

    up: Linear
    down: Linear

    def __init__(self, inputs: int, width: int, key: PRNG):
        a, b = jax.random.split(key)
        self.up = Linear(inputs, 4 * width, a)
        self.down = Linear(4 * width, width, b)

    def __call__(self, x: Float[Array, "inputs"]) -> Float[Array, "width"]:
        """Embedding of a vector."""
        return self.down(mish(self.up(x)))


class UNet(eqx.Module):
    """Maps a sequence to one of its own shape, given a moment and a label that may be hidden.

    ``multipliers`` times ``width`` are the channels of the levels; each level but the last halves the
    length, which is a multiple of ``2 ** (levels - 1)``. Raises ``ValueError`` for a width that the
    groups of the normalisation do not divide.
    """

    embed_time: Embed
    embed_label: Embed
    down: tuple[tuple[Residual, Residual], ...]
    shrink: tuple[Conv, ...]
    middle: tuple[Residual, Residual]
    up: tuple[tuple[Residual, Residual], ...]
    grow: tuple[Conv, ...]
    last: ConvBlock
    out: Conv
    width: int = eqx.field(static=True)

    def __init__(self, channels: int, width: int, multipliers: tuple[int, ...], key: PRNG):
        if width % GROUPS:
            raise ValueError(f"a width of {width} is no multiple of {GROUPS}")
        sizes = [width * multiplier for multiplier in multipliers]
        keys = iter(jax.random.split(key, 6 * len(sizes) + 6))
        self.width = width
        self.embed_time, self.embed_label = Embed(width, width, next(keys)), Embed(1, width, next(keys))

        def pair(inputs: int, outputs: int) -> tuple[Residual, Residual]:
            return (
                Residual(inputs, outputs, 2 * width, next(keys)),
                Residual(outputs, outputs, 2 * width, next(keys)),
            )

        self.down = tuple(pair(a, b) for a, b in zip([channels, *sizes[:-1]], sizes, strict=True))
        self.shrink = tuple(Conv(size, size, 3, next(keys)) for size in sizes[:-1])
        self.middle = pair(sizes[-1], sizes[-1])
        upwards = list(zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.up = tuple(pair(2 * a, b) for a, b in upwards)
        self.grow = tuple(Conv(b, 2 * b, 3, next(keys)) for _, b in upwards)
        self.last, self.out = ConvBlock(width, width, next(keys)), Conv(width, channels, 1, next(keys))

    def __call__(
        self,
        x: Float[Array, "time channels"],
        moment: Float[Array, ""],
        label: Float[Array, ""],
        shown: Bool[Array, ""],
    ) -> Float[Array, "time channels"]:
        """``shown`` false hides the label: its embedding becomes zero."""
        labelled = jnp.where(shown, self.embed_label(label[None]), 0.0)
        embedding = jnp.concatenate([self.embed_time(sinusoids(moment, self.width)), labelled])
        kept = []
        for level, (first, second) in enumerate(self.down):
            x = second(first(x, embedding), embedding)
            kept.append(x)
            x = self.shrink[level](x, stride=2) if level < len(self.shrink) else x
        for block in self.middle:
            x = block(x, embedding)
        for (first, second), grow in zip(self.up, self.grow, strict=True):
            x = second(first(jnp.concatenate([x, kept.pop()], axis=1), embedding), embedding)
            # each moment makes two: the published transposed convolution, written as a product
            x = grow(x).reshape(2 * len(x), -1)
        return self.out(self.last(x))
