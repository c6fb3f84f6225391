"""The policy loss and its update against NumPy, and the windows it learns from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import Adam, Arrays, filled, layer_norm, leaves, member, mlp

from ipd.config import PolicyConfig
from ipd.nn import parts
from ipd.policy import learn
from ipd.policy.enriched import Data, Imagined, Logged
from ipd.policy.learn import State
from ipd.policy.model import SequencePolicy
from ipd.types import Spec, Window
from ipd.value.networks import Critics

CONFIG = PolicyConfig(
    batch_size=6,
    learning_rate=1e-2,
    layers=1,
    heads=3,
    width=12,
    context_len=4,
    dropout=0.0,
    clip_norm=0.05,
    average=0.25,
    q_weight=0.7,
    mix=0.5,
)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=50)
HEADS, WIDTH = 3, 12


def fresh() -> State:
    def make(key: jax.Array) -> State:
        return learn.init(CONFIG, SPEC, Critics(5, 3, (7, 11), 2, key), key)

    nets = filled(make, 0)
    return filled(make, 0, 0.0)._replace(policy=nets.policy, acting=nets.policy, critics=nets.critics)


def drawn(data: Data) -> Window:
    return jax.jit(lambda key: learn.draw(CONFIG, data, key))(jax.random.key(1))


def make_data() -> Data:
    """Episodes of 9 and 14 steps, every number telling its row; two segments and one padding row."""
    rows, starts = jnp.arange(23), jnp.array([0] * 9 + [9] * 14)
    logged = Logged(
        rows[:, None] + 0.1 * jnp.arange(5)[None],
        0.01 * rows[:, None] + 0.1 * jnp.arange(3)[None],
        (rows - starts).astype(jnp.int32),
        starts.astype(jnp.int32),
        rows * 1.0,
        jnp.ones(23).at[11].set(0.0),
        jnp.asarray(23),
    )
    lengths = jnp.array([6, 2, 0])
    valid = jnp.arange(6)[None] < lengths[:, None]
    step = 100.0 * (1 + jnp.arange(3))[:, None] + jnp.arange(6)[None]
    imagined = Imagined(
        jnp.array([14, 1, 0], jnp.int32),
        lengths.astype(jnp.int32),
        step[..., None] + 0.1 * jnp.arange(5)[None, None],
        jnp.broadcast_to(0.001 * step[..., None], (3, 6, 3)),
        step,
        valid * 1.0,
        jnp.array(2, jnp.int32),
    )
    return Data(logged, imagined)


DATA = make_data()


def plain_transformer(p: Arrays, x: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Blocks between two LayerNorms; ``p`` in the order of the module's fields."""
    x = layer_norm(x, *p[:2])[0]
    for block in range(CONFIG.layers):
        g1, b1, w_qkv, b_qkv, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down = p[
            2 + 12 * block : 14 + 12 * block
        ]
        q, k, v = np.split(layer_norm(x, g1, b1)[0] @ w_qkv + b_qkv, 3, axis=1)
        mixed = np.zeros_like(x)
        for part in np.split(np.arange(WIDTH), HEADS):
            scores = np.where(visible, q[:, part] @ k[:, part].T / np.sqrt(WIDTH / HEADS), -1e9)
            scores = np.exp(scores - scores.max(1, keepdims=True))
            mixed[:, part] = scores / scores.sum(1, keepdims=True) @ v[:, part]
        x = x + mixed @ w_out + b_out
        x = x + np.maximum(layer_norm(x, g2, b2)[0] @ w_up + b_up, 0) @ w_down + b_down
    return layer_norm(x, *p[-2:])[0]


def plain_actions(p: Arrays, w: Window, row: int) -> np.ndarray:
    """Actions of one window: tokens (prompt, s, a) laid out one by one, read at the s tokens."""
    time, tokens = p[6][w.timesteps[row]], []
    for t in range(CONFIG.context_len):
        tokens.append(w.prompts[row, t : t + 1] @ p[0] + p[1] + time[t])
        tokens.append(w.observations[row, t] @ p[2] + p[3] + time[t])
        tokens.append(w.actions[row, t] @ p[4] + p[5] + time[t])
    seen = np.repeat(w.present[row], 3)
    visible = np.tril(np.ones((len(seen), len(seen)), bool)) & seen[None]
    hidden = plain_transformer(p[7:-2], np.stack(tokens), visible)
    return np.tanh(hidden[1::3] @ p[-2] + p[-1])


