"""Termination rules against the tasks themselves and against recorded ends."""

from __future__ import annotations

from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.evaluation.tasks import task
from ipd.world.termination import known_rule


@pytest.mark.parametrize(
    ("name", "episodes"), [("hopper", 12), ("walker2d", 8), ("pen", 4), ("halfcheetah", 1)]
)
def test_rule_says_what_the_task_does(name: str, episodes: int) -> None:
    found = task(name)
    rule = known_rule(found.id)
    assert rule is not None
    env = found.make()
    rng = np.random.default_rng(1)
    states, ends = [], []
    for episode in range(episodes):
        env.reset(seed=episode)
        for _ in range(150):
            action = rng.uniform(found.action_low, found.action_high)
            state, _, ended, cut, _ = env.step(action)
            states.append(state)
            ends.append(bool(ended))
            if ended or cut:
                break
    env.close()
    said = np.asarray(rule(jnp.asarray(np.array(states), jnp.float32)))
    np.testing.assert_array_equal(said, ends)
    assert any(ends) == (name != "halfcheetah")


def test_bounds_of_the_rules() -> None:
    hopper, walker = known_rule("hopper-medium-v2"), known_rule("Walker2d-v4")
    assert hopper is not None and walker is not None
    state = np.zeros((7, 11), np.float32)
    state[:, 0] = 1.2
    state[1, 0], state[2, 1], state[3, 1] = 0.69, 0.21, -0.21
    state[4, 10], state[5, 10], state[6, 5] = 101, 99, np.nan
    assert np.asarray(hopper(jnp.asarray(state))).tolist() == [False, True, True, True, True, False, True]
    state = np.zeros((5, 17), np.float32)
    state[:, 0] = 1.2
    state[1, 0], state[2, 0], state[3, 1], state[4, 16] = 0.79, 2.01, -1.01, 500
    assert np.asarray(walker(jnp.asarray(state))).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize(
    "name", [None, "", "Pendulum-v1", "FrankaKitchen-v1", "AdroitHandHammer-v1", "pendulum", "Hopperx-v4"]
)
def test_other_tasks_have_no_rule(name: str | None) -> None:
    assert known_rule(name) is None


@pytest.mark.parametrize("name", ["hopper", "Hopper-v4", "walker2d", "HalfCheetah-v4", "pen-cloned-v1"])
def test_names_that_lead_to_a_rule(name: str) -> None:
    assert known_rule(name) is not None


@pytest.mark.parametrize(
    ("file", "name"),
    [("hopper-medium-replay", "hopper"), ("hopper-medium", "hopper"), ("pen-noisy", "pen")],
)
def test_rule_says_what_was_recorded(shared_data: Path, file: str, name: str) -> None:
    rule = known_rule(name)
    assert rule is not None
    with h5py.File(shared_data / f"{file}.hdf5") as data:
        following, ends = data["next_observations"][:], data["terminals"][:]
    assert ends.sum() > 50
    np.testing.assert_array_equal(np.asarray(rule(jnp.asarray(following))), ends)
