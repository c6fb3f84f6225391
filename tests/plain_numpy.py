"""Networks, their gradients and Adam in plain NumPy, to hold the learners against.

A network is the flat list of its arrays in the order of ``jax.tree.leaves``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Arrays = list[np.ndarray]
NORM_EPSILON = 1e-5


def filled(make: Callable[[jax.Array], Any], seed: int, size: float = 0.4) -> Any:
    """What ``make(key)`` would return, with normal numbers of this size for its floats and else zeros.

    Nothing of ``make`` is compiled, and gains and biases differ from their start values.
    """
    random = np.random.default_rng(seed)

    def numbers(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return jnp.asarray(
            size * random.normal(size=leaf.shape) if real else np.zeros(leaf.shape), leaf.dtype
        )

    return jax.tree.map(numbers, jax.eval_shape(make, jax.random.key(0)))


def leaves(tree: Any) -> Arrays:
    """Copies of a pytree's arrays."""
    return [np.array(leaf) for leaf in jax.tree.leaves(tree)]


def member(tree: Any, index: int) -> Arrays:
    """Arrays of one network of a stack."""
    return [np.array(leaf[index]) for leaf in jax.tree.leaves(tree)]


def layer_norm(x: np.ndarray, gain: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Callable]:
    """LayerNorm over the last axis, and its gradient as (dx, dgain, dbias)."""
    centred = x - x.mean(-1, keepdims=True)
    scale = 1.0 / np.sqrt((centred**2).mean(-1, keepdims=True) + NORM_EPSILON)
    normal = centred * scale

    def back(g: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        d = g * gain
        along = normal * (d * normal).mean(-1, keepdims=True)
        return scale * (d - d.mean(-1, keepdims=True) - along), (g * normal).sum(0), g.sum(0)

    return normal * gain + bias, back


def mlp(params: Arrays, x: np.ndarray, depth: int) -> tuple[np.ndarray, Callable[[np.ndarray], Arrays]]:
    """Output for a batch, and the function from its gradient to those of ``params``.

    ``depth`` linear layers (weight, bias); then, if any, gain and bias of a LayerNorm for each
    hidden layer.
    """
    inputs, masks, backs = [], [], []
    norms = params[2 * depth :]
    for i in range(depth):
        inputs.append(x)
        x = x @ params[2 * i] + params[2 * i + 1]
        if i == depth - 1:
            break
        if norms:
            x, back_norm = layer_norm(x, norms[2 * i], norms[2 * i + 1])
            backs.append(back_norm)
        masks.append(x > 0)
        x = np.maximum(x, 0.0)

    def back(g: np.ndarray) -> Arrays:
        grads = [np.zeros_like(p) for p in params]
        for i in reversed(range(depth)):
            grads[2 * i], grads[2 * i + 1] = inputs[i].T @ g, g.sum(0)
            if i:
                g = g @ params[2 * i].T * masks[i - 1]
                if norms:
                    place = 2 * (depth + i - 1)
                    g, grads[place], grads[place + 1] = backs[i - 1](g)
        return grads

    return x, back


class Adam:
    """Adam with its usual constants; ``rate`` maps the number of earlier steps to a learning rate."""

    def __init__(self, params: Arrays, rate: Callable[[int], float]):
        self.rate, self.count = rate, 0
        self.first = [np.zeros_like(p) for p in params]
        self.second = [np.zeros_like(p) for p in params]

    def step(self, params: Arrays, grads: Arrays) -> Arrays:
        """Updated copies of ``params``."""
        rate, self.count = self.rate(self.count), self.count + 1
        self.first = [0.9 * m + 0.1 * g for m, g in zip(self.first, grads, strict=True)]
        self.second = [0.999 * v + 0.001 * g**2 for v, g in zip(self.second, grads, strict=True)]
        mean, spread = 1.0 - 0.9**self.count, 1.0 - 0.999**self.count
        return [
            p - rate * (m / mean) / (np.sqrt(v / spread) + 1e-8)
            for p, m, v in zip(params, self.first, self.second, strict=True)
        ]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1.0 / (1.0 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    """ln(1 + e^x)."""
    return np.logaddexp(x, 0.0)
