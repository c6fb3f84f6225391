"""QDT's relabelling against a plain loop, over episodes and inside windows."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.baseline_config import QDTConfig
from ipd.baselines import dt, qdt, sequences
from ipd.baselines.material import Material
from ipd.types import Spec, Steps

CONFIG = QDTConfig(batch_size=29, layers=1, heads=2, width=8, context_len=4)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=60)
STARTS = np.array([0, 50, 52, 53, 97])


@pytest.fixture(scope="module")
def material(small_steps: Steps) -> Material:
    """Values that sometimes exceed what is earned; the second episode terminates, the third is cut."""
    ends = np.zeros(97, np.float32)
    ends[51] = 1.0
    values = np.random.default_rng(1).normal(size=97).astype(np.float32)
    values[53] = 50.0  # the start of the last episode: no concern of the one before it
    return Material(small_steps._replace(terminated=ends), STARTS, SPEC, 0.1, values)


def by_hand(material: Material) -> np.ndarray:
    """R_t = r_t + max(R_{t+1}, V(s_{t+1})), every episode for itself, nothing behind its end."""
    rewards, values = np.asarray(material.steps.rewards, np.float64), material.values
    assert values is not None
    expected = np.zeros(97)
    for start, end in itertools.pairwise(STARTS):
        expected[end - 1] = rewards[end - 1]
        for t in range(end - 2, start - 1, -1):
            expected[t] = rewards[t] + max(expected[t + 1], values[t + 1])
    return expected


def test_relabelling_is_the_plain_loop(material: Material) -> None:
    data, constants = qdt.prepare(CONFIG, material)
    scale = constants["return_scale"]
    raised = scale * np.asarray(data.logged.returns + data.raised)
    np.testing.assert_allclose(raised, by_hand(material), rtol=1e-4, atol=1e-4)
    plain, same = dt.prepare(CONFIG, material)
    assert constants == same and np.asarray(data.raised).min() > -1e-6
    np.testing.assert_array_equal(data.logged.returns, plain.returns)
    # both happened: a step whose return was kept, and many whose return rose
    assert 0.2 < (np.asarray(data.raised) > 1e-3).mean() < 1.0


def test_a_window_ends_in_the_raised_return_and_adds_the_logged_rewards(material: Material) -> None:
    data, constants = qdt.prepare(CONFIG, material)
    key = jax.random.key(0)
    window = jax.tree.map(np.asarray, jax.jit(lambda key: qdt.draw(CONFIG, data, key))(key))
    rows = np.asarray(sequences.draw_rows(CONFIG, data.logged, key))
    expected, scale = by_hand(material), constants["return_scale"]
    starts = np.asarray(data.logged.episode_start)
    for i, row in enumerate(rows):
        running = expected[row]
        for place in range(3, -1, -1):
            at = row - 3 + place
            assert window.present[i, place] == (at >= starts[row])
            if window.present[i, place]:
                if place < 3:
                    running += float(material.steps.rewards[at])
                np.testing.assert_allclose(scale * window.returns[i, place], running, rtol=1e-4, atol=1e-4)


def test_values_below_every_return_leave_decision_transformer(material: Material) -> None:
    low = material._replace(values=np.full(97, -1e3, np.float32))
    data, _ = qdt.prepare(CONFIG, low)
    np.testing.assert_allclose(data.raised, np.zeros(97), atol=1e-6)
    assert qdt.update is dt.update and qdt.act is dt.act and qdt.init is dt.init and qdt.begin is dt.begin


def test_without_values_there_is_nothing_to_relabel_with(material: Material) -> None:
    with pytest.raises(ValueError, match="QDT relabels with values"):
        qdt.prepare(CONFIG, material._replace(values=None))


def test_the_unit_of_the_values_is_that_of_the_rewards(material: Material) -> None:
    """Rewards and values both ten times as large: the same training windows."""
    assert material.values is not None
    steps = material.steps._replace(rewards=10 * np.asarray(material.steps.rewards))
    data, constants = qdt.prepare(CONFIG, material)
    larger, ten = qdt.prepare(CONFIG, material._replace(steps=steps, values=10 * material.values))
    np.testing.assert_allclose(larger.raised, data.raised, rtol=1e-4, atol=1e-5)
    assert ten["return_scale"] == pytest.approx(10 * constants["return_scale"])
    assert jnp.isfinite(larger.raised).all()
