"""The store, the normaliser and the requirements of later stages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ipd.data import episodes as ep
from ipd.data import fit
from ipd.data.episodes import DataError, Episodes, Normaliser, fit_normaliser, to_steps
from ipd.data.sources import load

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture
def episodes(arrays: Arrays, write: Callable[..., str]) -> Episodes:
    return load(write(arrays))


def test_lengths_returns_and_places(episodes: Episodes) -> None:
    assert (episodes.num_steps, episodes.num_episodes) == (12, 3)
    assert (episodes.observation_size, episodes.action_size) == (3, 2)
    assert episodes.lengths.tolist() == [4, 3, 5]
    assert episodes.returns.tolist() == [406, 315, 545]  # 100+101+102+103, 104+105+106, 107+...+111
    assert episodes.timesteps.tolist() == [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, 3, 4]
    assert episodes.episode_index.tolist() == [0] * 4 + [1] * 3 + [2] * 5


def test_select_keeps_whole_episodes_in_the_order_asked(episodes: Episodes) -> None:
    chosen = episodes.select([2, 0])
    assert chosen.starts.tolist() == [0, 5, 9] and chosen.returns.tolist() == [545, 406]
    rows = [7, 8, 9, 10, 11, 0, 1, 2, 3]
    for key in ("observations", "actions", "rewards", "next_observations", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(chosen, key), getattr(episodes, key)[rows])
    with pytest.raises(DataError, match="no episode selected"):
        episodes.select([])


def test_digest_follows_content_only(episodes: Episodes) -> None:
    assert dataclasses.replace(episodes, source="elsewhere", task="Hopper-v4").digest == episodes.digest
    assert len(episodes.digest) == 16
    for key in ("observations", "actions", "rewards", "next_observations", "terminated", "truncated"):
        changed = getattr(episodes, key).copy()
        changed[-1] = 0 if changed.dtype == bool and changed[-1] else 1
        assert dataclasses.replace(episodes, **{key: changed}).digest != episodes.digest, key
    assert dataclasses.replace(episodes, unlogged_next=episodes.terminated).digest != episodes.digest
    assert dataclasses.replace(episodes, starts=np.array([0, 4, 12])).digest != episodes.digest


def test_arrays_that_disagree_are_refused(episodes: Episodes) -> None:
    for change in (
        {"rewards": episodes.rewards[:-1]},
        {"starts": np.array([0])},
        {"starts": np.array([0, 4, 4, 12])},
        {"starts": np.array([0, 4, 11])},
        {"starts": np.array([1, 4, 12])},
    ):
        with pytest.raises(DataError):
            dataclasses.replace(episodes, **change)


def test_normaliser_gives_zero_mean_unit_std_and_floors_the_std(episodes: Episodes) -> None:
    observations = episodes.observations.copy()
    observations[:, 1] = 7.0
    following = episodes.next_observations.copy()
    following[:, 1] = 7.0
    episodes = dataclasses.replace(episodes, observations=observations, next_observations=following)
    normaliser = fit_normaliser(episodes, reward_scale=0.5)
    scaled = normaliser.observations(observations)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled[:, [0, 2]].std(0), 1, atol=1e-6)
    assert normaliser.observation_std[1] == np.float32(1e-3) and (scaled[:, 1] == 0).all()
    steps = to_steps(episodes, normaliser)
    assert all(np.asarray(array).dtype == np.float32 for array in steps)
    np.testing.assert_array_equal(steps.rewards, episodes.rewards / 2)
    np.testing.assert_array_equal(steps.terminated, episodes.terminated)  # the timeouts are not in it
    np.testing.assert_array_equal(steps.next_observations[0], scaled[1])
    assert normaliser.observations(observations[0].astype(np.float64)).dtype == np.float32


def test_mean_of_many_large_observations_keeps_its_digits() -> None:
    count = 200_000
    observations = np.tile(np.float32([[1000.0, 0.0], [1000.5, 1.0]]), (count // 2, 1))
    zeros = np.zeros(count, np.float32)
    long = Episodes(
        observations=observations,
        actions=zeros[:, None],
        rewards=zeros,
        next_observations=observations,
        terminated=zeros > 0,
        truncated=zeros > 0,
        starts=np.array([0, count]),
    )
    normaliser = fit_normaliser(long)
    assert normaliser.observation_mean[0] == 1000.25 and normaliser.observation_std[0] == 0.25


FLOATS = st.floats(-1, 1, width=32)


@given(hnp.arrays(np.float32, (4, 2), elements=FLOATS))
def test_unit_bounds_are_the_bitwise_identity(actions: np.ndarray[Any, Any]) -> None:
    one = np.ones(2, np.float32)
    normaliser = Normaliser(one, one, -one, one, np.float32(1))
    assert normaliser.actions(actions).tobytes() == actions.tobytes()
    assert normaliser.raw_actions(actions).tobytes() == actions.tobytes()


@given(
    hnp.arrays(np.float32, (2,), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, (2,), elements=st.floats(np.float32(0.1), 100, width=32)),
    hnp.arrays(np.float32, (5, 2), elements=st.floats(0, 1, width=32)),
)
def test_actions_map_to_unit_range_and_back(
    low: np.ndarray[Any, Any], width: np.ndarray[Any, Any], share: np.ndarray[Any, Any]
) -> None:
    one, high = np.ones(2, np.float32), low + width
    normaliser = Normaliser(one, one, low, high, np.float32(1))
    raw = np.clip(low + share * width, low, high)
    scaled = normaliser.actions(raw)
    assert (np.abs(scaled) <= 1).all()
    again = normaliser.raw_actions(scaled)
    assert ((again >= low) & (again <= high)).all()
    np.testing.assert_allclose(again, raw, atol=1e-4)
    np.testing.assert_allclose(normaliser.actions(np.stack([low, high])), [[-1, -1], [1, 1]], atol=1e-4)
    assert (np.abs(normaliser.raw_actions(3 * scaled)) <= np.maximum(np.abs(low), np.abs(high))).all()


def test_bounds_come_from_the_task_or_else_from_the_data(episodes: Episodes) -> None:
    assert fit_normaliser(episodes).action_low.tolist() == [-1, -1]
    wide = dataclasses.replace(episodes, actions=episodes.actions * np.float32([3, 0]) + np.float32([0, 2]))
    normaliser = fit_normaliser(wide)
    np.testing.assert_array_equal(normaliser.action_low, wide.actions.min(0))
    np.testing.assert_array_equal(normaliser.action_high, wide.actions.max(0))
    assert np.isfinite(normaliser.actions(wide.actions)).all()  # the constant dimension too
    given = fit_normaliser(wide, [-4, 1], [4, 3])
    assert given.action_low.tolist() == [-4, 1] and given.action_high.tolist() == [4, 3]


def test_normaliser_survives_json_bit_for_bit(episodes: Episodes) -> None:
    scale = ep.locomotion_reward_scale(episodes)
    assert scale == 1000 / (545 - 315)
    normaliser = fit_normaliser(episodes, [-1.1, -1.3], [1.7, 1.9], reward_scale=scale)
    again = Normaliser.from_dict(json.loads(json.dumps(normaliser.to_dict())))
    for left, right in zip(normaliser, again, strict=True):
        assert left.dtype == right.dtype == np.float32 and left.tobytes() == right.tobytes()


def test_equal_returns_are_not_scaled(episodes: Episodes) -> None:
    assert ep.locomotion_reward_scale(episodes.select([1, 1])) == 1.0


def test_sizes_of_another_task_are_refused(episodes: Episodes) -> None:
    fit.require_sizes(episodes, 3, 2, "Point-v0")
    with pytest.raises(DataError, match="'observations': 3 dimensions, but task Hopper-v4 has 11"):
        fit.require_sizes(episodes, 11, 2, "Hopper-v4")
    with pytest.raises(DataError, match="'actions': 2 dimensions, but task Hopper-v4 has 3"):
        fit.require_sizes(episodes, 3, 3, "Hopper-v4")


def test_a_task_of_the_same_names_in_another_order_is_refused(episodes: Episodes) -> None:
    episodes = dataclasses.replace(episodes, observation_names=("goal/0", "goal/1", "place/0"))
    for names in (("goal[0]", "goal[1]", "place[0]"), ("a", "b", "c"), ()):
        fit.require_sizes(episodes, 3, 2, "Reach-v0", names)
    with pytest.raises(DataError, match=r"dimension 0 is goal/0, but that of task Reach-v0 is place\[0\]"):
        fit.require_sizes(episodes, 3, 2, "Reach-v0", ("place[0]", "goal[0]", "goal[1]"))


def test_what_a_set_was_recorded_with_and_the_task_is_not_made_with_is_told() -> None:
    options = {"g": 10.0, "max_episode_steps": 200}
    assert fit.other_options({}, options, "P-v1") == fit.other_options({"g": 10.0}, options, "P-v1") == []
    (found,) = fit.other_options({"g": 2.0, "max_episode_steps": 200, "wrappers": ["W"]}, options, "P-v1")
    assert "in P-v1 with g=2.0, wrappers=['W'], tried in it with g=10.0, no wrappers" in found.message


def test_actions_outside_the_bounds_are_refused_with_their_row(episodes: Episodes) -> None:
    ep.require_bounds(episodes, [-1, -1], [1, 1])
    with pytest.raises(DataError, match="row 0: dimension 0 is -1, outside") as caught:
        ep.require_bounds(episodes, [-0.5, -1], [1, 1])
    assert caught.value.row == 0 and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="row 11: dimension 1 is 1, outside"):
        fit_normaliser(episodes, [-1, -1], [1, 0.99])
    for low, high, says in (([-1], [1], "bounds have 1"), ([-np.inf, -1], [1, 1], "not finite")):
        with pytest.raises(DataError, match=says):
            ep.require_bounds(episodes, low, high)


def test_episodes_shorter_than_a_window_are_refused(episodes: Episodes) -> None:
    fit.require_windows(episodes, 2, 3)
    with pytest.raises(DataError, match="longest episode has 5 steps, a window needs 6"):
        fit.require_windows(episodes, 3, 3)


def test_an_error_is_one_line_whatever_is_put_in() -> None:
    error = DataError("bad\nthing", file="a\nb.hdf5", key="rewards", row=0, cure="mend it")
    assert str(error) == "a b.hdf5, key 'rewards', row 0: bad thing; mend it"


def test_names_that_are_no_list_are_refused() -> None:
    rows = np.zeros((4, 2), np.float32)
    ends = np.arange(4) == 3
    with pytest.raises(DataError, match=r"observation_names.*is 'ab'; give a list of strings"):
        Episodes.from_arrays(rows, rows, rows[:, 0], ends, ~ends & False, observation_names="ab")


def test_names_that_are_there_twice_are_refused() -> None:
    rows, ends = np.zeros((4, 3), np.float32), np.array([False, False, False, True])
    names = ("speed", "speed", "angle")
    with pytest.raises(DataError, match=r"has 3 dimensions and 3 names for them, 2 different"):
        Episodes.from_arrays(rows, rows, rows[:, 0], ends, ~ends & False, observation_names=names)


def test_actions_near_the_largest_number_keep_their_differences() -> None:
    largest = np.finfo(np.float32).max
    low, high = np.float32(0.5) * largest, np.float32(0.9) * largest
    actions = np.linspace(low, high, 5, dtype=np.float32)[:, None]
    rows, ends = np.zeros((5, 1), np.float32), np.arange(5) == 4
    normaliser = fit_normaliser(Episodes.from_arrays(rows, actions, rows[:, 0], ends, ~ends & False))
    np.testing.assert_allclose(normaliser.actions(actions)[:, 0], [-1, -0.5, 0, 0.5, 1], atol=1e-6)
