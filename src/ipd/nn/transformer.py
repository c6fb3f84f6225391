"""A causal Transformer over one sequence of tokens; batches are made with vmap."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ipd.nn.mlp import PRNG, Linear, drop, einsum
from ipd.nn.norm import layer_norm


def _each(norm: eqx.nn.LayerNorm, x: Float[Array, "tokens width"]) -> Float[Array, "tokens width"]:
    return jax.vmap(lambda token: layer_norm(norm, token))(x)


class Block(eqx.Module):
    """Pre-norm self-attention and feed-forward, each with a residual path."""

    norm_attention: eqx.nn.LayerNorm
    qkv: Linear
    out: Linear
    norm_forward: eqx.nn.LayerNorm
    up: Linear
    down: Linear
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, key: PRNG):
        a, b, c, d = jax.random.split(key, 4)
        self.norm_attention, self.norm_forward = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width, a)
        self.out = Linear(width, width, b)
        self.up = Linear(width, 4 * width, c)
        self.down = Linear(4 * width, width, d)
        self.heads = heads

    def __call__(
        self,
        x: Float[Array, "tokens width"],
        visible: Bool[Array, "tokens tokens"],
        rate: float,
        key: PRNG | None,
        half: bool = False,
    ) -> Float[Array, "tokens width"]:
        """``visible[i, j]``: token i may look at token j; ``half``: products in bfloat16."""
        keys = (None, None, None) if key is None else tuple(jax.random.split(key, 3))
        q, k, v = self._heads(_each(self.norm_attention, x), half)
        scores = einsum("hid,hjd->hij", q * (q.shape[-1] ** -0.5), k, half)
        # a large finite number, not -inf: a row that sees nothing (padding) must stay finite
        weights = drop(jax.nn.softmax(jnp.where(visible[None], scores, -1e9)), rate, keys[0])
        mixed = einsum("hij,hjd->hid", weights, v, half).transpose(1, 0, 2).reshape(x.shape)
        x = x + drop(self.out(mixed, half), rate, keys[1])
        hidden = jax.nn.relu(self.up(_each(self.norm_forward, x), half))
        return x + drop(self.down(hidden, half), rate, keys[2])

    def _heads(
        self, normal: Float[Array, "tokens width"], half: bool = False
    ) -> Float[Array, "3 heads tokens size"]:
        """Queries, keys and values, made head by head: moving them there afterwards costs more."""
        shape, width = (3, self.heads, -1), normal.shape[-1]
        made = einsum("wchd,tw->chtd", self.qkv.weight.reshape(width, *shape), normal, half)
        return made + self.qkv.bias.reshape(shape)[:, :, None]

    def newest(self, x: Float[Array, "tokens width"], seen: Bool[Array, "tokens"]) -> Float[Array, "width"]:
        """What the last token becomes, without dropout; of the others only keys and values are asked.

        ``seen[j]``: it may look at token j.
        """
        q, k, v = self._heads(_each(self.norm_attention, x))
        scores = jnp.einsum("hd,hjd->hj", q[:, -1] * (q.shape[-1] ** -0.5), k)
        weights = jax.nn.softmax(jnp.where(seen[None], scores, -1e9))
        last = x[-1] + self.out(jnp.einsum("hj,hjd->hd", weights, v).reshape(-1))
        return last + self.down(jax.nn.relu(self.up(layer_norm(self.norm_forward, last))))


class Transformer(eqx.Module):
    """A stack of blocks between two LayerNorms."""

    norm_in: eqx.nn.LayerNorm
    blocks: tuple[Block, ...]
    norm_out: eqx.nn.LayerNorm

    def __init__(self, width: int, layers: int, heads: int, key: PRNG):
        self.norm_in, self.norm_out = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.blocks = tuple(Block(width, heads, k) for k in jax.random.split(key, layers))

    def __call__(
        self,
        x: Float[Array, "tokens width"],
        present: Bool[Array, "tokens"],
        rate: float = 0.0,
        key: PRNG | None = None,
        half: bool = False,
    ) -> Float[Array, "tokens width"]:
        """Token i sees the present tokens j <= i; ``half``: products in bfloat16."""
        return _each(self.norm_out, self._through(len(self.blocks), x, present, rate, key, half))

    def newest(
        self, x: Float[Array, "tokens width"], present: Bool[Array, "tokens"]
    ) -> Float[Array, "width"]:
        """The last row of ``__call__`` without dropout: the last block works for one token instead of all."""
        x = self._through(len(self.blocks) - 1, x, present, 0.0, None)
        return layer_norm(self.norm_out, self.blocks[-1].newest(x, present))

    def _through(
        self, count: int, x: Array, present: Array, rate: float, key: PRNG | None, half: bool = False
    ) -> Array:
        """Behind the first LayerNorm and the first ``count`` blocks."""
        tokens = x.shape[0]
        visible = jnp.tril(jnp.ones((tokens, tokens), bool)) & present[None, :]
        keys = [None] * len(self.blocks) if key is None else list(jax.random.split(key, len(self.blocks)))
        x = _each(self.norm_in, x)
        for block, k in zip(self.blocks[:count], keys[:count], strict=True):
            x = block(x, visible, rate, k, half)
        return x
