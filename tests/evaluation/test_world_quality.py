"""Measures of the world model against worlds whose answers are known."""

from __future__ import annotations

from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from ipd.config import WorldConfig
from ipd.evaluation import world_quality as quality
from ipd.evaluation.world_quality import EnsembleMembers, EnsemblePredict, Windows, batched, coverage
from ipd.types import Prediction, Steps
from ipd.world.ensemble import ChangeScale, Ensemble

OBS, ACT, MEMBERS = 5, 2, 3
NOISE = 0.3
SCALE = ChangeScale(jnp.full((OBS,), 0.2), jnp.arange(1.0, OBS + 1))
MIX = np.random.default_rng(9).normal(size=(ACT, OBS)).astype(np.float32)
LENGTHS = (40, 7, 60, 110)


def change(observation: Array, action: Array) -> Array:
    return -0.1 * observation + action @ jnp.asarray(MIX)


class Knows(eqx.Module):
    """Members that know the world but for ``bias``, and state their noise ``factor`` times too large."""

    bias: Array
    factor: float

    def __call__(self, observation: Array, action: Array) -> tuple[Array, Array]:
        mean = jax.vmap(SCALE.encode)(change(observation, action))
        means = mean[None] + self.bias[:, None, None]
        log_variance = 2 * jnp.log(self.factor * NOISE / SCALE.std)
        return means, jnp.broadcast_to(log_variance, means.shape)


def make_world(noise: float) -> tuple[Steps, np.ndarray]:
    random = np.random.default_rng(0)
    observations, actions, following = [], [], []
    for length in LENGTHS:
        state = random.normal(size=OBS).astype(np.float32)
        for _ in range(length):
            action = random.uniform(-1, 1, ACT).astype(np.float32)
            after = state - 0.1 * state + action @ MIX + noise * random.normal(size=OBS)
            observations.append(state)
            actions.append(action)
            following.append(after.astype(np.float32))
            state = following[-1]
    held_out = Steps(
        np.array(observations),
        np.array(actions),
        np.array(actions)[:, 0],
        np.array(following),
        np.zeros(sum(LENGTHS), np.float32),
    )
    return held_out, np.concatenate([[0], np.cumsum(LENGTHS)])


def test_windows_cross_no_episode() -> None:
    held_out, starts = make_world(NOISE)
    found = quality.windows(held_out, starts, 10, 10_000)
    # 31 + 0 + 51 + 101 starts.
    assert found.observations.shape == (183, 11, OBS) and found.actions.shape == (183, 10, ACT)
    rows = [int(np.flatnonzero((held_out.observations == o[0]).all(1))[0]) for o in found.observations]
    for row, states, acts in zip(rows, found.observations, found.actions, strict=True):
        assert any(begin <= row and row + 10 <= end for begin, end in pairwise(starts))
        np.testing.assert_array_equal(states[1:], held_out.next_observations[row : row + 10])
        np.testing.assert_array_equal(acts, held_out.actions[row : row + 10])
    assert len(set(rows)) == 183 and rows != sorted(rows)
    with pytest.raises(ValueError, match="no held-out episode has 111 steps"):
        quality.windows(held_out, starts, 111, 4)


def test_batches_have_one_shape_and_lose_no_row() -> None:
    shapes = []

    def double(rows: Array) -> dict[str, Array]:
        shapes.append(rows.shape)
        return {"twice": 2 * rows, "sum": rows.sum(1)}

    rows = np.arange(3 * 700, dtype=np.float32).reshape(700, 3)
    found = batched(double, rows)
    assert shapes == [(quality.BATCH, 3)] * 2
    np.testing.assert_array_equal(found["twice"], 2 * rows)
    np.testing.assert_array_equal(found["sum"], rows.sum(1))


def test_intervals_of_a_true_model_cover_what_they_say() -> None:
    held_out, starts = make_world(NOISE)
    futures = quality.windows(held_out, starts, 10, 500)
    honest = coverage(Knows(jnp.zeros(MEMBERS), 1.0), SCALE, futures)
    assert list(honest) == ["nominal", "1", "5", "10"]
    for depth in ("1", "5", "10"):
        np.testing.assert_allclose(honest[depth], honest["nominal"], atol=0.08)
    boastful = coverage(Knows(jnp.zeros(MEMBERS), 0.25), SCALE, futures)
    timid = coverage(Knows(jnp.zeros(MEMBERS), 4.0), SCALE, futures)
    for depth in ("1", "10"):
        assert boastful[depth][7] < 0.4 and timid[depth][7] > 0.97
    # Members that disagree widen the interval, whatever each says of itself.
    split = coverage(Knows(jnp.array([-1.0, 0.0, 1.0]), 0.25), SCALE, futures)
    assert split["1"][7] > 0.9
    short = Windows(futures.observations[:, :4], futures.actions[:, :3])
    assert list(coverage(Knows(jnp.zeros(MEMBERS), 1.0), SCALE, short)) == ["nominal", "1"]


