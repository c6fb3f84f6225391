"""Candidates and imagined segments with made-up models (Eqs. 17-24, Algorithm 1)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ipd.config import AugmentConfig
from ipd.planning.augment import imagine
from ipd.planning.candidates import choose, imagined_return, real_return
from ipd.types import Prediction, Segment, Steps

CONFIG = AugmentConfig(imagine_steps=6, plan_steps=2, num_plans=3)
GAMMA = 0.9


def count_up(observation: jax.Array, action: jax.Array) -> Prediction:
    """s' = s + 1, reward s; ends on reaching the second entry; unsure from the third on."""
    following = observation + jnp.broadcast_to(jnp.array([1.0, 0.0, 0.0]), observation.shape)
    ended = (following[:, 0] >= observation[:, 1]).astype(jnp.float32)
    unsure = (observation[:, 0] >= observation[:, 2]).astype(jnp.float32)
    return Prediction(following, observation[:, 0], ended, unsure)


def value(observation: jax.Array) -> jax.Array:
    return 100.0 + observation[:, 0]


def policy(observation: jax.Array, noise: jax.Array) -> jax.Array:
    return jnp.clip(0.1 * observation[:, :2] + noise, -1.0, 1.0)


# start, end at, unsure from
STARTS = jnp.array([[0.0, 99.0, 99.0], [0.0, 3.0, 99.0], [0.0, 99.0, 4.0], [0.0, 99.0, 0.0], [2.0, 4.0, 3.0]])


def segments(config: AugmentConfig = CONFIG) -> Segment:
    kappa = jnp.asarray(0.5)
    return jax.jit(lambda key: imagine(count_up, value, policy, config, GAMMA, STARTS, 2, key, kappa))(
        jax.random.key(0)
    )


def test_segments_end_before_the_first_unsure_pair_and_after_a_termination() -> None:
    said = segments()
    # whole; ended by its third step; four sure steps; none; one sure step although it ends on the next
    np.testing.assert_array_equal(np.asarray(said.valid).sum(1), [6, 3, 4, 0, 1])
    # valid steps come first
    assert all((np.diff(row.astype(int)) <= 0).all() for row in np.asarray(said.valid))
    assert float(said.terminated[1, 2]) == 1.0 and not said.terminated[1, :2].any()


def test_a_segment_is_a_chain_of_the_model_s_own_steps() -> None:
    said = segments()
    assert said.observations.shape == (5, 6, 3) and said.actions.shape == (5, 6, 2)
    for row, valid in enumerate(np.asarray(said.valid)):
        steps = np.flatnonzero(valid)
        np.testing.assert_array_equal(said.observations[row, 0], STARTS[row])
        np.testing.assert_allclose(said.observations[row, steps, 0], STARTS[row, 0] + steps)
        np.testing.assert_allclose(said.next_observations[row, steps, 0], STARTS[row, 0] + steps + 1)
        np.testing.assert_allclose(said.rewards[row, steps], said.observations[row, steps, 0])
    assert float(jnp.abs(said.actions).max()) <= 1.0


def test_one_plan_executes_the_mean_action_and_more_do_not() -> None:
    greedy = segments(dataclasses.replace(CONFIG, num_plans=1))
    flat = greedy.observations.reshape(-1, 3)
    np.testing.assert_allclose(greedy.actions.reshape(-1, 2), policy(flat, jnp.zeros((30, 2))), rtol=1e-6)


def test_real_return_is_the_recorded_one(small_steps: Steps) -> None:
    steps = jax.tree.map(jnp.asarray, small_steps)._replace(terminated=jnp.zeros(97).at[20].set(1.0))
    rows = np.array([3, 40, 15])
    stretches = jax.tree.map(lambda leaf: leaf[rows[:, None] + np.arange(6)], steps)
    said = real_return(stretches, value, GAMMA)
    # Eq. 18 with the gamma^H it forgets; row 15 runs into the termination at its last step (row 20)
    for row, total in zip(rows, np.asarray(said), strict=True):
        plain = sum(GAMMA**k * float(small_steps.rewards[row + k]) for k in range(6))
        behind = 0.0 if row == 15 else 100.0 + float(small_steps.next_observations[row + 5, 0])
        np.testing.assert_allclose(total, plain + GAMMA**6 * behind, rtol=1e-5)


def test_imagined_return_is_cut_bootstrapped_and_ended() -> None:
    said = imagined_return(count_up, value, policy, CONFIG, GAMMA, STARTS, 2, jnp.asarray(0.5))
    g = GAMMA
    expected = [
        # Eq. 17: rewards 0 to 5, then V(6) = 106 at gamma^6
        sum(g**k * k for k in range(6)) + g**6 * 106,
        # ended by the third step: 0 + g + 2 g^2 and nothing behind
        g + 2 * g**2,
        # cut where the fifth pair is unsure: V(4)
        g + 2 * g**2 + 3 * g**3 + g**4 * 104,
        # cut at once: V of the start
        100.0,
        # one step from 2, then V(3)
        2 + g * 103,
    ]
    np.testing.assert_allclose(said, expected, rtol=1e-5)


def plain_choice(
    rows: np.ndarray, gap: np.ndarray, episode: np.ndarray, lengths: np.ndarray, c: AugmentConfig
) -> list:
    """Eqs. 20-22 for each episode by a plain loop."""
    chosen: list[int] = []
    for e, length in enumerate(lengths):
        mine = sorted((-gap[i], rows[i]) for i in np.flatnonzero(episode == e))
        kept: list[int] = []
        for _, row in mine:
            if all(abs(row - other) >= c.spacing for other in kept):
                kept.append(int(row))
        chosen += kept[: min(int(c.augment_ratio * length // c.imagine_steps), len(kept))]
    return sorted(chosen)


def test_choice_is_that_of_a_plain_loop() -> None:
    random = np.random.default_rng(5)
    lengths = np.array([40, 7, 61, 25])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    # candidates have 5 steps before them and 6 after; the second episode is too short for any
    rows = np.concatenate([np.arange(s + 5, s + n - 6) for s, n in zip(starts, lengths, strict=False)])
    episode = np.searchsorted(starts, rows, side="right") - 1
    gap = random.integers(0, 9, len(rows)).astype(np.float64)  # with ties
    for ratio in (0.5, 1.0, 50.0):
        for spacing in (1, 4):
            config = AugmentConfig(imagine_steps=6, augment_ratio=ratio, spacing=spacing)
            said = choose(rows, gap, episode, lengths, config)
            assert said.tolist() == plain_choice(rows, gap, episode, lengths, config)
            assert 1 not in episode[np.searchsorted(rows, said)]
