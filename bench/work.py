"""Floating-point work counted from shapes: matrix products alone, a multiplication and an addition being two.

What reads memory (activations, optimisers, dropout) is not counted: the fraction of the machine's rate for
matrix products says how much of the time is left to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

BACKWARD = 2
"""Products of a backward pass for each of the forward pass: by the weights, and by what went in."""


def mlp(rows: int, sizes: Sequence[int], trained: bool = False) -> float:
    """One pass over ``rows`` rows; trained, with the gradient of every weight (none of the input)."""
    forward = sum(2.0 * rows * a * b for a, b in pairwise(sizes))
    return (1 + BACKWARD) * forward - 2.0 * rows * sizes[0] * sizes[1] if trained else forward


def value_update(batch: int, obs: int, act: int, hidden: Sequence[int], critics: int) -> float:
    """Target critics, V on s twice and on s' once, and the training of V, policy and critics."""
    q, v, pi = [obs + act, *hidden, 1], [obs, *hidden, 1], [obs, *hidden, act]
    looked_at = critics * mlp(batch, q) + 2 * mlp(batch, v)
    return looked_at + critics * mlp(batch, q, True) + mlp(batch, v, True) + mlp(batch, pi, True)


def world_update(batch: int, obs: int, act: int, hidden: Sequence[int], members: int) -> float:
    """Dynamics and reward of every member."""
    dynamics, reward = [obs + act, *hidden, 2 * obs], [obs + act, *hidden, 1]
    return members * (mlp(batch, dynamics, True) + mlp(batch, reward, True))


def transformer(rows: int, tokens: int, width: int, layers: int) -> float:
    """A forward pass: queries, keys, values, output (4 squares of width), feed-forward (8), attention."""
    return layers * rows * tokens * (24.0 * width * width + 4.0 * tokens * width)


def policy_update(batch: int, context: int, width: int, layers: int, critics: float = 0.0) -> float:
    """The Transformer trained; ``critics`` is the work of looking at Q and of its gradient by the action."""
    return (1 + BACKWARD) * transformer(batch, 3 * context, width, layers) + critics


def action(context: int, width: int, layers: int) -> float:
    """The newest action alone: of the last layer, keys and values of all tokens and one token's rest."""
    tokens = 3 * context - 1
    last = tokens * 4.0 * width * width + 20.0 * width * width + 4.0 * tokens * width
    return transformer(1, tokens, width, layers - 1) + last