def predict(observation: Array, action: Array) -> Prediction:
    following = observation + change(observation, action)
    # U grows with the size of the action, so that its order is known.
    size = jnp.abs(action).max(-1)
    return Prediction(following, action[:, 0], jnp.zeros(len(action)), size)


def test_summary_of_a_known_world() -> None:
    held_out, starts = make_world(NOISE)
    found = quality.world_quality(
        predict, Knows(jnp.zeros(MEMBERS), 1.0), SCALE, held_out, starts, uncertainty_max=0.8, count=300
    )
    assert found["kappa"] == 0.8
    sizes = np.abs(held_out.actions).max(1)
    assert found["accepted_held_out"] == pytest.approx((sizes < 0.8).mean())
    after = held_out.next_observations
    # What is left is the noise.
    moved = after - held_out.observations
    noise = ((moved + 0.1 * held_out.observations - held_out.actions @ MIX) ** 2).mean(0)
    np.testing.assert_allclose(found["one_step_r2"], 1 - noise / after.var(0), atol=1e-4)
    np.testing.assert_allclose(found["one_step_change_r2"], 1 - noise / moved.var(0), atol=1e-4)
    assert found["reward_r2"] == pytest.approx(1.0)
    assert found["depth"] == list(range(1, 11))
    # Noise of h steps, each shrunk by 0.9 a step: 0.09 (1 - 0.81^h) / 0.19.
    expected = NOISE**2 * (1 - 0.81 ** np.arange(1, 11)) / 0.19
    np.testing.assert_allclose(found["model_error"], expected, rtol=0.25)
    assert (np.array(found["no_change_error"]) > 2 * np.array(found["model_error"])).all()
    assert len(found["uncertainty"]["held_out"]) == sum(LENGTHS)
    np.testing.assert_allclose(sorted(found["uncertainty"]["shuffled"]), sorted(sizes), rtol=1e-6)
    # Members agree everywhere, so no uncertainty ranks anything.
    assert set(found["ranking"]) == set(quality.VARIANTS)
    assert set(found["ranking"]["dual_max"]) == {"1", "5", "10"}
    assert found["ranking"]["primal_mean"]["5"] is None


class Doubts(eqx.Module):
    """Members err, and differ, in proportion to the first action."""

    def __call__(self, observation: Array, action: Array) -> tuple[Array, Array]:
        mean = jax.vmap(SCALE.encode)(change(observation, action))
        spread = jnp.abs(action[None, :, :1]) * jnp.array([1.0, 2.0, 6.0])[:, None, None]
        means = mean[None] + spread
        return means, jnp.zeros(means.shape)


def test_ranking_finds_an_uncertainty_that_knows() -> None:
    held_out, starts = make_world(0.0)
    rolled = quality.open_loop(Doubts(), SCALE, quality.windows(held_out, starts, 10, 300))
    ranks = quality.ranking(rolled)
    assert all(each["1"] == pytest.approx(1.0) for each in ranks.values())
    for each in ranks.values():
        value = each["10"]
        assert value is not None and 0.1 < value < 0.95
    # Largest pair 5^2 = 25 times OBS dimensions; mean of pairs (1 + 16 + 25) / 3 = 14.
    ratio = rolled.uncertainties["disagreement_max"] / rolled.uncertainties["disagreement_mean"]
    np.testing.assert_allclose(ratio, 25 / 14, rtol=1e-4)


def test_a_real_ensemble_serves_and_seeds_share_a_compilation() -> None:
    config = WorldConfig()

    def make(seed: int) -> Ensemble:
        key = jax.random.key(seed)
        return Ensemble(OBS, ACT, (16,), MEMBERS, config.log_variance_bounds, SCALE, False, key)

    held_out, starts = make_world(NOISE)
    observations, actions = held_out.observations[:9], held_out.actions[:9]
    first = make(0)
    means, log_variances = EnsembleMembers(first)(jnp.asarray(observations), jnp.asarray(actions))
    assert means.shape == log_variances.shape == (MEMBERS, 9, OBS)
    alone, _ = first.members(jnp.asarray(observations[4]), jnp.asarray(actions[4]))
    np.testing.assert_allclose(means[:, 4], alone, rtol=1e-5)
    for seed in (0, 1):
        world = make(seed)
        predict, members = EnsemblePredict(world, config, None), EnsembleMembers(world)
        found = quality.world_quality(predict, members, SCALE, held_out, starts, 1e9, count=64)
        assert found["accepted_held_out"] == 1.0
        assert all(value is not None for value in found["ranking"]["primal_mean"].values())
        if seed == 0:
            compiled = quality._mean_step._cached._cache_size()
    assert quality._mean_step._cached._cache_size() == compiled
