"""What is logged, against the task's own rule; and simulators brought back from the log alone."""

from __future__ import annotations

import numpy as np
import pytest

from ipd.collect.recording import Environments, Log, flatten, record_type
from ipd.evaluation.tasks import Task
from ipd.runs.errors import RunFailed

HORIZON, EDGE = 10, 1.5
# At step 27 one environment terminates while others go on.
TIMES, SLOTS = 27, 3


def record(task: Task, log: Log, environments: Environments, begin: int, end: int) -> None:
    for step in range(begin, end):
        actions = np.random.default_rng(step).uniform(task.action_low, task.action_high, (SLOTS, 2))
        environments.step(actions.astype(np.float32), log[step])


@pytest.fixture
def log(task: Task) -> Log:
    found: Log = np.zeros((TIMES, SLOTS), record_type(task))
    with Environments(task, SLOTS, seed=4, stream=1) as environments:
        record(task, found, environments, 0, TIMES)
    return found


def test_rows_follow_the_rule_of_the_task(log: Log) -> None:
    flat = flatten(log)
    assert flat.shape == (TIMES * SLOTS,)
    place, action, after = flat["observation"][:, 0], flat["action"], flat["next_observation"]
    np.testing.assert_allclose(after[:, 0], place + 0.1 * (action[:, 0] - 2) + 0.05 * action[:, 1], atol=1e-6)
    np.testing.assert_allclose(after[:, 1], flat["observation"][:, 1] + 0.1, atol=1e-6)
    np.testing.assert_allclose(flat["reward"], action[:, 0])


def test_termination_and_truncation_stay_apart(log: Log) -> None:
    flat = flatten(log)
    np.testing.assert_array_equal(flat["terminated"], abs(flat["next_observation"][:, 0]) > EDGE)
    full = np.round(10 * flat["next_observation"][:, 1]).astype(int) == HORIZON
    cut = flat["truncated"] & ~full
    assert flat["terminated"].any() and full.any()
    np.testing.assert_array_equal(flat["truncated"][full], True)
    # What is cut short otherwise: the last episode of each environment, unless it had just ended.
    assert cut.sum() == (~(log["terminated"] | log["truncated"])[-1]).sum() > 0
    assert not (cut & flat["terminated"]).any()


def test_next_observation_is_never_the_reset_of_the_next_episode(log: Log) -> None:
    flat = flatten(log)
    ends = flat["terminated"] | flat["truncated"]
    same = (flat["next_observation"][:-1] == flat["observation"][1:]).all(1)
    np.testing.assert_array_equal(same, ~ends[:-1])
    begins = np.append(True, ends[:-1])
    np.testing.assert_array_equal(flat["observation"][:, 1] == 0, begins)


def test_episodes_stand_in_the_order_in_which_they_began(log: Log) -> None:
    starts = np.argwhere(log["observation"][:, :, 1] == 0)
    flat = flatten(log)
    firsts = flat["observation"][flat["observation"][:, 1] == 0]
    np.testing.assert_array_equal(firsts, log["observation"][starts[:, 0], starts[:, 1]])
    assert len(np.unique(firsts, axis=0)) == len(firsts)


def test_rows_cut_the_last_episode(log: Log) -> None:
    whole, part = flatten(log), flatten(log, 13)
    assert not (whole["terminated"] | whole["truncated"])[12]
    assert part["truncated"][12] and not part["terminated"][12]
    np.testing.assert_array_equal(part[:12], whole[:12])


@pytest.mark.parametrize("at", [1, 9, 23, 26])
def test_simulators_come_back_from_the_log(task: Task, log: Log, at: int) -> None:
    again = log.copy()
    again[at:] = np.zeros((), log.dtype)
    with Environments(task, SLOTS, seed=4, stream=1) as environments:
        assert environments.go_on_from(again[:at]) == []
        record(task, again, environments, at, TIMES)
    np.testing.assert_array_equal(again, log)


def test_an_episode_that_cannot_be_replayed_is_cut(forgetful: Task) -> None:
    log: Log = np.zeros((20, SLOTS), record_type(forgetful))
    with Environments(forgetful, SLOTS, seed=4, stream=1) as environments:
        record(forgetful, log, environments, 0, 15)
    running = np.flatnonzero(~(log["terminated"] | log["truncated"])[14])
    with Environments(forgetful, SLOTS, seed=4, stream=1) as environments:
        assert environments.go_on_from(log[:15]) == running.tolist() != []
        assert log["truncated"][14, running].all()
        record(forgetful, log, environments, 15, 20)
    flat = flatten(log)
    ends = flat["terminated"] | flat["truncated"]
    np.testing.assert_array_equal(flat["observation"][1:, 1] == 0, ends[:-1])


def test_a_task_that_breaks_is_named(task: Task) -> None:
    log: Log = np.zeros((1, SLOTS), record_type(task))
    with (
        Environments(task, SLOTS, seed=0, stream=0) as environments,
        pytest.raises(RunFailed, match="Line-v0"),
    ):
        environments.step(np.full((SLOTS, 2), np.nan, np.float32), log[0])
