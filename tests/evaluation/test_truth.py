"""The truth check: replays of recorded steps, and returns worked by hand."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from ipd.evaluation import truth
from ipd.evaluation.tasks import Task, TaskError, task
from ipd.evaluation.truth import Recorded, Replay, compare, exact_states, replay, replay_error
from ipd.types import Segment


def play(found: Task, steps: int, seed: int) -> Recorded:
    """One random stretch from a reset, as (1, T, ...) float32 rows like those of a file."""
    env = found.make()
    rng = np.random.default_rng(seed)
    state = env.reset(seed=seed)[0]
    rows: list[list[Any]] = []
    for _ in range(steps):
        action = rng.uniform(-1, 1, found.action_size).astype(np.float32)
        following, reward, ended, _, _ = env.step(action)
        rows.append([state, action, reward, following, bool(ended)])
        state = following
        if ended:
            break
    env.close()
    columns = [np.array(column)[None] for column in zip(*rows, strict=True)]
    return Recorded(*(part if part.dtype == bool else part.astype(np.float32) for part in columns))


@pytest.mark.parametrize(("name", "steps"), [("hopper", 200), ("walker2d", 200), ("halfcheetah", 30)])
def test_a_replay_is_the_recording(name: str, steps: int) -> None:
    found = task(name)
    recorded = play(found, steps, seed=5)
    count = recorded.rewards.shape[1]
    whole = np.ones((1, count), bool)
    # From float32 states a long replay drifts; ten steps stay together.
    few = replay(found, recorded.observations[:, 0], recorded.actions[:, :10], whole[:, :10])
    np.testing.assert_allclose(few.rewards, recorded.rewards[:, :10], atol=1e-3)
    np.testing.assert_allclose(few.next_observations, recorded.next_observations[:, :10], atol=1e-3)
    error = replay_error(found, recorded)
    assert error is not None and error < 1e-4


def test_a_replay_stops_where_it_should() -> None:
    hopper = task("hopper")
    recorded = play(hopper, 12, seed=1)
    valid = np.array([[True, True, False, True]])
    stopped = replay(hopper, recorded.observations[:, 0], recorded.actions[:, :4], valid)
    assert (stopped.rewards[0, :2] != 0).all() and (stopped.rewards[0, 2:] == 0).all()
    np.testing.assert_array_equal(stopped.next_observations[0, 1], stopped.next_observations[0, 3])
    fall = play(hopper, 1000, seed=1)
    assert fall.terminated[0, -1] and exact_states(hopper, fall.observations[:, -1]).all()
    last = np.repeat(fall.actions[:, -1:], 3, axis=1)
    ended = replay(hopper, fall.observations[:, -1], last, np.ones((1, 3), bool))
    assert ended.terminated.tolist() == [[True, False, False]] and (ended.rewards[0, 1:] == 0).all()
    never = replay(hopper, recorded.observations[:, 0], recorded.actions[:, :4], np.zeros((1, 4), bool))
    np.testing.assert_array_equal(never.next_observations[0, 0], recorded.observations[0, 0])


def test_clipped_speeds_are_flagged() -> None:
    hopper, cheetah = task("hopper"), task("halfcheetah")
    states = np.zeros((3, 11))
    states[1, 5], states[2, 4] = -10.0, 12.0  # a speed; an angle, which is never clipped
    assert exact_states(hopper, states).tolist() == [True, False, True]
    assert exact_states(cheetah, np.full((1, 17), 11.0)).all()
    clipped = np.full((1, 1, 11), 10.0)
    empty = Recorded(clipped, np.zeros((1, 1, 3)), np.zeros((1, 1)), clipped, np.zeros((1, 1), bool))
    assert replay_error(hopper, empty) is None
    pendulum = task("Pendulum-v1")
    with pytest.raises(TaskError, match="cannot be set"):
        replay(pendulum, np.zeros((1, 3)), np.zeros((1, 1, 1)), np.ones((1, 1), bool))


def test_recorded_file_replays(shared_data: Path) -> None:
    """To float32 rounding under the MuJoCo it was recorded with; its contacts changed in 3.5."""
    hopper = task("hopper")
    with h5py.File(shared_data / "hopper-medium-replay.hdf5") as data:
        rows = np.sort(np.random.default_rng(0).choice(115_200, 500, replace=False))
        names = ("observations", "actions", "rewards", "next_observations", "terminals")
        recorded = Recorded(*(data[name][:][rows][:, None] for name in names))
    exact = exact_states(hopper, recorded.observations[:, 0])
    assert 0.9 < exact.mean() < 1.0
    result = replay(hopper, recorded.observations[:, 0], recorded.actions, np.ones((500, 1), bool))
    np.testing.assert_array_equal(result.terminated[exact], recorded.terminated[exact])
    error = replay_error(hopper, recorded)
    assert error is not None
    if tuple(map(int, version("mujoco").split(".")[:2])) < (3, 5):
        assert error < 1e-5
        np.testing.assert_allclose(result.rewards[exact], recorded.rewards[exact], atol=1e-5)
    else:
        assert 1e-3 < error < 1.0, "this file and this MuJoCo do not agree, and replay_error shows it"


OBS = 11


def fake(
    monkeypatch: pytest.MonkeyPatch, rewards: NDArray[Any], states: NDArray[Any], ends: NDArray[Any]
) -> None:
    """Put a made-up world in the place of the simulator; state = first observation dimension."""

    def pretend(found: Task, observations: Any, actions: Any, valid: NDArray[Any]) -> Replay:
        return Replay(rewards, observation(states), ends)

    monkeypatch.setattr(truth, "replay", pretend)


def observation(first: NDArray[Any]) -> NDArray[np.float64]:
    wide = np.zeros((*np.shape(first), OBS))
    wide[..., 0] = first
    return wide


def test_returns_worked_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Discount 1/2, reward scale 10, V(s) = s; five plans of three steps."""
    no, yes = False, True
    rewards = np.array([[1.0, 2, 3], [1, 0, 0], [1, 1, 0], [9, 9, 9], [1, 2, 3]])
    states = np.array([[4.0, 5, 8], [6, 6, 6], [4, 6, 6], [9, 9, 9], [4, 5, 8]])
    true_ends = np.array([[no, no, no], [yes, no, no], [no, no, no], [no, no, no], [no, no, no]])
    fake(monkeypatch, rewards, states, true_ends)
    segment = Segment(
        observation(np.zeros((5, 3))),
        np.zeros((5, 3, 3)),
        np.array([[1.0, 2, 4], [1, 1, 1], [2, 1, 0], [9, 9, 9], [1, 2, 3]]),
        observation(np.array([[4.0, 5, 10], [4, 4, 16], [4, 8, 0], [9, 9, 9], [4, 5, 8]])),
        np.array([[no, no, no], [no, no, no], [no, yes, no], [no, no, no], [no, no, no]]).astype(np.float32),
        np.array([[0.1, 0.1, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.9], [0.9, 0.1, 0.1], [0.1, 0.1, 0.7]]),
        np.array([[yes, yes, yes], [yes, yes, yes], [yes, yes, no], [yes, yes, yes], [yes, yes, yes]]),
    )
    recorded = Recorded(
        observation(np.zeros((5, 3))),
        np.zeros((5, 3, 3)),
        np.array([[1.0, 2, 3], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 1, 1]]),
        observation(np.array([[0.0, 0, 0], [0, 0, 8], [0, 0, 0], [0, 0, 0], [0, 0, 0]])),
        np.array([[no, no, yes], [no, no, no], [no, no, no], [no, no, no], [no, no, no]]),
    )

    row = compare(
        task("hopper"),
        recorded,
        segment,
        lambda flat: flat[:, 0],
        discount=0.5,
        reward_scale=10.0,
        observation_std=np.full(OBS, 2.0),
        uncertainty_max=0.5,
    )
    # Plan 3 has no reliable step and is left out. Plan 4 is cut after two steps.
    assert row["count"] == 4
    # True, depth 1:   10 + 4/2 = 12 | 10, fell: 10     | 10 + 4/2 = 12          | 12
    #       depth 2:   20 + 5/4      | 10               | 15 + 6/4 = 16.5        | 21.25
    #       depth 3:   27.5 + 8/8    | 10               | 16.5 (plan was over)   | 21.25 (cut)
    np.testing.assert_allclose(row["true_return"], [46 / 4, 69 / 4, 76.25 / 4])
    # Imagined: 12, 21.25, 30 + 10/8 | 12, 16, 17.5 + 2 | 20 + 2, 25 ended, 25   | 12, 21.25, 21.25
    np.testing.assert_allclose(row["imagined_return"], [58 / 4, 83.5 / 4, 97 / 4])
    assert row["pairs"] == {"imagined": [31.25, 19.5, 25.0, 21.25], "true": [28.5, 10.0, 16.5, 21.25]}
    # Recorded: 27.5 + 0 (ended) | 10 + 8/8 = 11 | 15 | 10 + 5 + 2.5 = 17.5.
    gains = [1.0, -1.0, 1.5, 3.75]
    assert row["gain"] == pytest.approx(np.mean(gains)) and row["better"] == 0.75
    assert row["imagined_gain"] == pytest.approx(np.mean([3.75, 8.5, 10.0, 3.75]))
    # Ranks imagined 4 1 3 2, true 4 1 2 3: rho = 1 - 6 (0 + 0 + 1 + 1) / (4 * 15) = 0.8.
    assert row["rank_correlation"] == pytest.approx(0.8)
    # (difference / 2)^2 / 11, over plans going on both sides: at depth 1 plans 0 1 2 4, then 0 2 4, then 0.
    np.testing.assert_allclose(row["observation_error"], np.array([1 / 4, 1 / 3, 1]) / OBS)
    # Uncut: plans 0 1 2 reliable, 3 and 4 not. |31.25 - 28.5|, |19.5 - 10|, |25 - 16.5|; 0 and 0.
    assert row["reliable_share"] == 3 / 5
    assert row["error_reliable"] == pytest.approx((2.75 + 9.5 + 8.5) / 3) and row["error_unreliable"] == 0.0


def test_a_perfect_model_tells_the_truth() -> None:
    hopper = task("hopper")
    recorded = play(hopper, 8, seed=2)
    segment = Segment(
        recorded.observations,
        recorded.actions,
        recorded.rewards,
        recorded.next_observations,
        recorded.terminated.astype(np.float32),
        np.zeros((1, 8)),
        np.ones((1, 8), bool),
    )
    row = compare(
        hopper,
        recorded,
        segment,
        lambda flat: flat.sum(axis=1),
        discount=0.99,
        reward_scale=2.0,
        observation_std=np.ones(OBS),
        uncertainty_max=1.0,
    )
    assert abs(row["gain"]) < 1e-2 and row["imagined_gain"] == pytest.approx(0.0, abs=1e-9)
    assert max(row["observation_error"]) < 1e-5 and row["reliable_share"] == 1.0
    assert row["error_unreliable"] is None and row["rank_correlation"] is None
