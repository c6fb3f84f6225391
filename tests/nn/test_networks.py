"""Networks against NumPy, and who sees whom in the Transformer."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled, layer_norm, leaves, mlp

from ipd.nn.mlp import MLP, Linear, drop, random_bits
from ipd.nn.norm import layer_norm as own_layer_norm
from ipd.nn.transformer import Block, Transformer

TOKENS, WIDTH, HEADS = 7, 12, 3


@pytest.mark.parametrize("normed", [False, True])
def test_mlp_is_that_of_numpy(normed: bool) -> None:
    net = filled(lambda key: MLP(5, (7, 11), 3, key, layer_norm=normed), 0)
    x = np.random.default_rng(0).normal(size=(13, 5)).astype(np.float32)
    plain, _ = mlp(leaves(net), x, depth=3)
    np.testing.assert_allclose(jax.jit(jax.vmap(net))(x), plain, rtol=1e-4, atol=1e-5)


def test_dropout_keeps_the_mean_and_rests_without_a_key() -> None:
    ones = jnp.ones(4_096)
    dropped = drop(ones, 0.25, jax.random.key(0))
    np.testing.assert_allclose(np.unique(dropped), [0.0, 4.0 / 3.0], rtol=1e-6)
    assert abs(float(dropped.mean()) - 1.0) < 0.05
    np.testing.assert_array_equal(drop(ones, 0.25, None), ones)
    np.testing.assert_array_equal(drop(ones, 0.0, jax.random.key(0)), ones)


def test_random_bits_are_even_and_strangers_to_each_other() -> None:
    many = [np.asarray(random_bits(jax.random.key(seed), (64, 101)), np.int64) for seed in (0, 1)]
    for bits in many:
        assert bits.min() >= 0 and bits.max() < 2**16
        # every one of the sixteen, one half of the time: four standard deviations of 6,464 draws
        shares = (bits[..., None] >> np.arange(16) & 1).mean(axis=(0, 1))
        assert np.abs(shares - 0.5).max() < 0.025
        # 256 bins of 25: chi-square with 255 degrees of freedom
        found = np.bincount((bits >> 8).ravel(), minlength=256)
        assert abs(((found - found.mean()) ** 2 / found.mean()).sum() - 255) < 5 * np.sqrt(2 * 255)
    a, b = (bits - bits.mean() for bits in many)
    pairs = {"keys": (a, b), "neighbours": (a[:, 1:], a[:, :-1]), "rows": (a[1:], a[:-1]),
             "halves": (a[:, 51:], a[:, :50])}  # fmt: skip
    for name, (one, other) in pairs.items():
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.06, name


def test_random_bits_of_old_keys_are_those_of_new_ones() -> None:
    new, old = jax.random.key(3), jax.random.PRNGKey(3)
    np.testing.assert_array_equal(random_bits(new, (5, 3)), random_bits(old, (5, 3)))
    assert len(np.unique(jax.vmap(lambda k: random_bits(k, (3,)))(jax.random.split(new, 9)))) > 20


def test_linear_is_the_library_s_layer_with_its_start() -> None:
    """The same numbers from the same key, the weight turned over; one vector, rows, and rows of rows."""
    mine, theirs = Linear(5, 3, key=jax.random.key(0)), eqx.nn.Linear(5, 3, key=jax.random.key(0))
    np.testing.assert_array_equal(mine.weight, theirs.weight.T)
    np.testing.assert_array_equal(mine.bias, theirs.bias)
    x = jax.random.normal(jax.random.key(1), (2, 7, 5))
    np.testing.assert_allclose(mine(x), jax.vmap(jax.vmap(theirs))(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mine(x[0, 0]), theirs(x[0, 0]), rtol=1e-5, atol=1e-6)


def test_layer_norm_and_its_gradients_are_those_of_the_library() -> None:
    """Weights of two members, each shared by its rows: what the world model does."""
    norms = jax.vmap(lambda w, b: eqx.tree_at(lambda n: (n.weight, n.bias), eqx.nn.LayerNorm(6), (w, b)))(
        *jax.random.normal(jax.random.key(0), (2, 2, 6))
    )
    x, by = jax.random.normal(jax.random.key(1), (2, 2, 9, 6))
    x = x.at[0, 0].set(4.0)  # no variance at all

    def summed(norms: eqx.nn.LayerNorm, x: jax.Array, mine: bool) -> jax.Array:
        one = own_layer_norm if mine else lambda norm, row: norm(row)
        return (jax.vmap(lambda norm, rows: jax.vmap(lambda row: one(norm, row))(rows))(norms, x) * by).sum()

    found, wanted = (jax.value_and_grad(summed, (0, 1))(norms, x, mine) for mine in (True, False))
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-5)


def plain_block(p: list[np.ndarray], x: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """One block head by head and token by token; ``p`` in the order of the module's fields."""
    (g1, b1, w_qkv, b_qkv, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down) = p
    size = WIDTH // HEADS
    qkv = layer_norm(x, g1, b1)[0] @ w_qkv + b_qkv
    q, k, v = qkv[:, :WIDTH], qkv[:, WIDTH : 2 * WIDTH], qkv[:, 2 * WIDTH :]
    mixed = np.zeros_like(x)
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            seen = np.flatnonzero(visible[i])
            scores = np.exp([q[i, part] @ k[j, part] / np.sqrt(size) for j in seen])
            mixed[i, part] = (scores / scores.sum()) @ v[seen, part]
    x = x + mixed @ w_out + b_out
    return x + np.maximum(layer_norm(x, g2, b2)[0] @ w_up + b_up, 0.0) @ w_down + b_down


def test_block_is_that_of_numpy() -> None:
    block = filled(lambda key: Block(WIDTH, HEADS, key), 1)
    x = np.random.default_rng(1).normal(size=(TOKENS, WIDTH)).astype(np.float32)
    visible = np.tril(np.ones((TOKENS, TOKENS), bool))
    said = jax.jit(lambda x: block(x, jnp.asarray(visible), 0.0, None))(x)
    np.testing.assert_allclose(said, plain_block(leaves(block), x, visible), rtol=1e-4, atol=1e-5)


def influence(present: jax.Array) -> np.ndarray:
    """Whether output i moves with input j, ``(tokens, tokens)``, from the Jacobian."""
    net = filled(lambda key: Transformer(WIDTH, 2, HEADS, key), 2)
    x = jax.random.normal(jax.random.key(3), (TOKENS, WIDTH))
    jacobian = jax.jit(jax.jacrev(lambda x: net(x, present)))(x)
    return np.abs(np.asarray(jacobian)).max(axis=(1, 3)) > 1e-9


def test_a_token_sees_itself_and_every_earlier_one_and_no_later_one() -> None:
    np.testing.assert_array_equal(influence(jnp.ones(TOKENS, bool)), np.tril(np.ones((TOKENS, TOKENS), bool)))


def test_padding_is_never_seen_and_stays_finite() -> None:
    present = jnp.arange(TOKENS) >= 2
    moves = influence(present)
    np.testing.assert_array_equal(
        moves[2:], np.tril(np.ones((TOKENS, TOKENS), bool))[2:] & np.asarray(present)
    )