def plain_loss(
    p: Arrays, critics: list[Arrays], w: Window, q_scale: float | None = None
) -> tuple[float, float]:
    """Eq. 26 summed position by position over the targets, and the scale of Q: that of the data's actions."""
    errors, qs, sizes, weights = [], [], [], []
    for row in range(len(w.prompts)):
        actions = plain_actions(p, w, row)
        for t in range(CONFIG.context_len):
            if w.target[row, t] > 0:
                for found, action in ((qs, actions[t]), (sizes, w.actions[row, t])):
                    pair = np.concatenate([w.observations[row, t], action])[None]
                    found.append(min(mlp(net, pair, 3)[0][0, 0] for net in critics))
                errors.append(((actions[t] - w.actions[row, t]) ** 2).mean())
                weights.append(w.target[row, t])
    scale = np.abs(sizes).mean() + 1e-6 if q_scale is None else q_scale
    cloning = np.average(errors, weights=weights)
    return float(cloning - CONFIG.q_weight * np.mean(qs) / scale), float(scale)


def test_loss_gradient_and_updates_are_those_of_plain_numpy() -> None:
    with jax.enable_x64(True):
        data = jax.tree.map(lambda leaf: leaf.astype(float) if leaf.dtype == jnp.float32 else leaf, DATA)
        state = fresh()
        window = drawn(data)
        window = window._replace(target=window.target * (1 + jnp.arange(6.0))[:, None])
        grad = jax.jit(lambda p, w: learn.gradient(CONFIG, p, state.critics, w, jax.random.key(2)))
        grads, metrics = grad(state.policy, window)
        plain = leaves(state.policy)
        critics = [member(state.critics, i) for i in range(2)]
        w = jax.tree.map(np.asarray, window)
        expected, scale = plain_loss(plain, critics, w)
        np.testing.assert_allclose(float(metrics["policy_loss"]), expected, rtol=1e-9)

        # the gradient by central differences along three directions; Q's scale does not move with it
        random = np.random.default_rng(0)
        for _ in range(3):
            way = [random.normal(size=leaf.shape) for leaf in plain]
            up, down = (
                plain_loss(
                    [leaf + sign * 1e-5 * d for leaf, d in zip(plain, way, strict=True)], critics, w, scale
                )[0]
                for sign in (1, -1)
            )
            along = sum((g * d).sum() for g, d in zip(leaves(grads), way, strict=True))
            np.testing.assert_allclose(along, (up - down) / 2e-5, rtol=1e-5)

        # two clipped Adam steps
        adam = Adam(plain, lambda k: CONFIG.learning_rate)
        update = jax.jit(lambda s, w: learn.update(CONFIG, s, w, jax.random.key(2)))
        acting = plain
        for _ in range(2):
            raw = leaves(grad(state.policy, window)[0])
            norm = np.sqrt(sum((g**2).sum() for g in raw))
            assert norm > CONFIG.clip_norm
            plain = adam.step(plain, [g * CONFIG.clip_norm / norm for g in raw])
            share = 1.0 - CONFIG.average
            acting = [a + share * (p - a) for a, p in zip(acting, plain, strict=True)]
            before = state.critics
            state, metrics = update(state, window)
            np.testing.assert_allclose(float(metrics["gradient_norm"]), norm, rtol=1e-8)
        for ours, theirs in zip(leaves(state.policy) + leaves(state.acting), plain + acting, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
        for ours, theirs in zip(leaves(state.critics), leaves(before), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_parts_of_a_batch_add_up_to_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the loss divides by what only the whole batch knows."""
    state, window = fresh(), drawn(DATA)
    window = window._replace(target=window.target * (1 + jnp.arange(6.0))[:, None])
    found = []
    for tokens, expected in ((480, 1), (24, 3), (1, 6)):
        monkeypatch.setattr(parts, "TOKENS_AT_ONCE", tokens)
        assert parts.number_of_parts(6, 12) == expected
        run = jax.jit(lambda p: learn.gradient(CONFIG, p, state.critics, window, jax.random.key(2)))
        found.append(leaves(run(state.policy)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_is_not_cut_into_crumbs() -> None:
    """Prime numbers of windows have no parts of a useful size; a window longer than a part stands alone."""
    cases = {(64, 60): 8, (128, 6): 2, (100, 60): 20, (127, 6): 1, (61, 60): 1, (5, 900): 5, (1, 6): 1}
    assert {case: parts.number_of_parts(*case) for case in cases} == cases


def test_logged_windows_are_those_of_a_plain_loop() -> None:
    rows = np.arange(23)
    window = jax.jit(lambda r: learn.logged_windows(CONFIG, DATA, r))(jnp.asarray(rows))
    for row in rows:
        start = 0 if row < 9 else 9
        for t in range(4):
            at = row - 3 + t
            assert bool(window.present[row, t]) == (at >= start)  # no window crosses an episode
            if at >= start:
                assert float(window.prompts[row, t]) == at and int(window.timesteps[row, t]) == at - start
                assert float(window.observations[row, t, 0]) == at
                np.testing.assert_allclose(float(window.actions[row, t, 0]), 0.01 * at, rtol=1e-5)
            assert float(window.target[row, t]) == (at >= start and at != 11)


def test_imagined_windows_have_their_real_history_and_learn_from_imagined_steps_only() -> None:
    segments, ends = np.array([0, 0, 0, 1, 1]), np.array([0, 2, 5, 0, 1])
    window = jax.jit(lambda s, e: learn.imagined_windows(CONFIG, DATA, s, e))(
        jnp.asarray(segments), jnp.asarray(ends)
    )
    source, start = {0: 14, 1: 1}, {0: 9, 1: 0}
    for i, (segment, end) in enumerate(zip(segments, ends, strict=True)):
        for t in range(4):
            offset = end - 3 + t
            row = source[segment] + offset
            assert bool(window.present[i, t]) == (row >= start[segment])
            assert float(window.target[i, t]) == (offset >= 0)
            if row >= start[segment]:
                tells = 100 * (segment + 1) + offset if offset >= 0 else row
                assert float(window.prompts[i, t]) == tells
                assert float(window.observations[i, t, 0]) == tells
                assert int(window.timesteps[i, t]) == row - start[segment]


def test_draw_takes_the_share_mix_from_segments_that_exist() -> None:
    config = dataclasses.replace(CONFIG, batch_size=64, mix=0.25)
    window = jax.jit(lambda key: learn.draw(config, DATA, key))(jax.random.key(3))
    newest = np.asarray(window.prompts[:, -1])
    assert (newest >= 100).sum() == 16 and (newest[-16:] >= 100).all()
    # a padding segment (300 and more) is never drawn, a segment never read behind its end
    assert newest.max() < 300 and set(newest[newest >= 200]) <= {200.0, 201.0}
    assert float(window.target.min()) >= 0.0 and bool((window.target[-16:].sum(1) > 0).all())


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_shortened_windows_lose_their_oldest_steps_only(chance: float) -> None:
    config = dataclasses.replace(CONFIG, shorten=chance)

    @jax.jit
    def shortened(key: jax.Array) -> Window:
        return learn.shorten(config, learn.logged_windows(config, DATA, jnp.full(40, 22)), key)

    short = shortened(jax.random.key(0))
    hidden = np.asarray(~short.present).sum(1)
    assert (np.diff(np.asarray(short.present).astype(int), axis=1) >= 0).all()
    assert set(hidden) == ({0} if chance == 0.0 else {0, 1, 2, 3})
    np.testing.assert_array_equal(short.target > 0, short.present)


def test_q_weight_has_no_unit() -> None:
    """Q divided by its mean size: rewards in cents instead of dollars change no gradient."""
    state = fresh()
    window = drawn(DATA)

    @jax.jit
    def gradient(unit: jax.Array) -> SequencePolicy:
        last = (state.critics.nets.layers[-1].weight, state.critics.nets.layers[-1].bias)
        scaled = tuple(unit * leaf for leaf in last)
        critics = eqx.tree_at(
            lambda c: (c.nets.layers[-1].weight, c.nets.layers[-1].bias), state.critics, scaled
        )
        return learn.gradient(CONFIG, state.policy, critics, window, jax.random.key(2))[0]

    for a, b in zip(leaves(gradient(jnp.array(1.0))), leaves(gradient(jnp.array(100.0))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


def test_half_precision_moves_the_gradient_by_little() -> None:
    """The stated tolerance: 2 % of the gradient's size, a cosine of 0.999; every product is meant."""
    state, window = fresh(), drawn(DATA)

    def gradient(precision: Any) -> Callable[[SequencePolicy], Any]:
        config = dataclasses.replace(CONFIG, precision=precision)
        return lambda policy: learn.gradient(config, policy, state.critics, window, jax.random.key(2))

    full, whole = jax.jit(gradient("float32"))(state.policy)
    half, rough = jax.jit(gradient("bfloat16"))(state.policy)
    a, b = (np.concatenate([np.ravel(leaf) for leaf in leaves(one)]) for one in (full, half))
    assert a.dtype == b.dtype == np.float32
    assert 1e-5 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.02
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999
    np.testing.assert_allclose(rough["policy_loss"], whole["policy_loss"], rtol=0.02)
    products = [line for line in str(jax.make_jaxpr(gradient("bfloat16"))(state.policy)).splitlines()
                if "dot_general" in line]  # fmt: skip
    # queries with keys and values with weights, the four layers of a block; two more of each going back
    assert sum("bf16" in line for line in products) == 18 * CONFIG.layers
    assert not any(
        "bf16" in line for line in str(jax.make_jaxpr(gradient("auto"))(state.policy)).splitlines()
    )
