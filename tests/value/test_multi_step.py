"""Targets over several steps against a plain loop: ends of episodes, terminations, discount."""

from __future__ import annotations

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

from ipd.maths.losses import td_target
from ipd.types import Steps
from ipd.value.multi_step import multi_step

STARTS = np.array([0, 4, 5, 12])
"""Three episodes; the second has one step."""
DISCOUNT = 0.9


def steps() -> Steps:
    """The first and second episode terminate, the third is cut."""
    random = np.random.default_rng(0)
    seen = random.normal(size=(12, 5)).astype(np.float32)
    terminated = np.zeros(12, np.float32)
    terminated[[3, 4]] = 1.0
    rewards = random.normal(size=12).astype(np.float32)
    return Steps(seen, seen[:, :3], rewards, (seen + 1.0).astype(np.float32), terminated)


def value(observations: np.ndarray) -> np.ndarray:
    return np.asarray(observations[:, 0] ** 2 + 1.0)


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_the_target_is_that_of_a_plain_loop(count: int) -> None:
    logged = steps()
    expected = []
    for first, end in pairwise(STARTS):
        for row in range(first, end):
            target, power = 0.0, 1.0
            for ahead in range(row, min(row + count, end)):
                target, power = target + power * logged.rewards[ahead], power * DISCOUNT
            if not logged.terminated[ahead]:
                target += power * value(logged.next_observations[[ahead]])[0]
            expected.append(target)
    found = multi_step(logged, STARTS, count, DISCOUNT)
    following = value(np.asarray(found.next_observations))
    target = td_target(*map(jnp.asarray, (found.rewards, found.terminated, following)), DISCOUNT)
    np.testing.assert_allclose(target, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.observations, logged.observations)
    np.testing.assert_array_equal(found.actions, logged.actions)


def test_one_step_is_left_alone() -> None:
    logged = steps()
    assert multi_step(logged, STARTS, 1, DISCOUNT) is logged


def test_nothing_at_all_stays_nothing() -> None:
    empty = Steps(*(np.asarray(leaf)[:0] for leaf in steps()))
    assert len(multi_step(empty, np.array([0]), 5, DISCOUNT).rewards) == 0
