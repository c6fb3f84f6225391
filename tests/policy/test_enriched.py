"""Prompts and weights of the data that the sequence policy learns from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.config import PolicyConfig
from ipd.policy.enriched import enrich, stack_seeds
from ipd.types import Segment, Steps

STARTS = np.array([0, 40, 97])
GAMMA = 0.9


def value(observations: jax.Array) -> jax.Array:
    return 2.0 * observations[:, 0] + observations[:, 1]


def q(observations: jax.Array, actions: jax.Array) -> jax.Array:
    return value(observations) + actions[:, 0]


@pytest.fixture(scope="module")
def steps(small_steps: Steps) -> Steps:
    """Two episodes: the first ends, the second is cut."""
    return small_steps._replace(terminated=np.zeros(97, np.float32) + (np.arange(97) == 39))


def segments() -> Segment:
    """Three of at most 4 steps, of which 4, 1 and 2 are valid."""
    numbers = jnp.arange(12.0).reshape(3, 4)
    observations = numbers[..., None] + 0.1 * jnp.arange(5.0)[None, None]
    actions = jnp.broadcast_to(0.05 * numbers[..., None], (3, 4, 3))
    valid = jnp.arange(4)[None] < jnp.array([4, 1, 2])[:, None]
    return Segment(observations, actions, numbers, observations, 0 * numbers, 0 * numbers, valid)


SOURCE = np.array([12, 50, 60])


def plain_hindsight(steps: Steps) -> np.ndarray:
    """Return-to-go by a backward loop: 0 behind the termination, V behind the cut."""
    out, later = np.zeros(97), 0.0
    for t in reversed(range(97)):
        if t == 96:
            later = float(value(steps.next_observations[96:97])[0])
        if t == 39:
            later = 0.0
        later = float(steps.rewards[t]) + GAMMA * later
        out[t] = later
    return out


def test_prompts(steps: Steps) -> None:
    values = np.asarray(value(steps.observations))
    achieved = plain_hindsight(steps)
    wanted = {"value": values, "hindsight": achieved, "max": np.maximum(values, achieved)}
    for prompt, expected in wanted.items():
        data, std = enrich(PolicyConfig(prompt=prompt), steps, STARTS, segments(), SOURCE, value, q, GAMMA)
        np.testing.assert_allclose(std, values.std(), rtol=1e-4)
        np.testing.assert_allclose(data.logged.prompts, expected / std, rtol=1e-3, atol=1e-4)
        # an imagined step is prompted as in use, whatever the training prompt
        flat = np.asarray(segments().observations).reshape(-1, 5)
        np.testing.assert_allclose(
            data.imagined.prompts.reshape(-1), np.asarray(value(flat)) / std, rtol=1e-4
        )


def test_weights_are_one_or_grow_with_the_advantage(steps: Steps) -> None:
    plain, _ = enrich(PolicyConfig(), steps, STARTS, segments(), SOURCE, value, q, GAMMA)
    assert bool((plain.logged.weights == 1).all())
    np.testing.assert_array_equal(plain.imagined.weights, segments().valid)
    np.testing.assert_array_equal(plain.imagined.lengths, [4, 1, 2])
    config = PolicyConfig(advantage_weight=3.0)
    weighted, _ = enrich(config, steps, STARTS, segments(), SOURCE, value, q, GAMMA)
    # Q - V is the first action entry
    np.testing.assert_allclose(weighted.logged.weights, np.exp(3 * steps.actions[:, 0]), rtol=1e-3)
    expected = np.exp(3 * np.asarray(segments().actions)[..., 0]) * np.asarray(segments().valid)
    np.testing.assert_allclose(weighted.imagined.weights, expected, rtol=1e-3)


def plain_trace(steps: Steps, ends: list[int], decay: float) -> np.ndarray:
    """Sum of the TD errors that follow, by a double loop; ``ends`` are the last rows of the stretches."""
    now, behind = np.asarray(value(steps.observations)), np.asarray(value(steps.next_observations))
    errors = np.asarray(steps.rewards) + GAMMA * behind * (1 - np.asarray(steps.terminated)) - now
    out = np.zeros(len(errors))
    for row in range(len(errors)):
        end = min(end for end in [*ends, len(errors) - 1] if end >= row)
        out[row] = sum((GAMMA * decay) ** (k - row) * errors[k] for k in range(row, end + 1))
    return out


def test_traced_weights_hear_what_followed_and_stop_where_a_stretch_does(steps: Steps) -> None:
    config = PolicyConfig(advantage_weight=0.5, trace=0.8)
    ending = segments()._replace(terminated=jnp.zeros((3, 4)).at[2, 1].set(1.0))
    ending = jax.tree.map(np.asarray, ending)  # as they are read from their file
    data, _ = enrich(config, steps, STARTS, ending, SOURCE, value, q, GAMMA)
    found = plain_trace(steps, [39, 96], 0.8)
    expected = np.minimum(np.exp(0.5 * (found - found.mean()) / found.std()), 100.0)
    np.testing.assert_allclose(data.logged.weights, expected, rtol=1e-3)
    flat = Steps(
        *(np.asarray(x).reshape(12, *x.shape[2:]) for x in (getattr(ending, n) for n in Steps._fields))
    )
    # the second has one valid step, the third two: what lies behind is no part of them
    dreamt = plain_trace(flat, [3, 4, 9, 11], 0.8)
    expected = np.minimum(np.exp(0.5 * (dreamt - found.mean()) / found.std()), 100.0).reshape(3, 4)
    np.testing.assert_allclose(data.imagined.weights, expected * np.asarray(ending.valid), rtol=1e-3)


def test_replaced_steps_are_no_targets(steps: Steps) -> None:
    data, _ = enrich(PolicyConfig(replace=True), steps, STARTS, segments(), SOURCE, value, q, GAMMA)
    replaced = {12, 13, 14, 15, 50, 60, 61}
    assert set(np.flatnonzero(np.asarray(data.logged.weights) == 0)) == replaced


def test_rows_know_their_episode(steps: Steps) -> None:
    data, _ = enrich(PolicyConfig(), steps, STARTS, None, np.empty(0, np.int64), value, q, GAMMA)
    np.testing.assert_array_equal(data.logged.timesteps, [*range(40), *range(57)])
    np.testing.assert_array_equal(data.logged.episode_start, [0] * 40 + [40] * 57)


@pytest.mark.parametrize("count", [0, 1])
def test_seeds_with_fewer_segments_are_padded(count: int, steps: Steps) -> None:
    few = jax.tree.map(lambda leaf: leaf[:count], segments())
    both = [
        enrich(PolicyConfig(), steps, STARTS, s, source, value, q, GAMMA)[0]
        for s, source in ((segments(), SOURCE), (few, SOURCE[:count]))
    ]
    stacked = stack_seeds(both)
    assert stacked.imagined.observations.shape == (2, 3, 4, 5)
    np.testing.assert_array_equal(stacked.imagined[-1], [3, count])  # how many are real
    assert not stacked.imagined.weights[1, 1:].any()
    assert stacked.logged.prompts.shape == (2, 97) and stacked.logged.observations.shape == (97, 5)
