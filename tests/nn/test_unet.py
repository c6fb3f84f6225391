"""The temporal U-Net: convolutions against a plain loop, who sees whom, and what is hidden."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled

from ipd.nn.unet import Conv, ConvBlock, Residual, UNet, mish


@pytest.mark.parametrize(("taps", "stride"), [(5, 1), (3, 2), (1, 1)])
def test_convolution_is_a_plain_loop(taps: int, stride: int) -> None:
    conv = filled(lambda key: Conv(3, 4, taps, key), 0)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    weight = np.asarray(conv.linear.weight).reshape(taps, 3, 4)
    plain = np.tile(np.asarray(conv.linear.bias), (8, 1))
    for time in range(8):
        for tap in range(taps):
            source = time + tap - taps // 2
            if 0 <= source < 8:
                plain[time] += x[source] @ weight[tap]
    np.testing.assert_allclose(conv(jnp.asarray(x), stride), plain[::stride], rtol=1e-4, atol=1e-5)


def test_mish_is_x_tanh_softplus_and_stays_finite() -> None:
    x = jnp.array([-90.0, -5.0, -0.5, 0.0, 0.5, 5.0, 19.0, 21.0, 90.0])
    np.testing.assert_allclose(mish(x), x * np.tanh(np.log1p(np.exp(np.float64(x)))), rtol=1e-5, atol=1e-7)
    slopes = jax.vmap(jax.grad(mish))(x)
    np.testing.assert_allclose(np.asarray(slopes)[[0, -2, -1]], [0.0, 1.0, 1.0], atol=1e-5)


def plain_block(block: ConvBlock, x: np.ndarray) -> np.ndarray:
    y = np.asarray(block.conv(jnp.asarray(x, jnp.float32)), np.float64)
    for group in np.split(np.arange(y.shape[1]), 8):
        part = y[:, group]
        y[:, group] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    y = y * np.asarray(block.scale) + np.asarray(block.shift)
    return y * np.tanh(np.log1p(np.exp(y)))


def test_residual_block_is_that_of_numpy() -> None:
    block = filled(lambda key: Residual(3, 16, 6, key), 1)
    random = np.random.default_rng(1)
    x, embedding = random.normal(size=(5, 3)), random.normal(size=6)
    pushed = embedding * np.tanh(np.log1p(np.exp(embedding)))
    shift = pushed @ np.asarray(block.embed.weight) + np.asarray(block.embed.bias)
    plain = plain_block(block.second, plain_block(block.first, x) + shift)
    plain += x @ np.asarray(block.straight.linear.weight) + np.asarray(block.straight.linear.bias)
    said = block(jnp.asarray(x, jnp.float32), jnp.asarray(embedding, jnp.float32))
    np.testing.assert_allclose(said, plain, rtol=1e-3, atol=1e-4)


def test_output_is_local_and_told_of_moment_and_label_unless_hidden() -> None:
    net = filled(lambda key: UNet(3, 8, (1, 2), key), 2, size=0.2)
    x = jax.random.normal(jax.random.key(3), (128, 3))

    @jax.jit
    def out(x: jax.Array, moment: float, label: float, shown: bool) -> jax.Array:
        return net(x, jnp.asarray(moment), jnp.asarray(label), jnp.asarray(shown))

    base = out(x, 3.0, 0.2, True)
    assert base.shape == (128, 3)
    assert np.abs(base - out(x, 4.0, 0.2, True)).max() > 1e-3
    assert np.abs(base - out(x, 3.0, 0.9, True)).max() > 1e-3
    np.testing.assert_array_equal(out(x, 3.0, 0.2, False), out(x, 3.0, 0.9, False))
    # far from a change only the normalisation, which all share, moves the output
    moved = np.abs(out(x.at[20].add(1.0), 3.0, 0.2, True) - base).mean(axis=1)
    assert moved[18:23].mean() > 10.0 * moved[84:].mean() > 0.0


def test_a_width_that_the_groups_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a width of 12 is no multiple of 8"):
        UNet(3, 12, (1, 2), jax.random.key(0))
