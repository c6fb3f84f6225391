"""Roll-outs side by side against a plain loop over one environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ipd.evaluation.rollouts import RandomController, ZeroController, rollout
from ipd.evaluation.tasks import Task, task


class Feedback:
    """Acts on the observation, differently in each copy, and remembers what it was asked."""

    def __init__(self, copies: int) -> None:
        self.copies, self.batches, self.resets = copies, list[NDArray[np.float32]](), list[int]()

    def reset(self, rows: int) -> None:
        self.resets.append(rows)

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> Any:
        self.batches.append(observations.copy())
        gain = np.repeat(np.arange(1, self.copies + 1), len(observations) // self.copies)
        return self.law(observations, gain[:, None])

    @staticmethod
    def law(observations: NDArray[np.float32], gain: Any) -> NDArray[np.float32]:
        # Exactly the same for one row and for many, unlike np.tanh.
        return np.clip(gain * observations[:, 2:5], -1.0, 1.0).astype(np.float32)


@pytest.fixture(scope="module")
def hopper() -> Task:
    return task("hopper")


def test_equals_a_plain_loop(hopper: Task) -> None:
    copies, episodes, seed = 2, 3, 7
    controller = Feedback(copies)
    results = rollout(hopper, controller, episodes, seed, copies)
    assert results.returns.shape == results.lengths.shape == (copies, episodes)
    env = hopper.make()
    for copy in range(copies):
        for episode in range(episodes):
            observation, _ = env.reset(seed=seed + episode)
            total, length, over = 0.0, 0, False
            while not over:
                action = Feedback.law(np.asarray(observation, np.float32)[None], copy + 1)[0]
                observation, reward, ended, cut, _ = env.step(action)
                total, length, over = total + reward, length + 1, ended or cut
            assert results.returns[copy, episode] == pytest.approx(total, abs=1e-9)
            assert results.lengths[copy, episode] == length
    env.close()
    assert len(set(results.lengths.ravel())) > 1, "episodes of one length would not test the mask"
    assert controller.resets == [copies * episodes]
    assert {batch.shape for batch in controller.batches} == {(copies * episodes, 11)}
    assert {batch.dtype for batch in controller.batches} == {np.dtype(np.float32)}
    assert len(controller.batches) == results.lengths.max()
    # Every copy starts from the same states, and a finished row repeats its last observation.
    np.testing.assert_array_equal(controller.batches[0][:episodes], controller.batches[0][episodes:])
    first_over = int(results.lengths.ravel().argmin())
    np.testing.assert_array_equal(controller.batches[-1][first_over], controller.batches[-2][first_over])


def test_the_same_seed_gives_the_same_episodes(hopper: Task) -> None:
    first, again = (rollout(hopper, RandomController(hopper, 3), 4, 0) for _ in range(2))
    np.testing.assert_array_equal(first.returns, again.returns)
    other = rollout(hopper, RandomController(hopper, 3), 4, 50)
    assert not np.array_equal(first.returns, other.returns)


def test_an_episode_ends_at_its_time_limit() -> None:
    pendulum = task("Pendulum-v1")
    results = rollout(pendulum, ZeroController(pendulum), 2, 0)
    assert (results.lengths == 200).all()


def test_actions_are_cut_only_where_the_task_does_not_limit_them(hopper: Task) -> None:
    pendulum = task("Pendulum-v1")

    class Loud(ZeroController):
        def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.full((len(observations), self.task.action_size), 5.0, np.float32)

    class Full(Loud):
        def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.full((len(observations), self.task.action_size), 2.0, np.float32)

    loud, full = (rollout(pendulum, kind(pendulum), 1, 0).returns for kind in (Loud, Full))
    np.testing.assert_array_equal(loud, full)
    # Hopper charges the action it is given: 1e-3 (5^2 - 2^2) 3 each step.
    loud_run, full_run = (rollout(hopper, kind(hopper), 1, 0) for kind in (Loud, Full))
    length = loud_run.lengths[0, 0]
    np.testing.assert_allclose(full_run.returns - loud_run.returns, 0.063 * length, rtol=1e-6)


def test_a_bad_controller_is_stopped(hopper: Task) -> None:
    class Broken(ZeroController):
        def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
            actions = super().act(observations, rewards)
            actions[4, 1] = np.nan
            return actions

    with pytest.raises(FloatingPointError, match="action not finite in step 0 of episode 1, policy 1"):
        rollout(hopper, Broken(hopper), 3, 0, copies=2)

    class Flat(ZeroController):
        def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> Any:
            return np.zeros(3, np.float32)

    with pytest.raises(ValueError, match=r"\(3,\), not \(2, 3\)"):
        rollout(hopper, Flat(hopper), 2, 0)
