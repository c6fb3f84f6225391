"""Windows, tokens, optimiser and memory of the Transformer baselines, against plain loops."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled

from ipd.baseline_config import SequenceConfig
from ipd.baselines import sequences
from ipd.baselines.material import Material
from ipd.baselines.sequences import TokenTransformer
from ipd.nn import parts
from ipd.types import Spec, Steps

CONFIG = SequenceConfig(batch_size=13, layers=2, heads=3, width=12, context_len=7, dropout=0.0)
SPEC = Spec(observation_size=5, action_size=4, max_episode_steps=23)
STARTS = np.array([0, 41, 43, 44, 97])
CONTEXT, SIZES = 7, (1, 5, 4)


@pytest.fixture(scope="module")
def material(small_steps: Steps) -> Material:
    return Material(small_steps, STARTS, SPEC, 0.1)


def test_returns_count_their_own_reward_and_end_with_the_episode(material: Material) -> None:
    logged, constants = sequences.prepare(material)
    rewards = np.asarray(material.steps.rewards, np.float64)
    expected, first = np.zeros(97), np.zeros(97, int)
    for start, end in itertools.pairwise(STARTS):
        for t in range(start, end):
            expected[t], first[t] = rewards[t:end].sum(), start
    scale = np.abs(expected[STARTS[:-1]]).max()
    np.testing.assert_allclose(logged.returns, expected / scale, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(logged.episode_start, first)
    np.testing.assert_array_equal(logged.timesteps, np.arange(97) - first)
    np.testing.assert_array_equal(logged.rewards, material.steps.rewards)
    assert constants["return_scale"] == pytest.approx(scale, rel=1e-5)
    assert constants["target"] == pytest.approx(expected[STARTS[:-1]].max() / scale, rel=1e-5)


def test_a_target_is_given_in_logged_units(material: Material) -> None:
    _, constants = sequences.prepare(material, 300.0)
    assert constants["target"] * constants["return_scale"] == pytest.approx(30.0)
    flat = material._replace(steps=material.steps._replace(rewards=np.zeros(97, np.float32)))
    assert sequences.prepare(flat)[1] == {"return_scale": 1.0, "target": 0.0}


def test_windows_end_at_their_row_and_never_leave_the_episode(material: Material) -> None:
    logged, _ = sequences.prepare(material)
    rows = np.array([0, 3, 40, 41, 42, 43, 44, 46, 60, 96])
    window = jax.tree.map(np.asarray, sequences.windows(logged, jnp.asarray(rows), CONTEXT))
    sources: dict[str, Any] = {**material.steps._asdict(), **logged._asdict()}
    for i, row in enumerate(rows):
        start = STARTS[np.searchsorted(STARTS, row, side="right") - 1]
        there = np.arange(max(start, row - CONTEXT + 1), row + 1)
        assert window.present[i].tolist() == [False] * (CONTEXT - len(there)) + [True] * len(there)
        for name in set(window._fields) - {"present"}:
            np.testing.assert_array_equal(
                getattr(window, name)[i, -len(there) :], np.asarray(sources[name])[there], err_msg=name
            )


def test_every_step_is_drawn_alike(material: Material) -> None:
    logged, _ = sequences.prepare(material)
    config = dataclasses.replace(CONFIG, batch_size=9700)
    counts = np.bincount(sequences.draw_rows(config, logged, jax.random.key(0)), minlength=97)
    assert len(counts) == 97 and counts.min() > 60 and counts.max() < 140


def hidden(trunk: TokenTransformer, streams: Any, present: jax.Array, later: int = 0) -> jax.Array:
    """One number a token."""
    out = trunk(streams, jnp.arange(CONTEXT) + later, present)
    return out @ jnp.cos(jnp.arange(out.shape[-1], dtype=jnp.float32))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)])
def test_tokens_are_interleaved_in_the_order_given(order: tuple[int, ...]) -> None:
    """A token sees itself and all tokens before it, where token (t, stream) is number 3 t + stream.

    Streams one after another instead of interleaved, or in another order, change the triangle.
    """
    sizes = tuple(SIZES[i] for i in order)
    trunk = filled(lambda key: TokenTransformer(CONFIG, SPEC, sizes, key), 0)
    keys = jax.random.split(jax.random.key(1), 3)
    streams = tuple(jax.random.normal(k, (CONTEXT, n)) for k, n in zip(keys, sizes, strict=True))
    present = jnp.arange(CONTEXT) >= 1
    jacobians = jax.jit(jax.jacrev(lambda s: hidden(trunk, s, present)))(streams)
    # (t, stream) by (t, stream), the first step left out as it is padding
    moves = np.stack([np.abs(np.asarray(j)).max(-1) for j in jacobians], axis=-1)[1:, :, 1:] > 1e-9
    count = 3 * (CONTEXT - 1)
    np.testing.assert_array_equal(moves.reshape(count, count), np.tril(np.ones((count, count), bool)))


def test_padding_changes_nothing_and_the_timestep_does() -> None:
    trunk = filled(lambda key: TokenTransformer(CONFIG, SPEC, SIZES, key), 0)
    placed = filled(
        lambda key: TokenTransformer(dataclasses.replace(CONFIG, time="window"), SPEC, SIZES, key), 0
    )
    assert trunk.embed_timestep.shape == (23, 12) and placed.embed_timestep.shape == (7, 12)
    keys = jax.random.split(jax.random.key(1), 3)
    scalars = jax.random.normal(keys[0], (CONTEXT,))
    streams = (scalars, *(jax.random.normal(k, (CONTEXT, n)) for k, n in zip(keys[1:], (5, 4), strict=True)))
    present = jnp.arange(CONTEXT) >= 3
    run = jax.jit(lambda trunk, streams, later: hidden(trunk, streams, present, later)[3:])
    base = run(trunk, streams, 0)
    padded = jax.tree.map(lambda leaf: leaf.at[:3].set(9.0), streams)
    np.testing.assert_array_equal(run(trunk, padded, 0), base)
    assert np.abs(run(trunk, streams, 5) - base).max() > 1e-3
    # beyond the table: its last row
    np.testing.assert_array_equal(run(trunk, streams, 40), run(trunk, streams, 30))
    np.testing.assert_array_equal(run(placed, streams, 5), run(placed, streams, 0))


def test_optimiser_warms_up_clips_decays_and_averages() -> None:
    config = SequenceConfig(learning_rate=0.1, weight_decay=0.3, warmup_steps=2, clip_norm=1.0, average=0.75)
    weights = np.array([0.5, -2.0, 1.0])
    state = sequences.fresh(config, {"w": jnp.asarray(weights, jnp.float32)})
    acting, first, second = weights, np.zeros(3), np.zeros(3)
    for k, grads in enumerate(([3.0, -4.0, 0.0], [0.1, 0.2, 0.3], [6.0, 0.0, 8.0])):
        raw = np.array(grads)
        state, metrics = sequences.descend(config, state, {"w": jnp.asarray(raw, jnp.float32)})
        norm = np.sqrt((raw**2).sum())
        clipped = raw / max(norm, 1.0)
        first, second = 0.9 * first + 0.1 * clipped, 0.999 * second + 0.001 * clipped**2
        step = (first / (1 - 0.9 ** (k + 1))) / (np.sqrt(second / (1 - 0.999 ** (k + 1))) + 1e-8)
        weights = weights - (0.05, 0.1, 0.1)[k] * (step + 0.3 * weights)
        acting = 0.75 * acting + 0.25 * weights
        np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-6)
    np.testing.assert_allclose(state.model["w"], weights, rtol=1e-5)
    np.testing.assert_allclose(state.acting["w"], acting, rtol=1e-5)
    assert int(state.step) == 3


def test_memory_rolls_and_counts() -> None:
    context = sequences.empty(dataclasses.replace(CONFIG, context_len=3), SPEC, 2.5)
    np.testing.assert_array_equal(context.returns, [2.5, 2.5, 2.5])
    for t in range(5):
        context = sequences.push(context, jnp.full(5, float(t)), jnp.asarray(10.0 + t))
        np.testing.assert_array_equal(context.actions[-1], np.zeros(4))
        context = sequences.chosen(context, jnp.full(4, 0.1 * t))
        assert context.present.tolist() == [t >= 2, t >= 1, True]
    np.testing.assert_array_equal(context.observations[:, 0], [2.0, 3.0, 4.0])
    np.testing.assert_allclose(context.actions[:, 0], [0.2, 0.3, 0.4])
    np.testing.assert_array_equal(context.returns, [12.0, 13.0, 14.0])
    np.testing.assert_array_equal(context.timesteps, [2, 3, 4])


def test_gradient_of_parts_is_that_of_the_whole_batch(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged, _ = sequences.prepare(material)
    # 24 windows of 1 to 7 steps: parts of eight have unequal numbers of them
    batch = sequences.windows(logged, jnp.asarray([*range(8), *range(44, 50), *range(60, 70)]), CONTEXT)
    sizes = (1, batch.observations.shape[-1], batch.actions.shape[-1])
    trunk = TokenTransformer(CONFIG, SPEC, sizes, jax.random.key(3))

    def loss_fn(trunk: TokenTransformer, part: sequences.Window, key: Any) -> Any:
        hidden = jax.vmap(lambda w: trunk((w.returns, w.observations, w.actions), w.timesteps, w.present))(
            part
        )
        mean = jnp.where(part.present, (hidden**2).sum((-1, -2)), 0.0).sum() / part.present.sum()
        return mean, {"mean": mean, "steps": part.present.mean()}

    key = jax.random.key(0)
    expected, metrics = jax.jit(jax.grad(lambda t: loss_fn(t, batch, key), has_aux=True))(trunk)
    gradient = partial(sequences.gradient, loss_fn)
    monkeypatch.setattr(parts, "TOKENS_AT_ONCE", 8 * 3 * CONTEXT)
    found, told = jax.jit(gradient)(trunk, batch, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    assert told["mean"] == pytest.approx(float(metrics["mean"]), rel=1e-5)
    # no mean over the steps present, so that the parts' weights show
    assert told["steps"] > float(metrics["steps"]) + 0.01
    monkeypatch.setattr(parts, "TOKENS_AT_ONCE", 10**6)
    whole, _ = jax.jit(lambda *each: gradient(*each))(trunk, batch, key)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), whole, expected)


def test_every_part_drops_other_units(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "TOKENS_AT_ONCE", 8 * 3 * CONTEXT)
    logged, _ = sequences.prepare(material)
    batch = sequences.windows(logged, jnp.full(16, 60), CONTEXT)

    def loss_fn(model: Any, part: sequences.Window, key: Any) -> Any:
        return model * jax.random.uniform(key), {}

    found, _ = sequences.gradient(loss_fn, jnp.asarray(1.0), batch, jax.random.key(5))
    each = [jax.random.uniform(k) for k in jax.random.split(jax.random.key(5), 2)]
    assert found == pytest.approx(float(sum(each)) / 2, rel=1e-6)
    assert each[0] != each[1]
