"""Statistics against values worked by hand and against known laws."""

from __future__ import annotations

import numpy as np
import pytest

from ipd.report.statistics import (
    bootstrap,
    iqm,
    mean_interval,
    performance_profile,
    probability_of_improvement,
    profile_band,
)


def test_iqm_drops_a_quarter_on_each_side_of_all_runs() -> None:
    # Eight values: 0 and 1 go below, 90 and 100 above; mean(2, 3, 4, 7) = 4.
    assert iqm([np.array([100.0, 2, 3, 0]), np.array([1.0, 4, 7, 90])]) == 4.0
    # Six values: one goes on each side, as n // 4 has it.
    assert iqm([np.array([0.0, 1, 2]), np.array([3.0, 4, 50])]) == 2.5


def test_iqm_lets_tasks_count_the_same_however_many_runs_they_have() -> None:
    # Weights 0.8 and 4/3; from 2 to 6 of 8: 0.4 of 2, all of 3, 4 and 7, and 0.4 / 3 of 90.
    unequal = [np.array([100.0, 2, 3, 0, 1]), np.array([4.0, 7, 90])]
    assert iqm(unequal) == pytest.approx((0.8 + 2.4 + 16 / 3 + 28 / 3 + 12) / 4)
    few, many = np.array([80.0, 81, 82, 83]), np.array([20.0, 21, 22, 23])
    assert iqm([few, np.repeat(many, 3)]) == pytest.approx(float(iqm([few, many])))
    assert iqm([np.repeat(few, 3), many]) == pytest.approx(float(iqm([few, many])))


def test_bootstrap_draws_within_a_task() -> None:
    scores = [np.full(3, 1.0), np.full(2, 5.0)]
    # Every draw within a task gives that task's constant: mixing tasks would not.
    assert bootstrap(lambda parts: np.mean([p.mean(axis=-1) for p in parts], axis=0), scores) == (
        3.0,
        3.0,
        3.0,
    )
    rng = np.random.default_rng(0)
    wide = bootstrap(iqm, list(rng.normal(size=(3, 5))))
    narrow = bootstrap(iqm, list(rng.normal(size=(3, 80))))
    assert wide.low < wide.point < wide.high and narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    assert bootstrap(iqm, [np.arange(6.0)], seed=4) == bootstrap(iqm, [np.arange(6.0)], seed=4)


def test_interval_of_a_mean_knows_seeds_from_episodes() -> None:
    rng = np.random.default_rng(0)
    between = rng.normal(size=(40, 1)) + np.zeros((40, 30))
    within = rng.normal(size=(40, 30))
    # 40 seeds that differ: +- 1.96 / sqrt(40); 1200 episodes that differ: +- 1.96 / sqrt(1200).
    for returns, sigma in ((between, between[:, 0].std()), (within, within.std() * np.sqrt(40 / 1200))):
        found = mean_interval(list(returns))
        assert found.point == pytest.approx(returns.mean())
        # Drawing episodes within drawn seeds also carries the noise of each seed's mean: up to sqrt(2).
        expected = 2 * 1.96 * sigma / np.sqrt(40)
        assert 0.85 * expected < found.high - found.low < 1.55 * expected
    assert mean_interval(list(within), seed=1) == mean_interval(list(within), seed=1)


def test_one_seed_gives_an_interval_over_episodes() -> None:
    found = mean_interval([np.array([1.0, 2, 3, 4])])
    assert found.point == 2.5 and 1.0 <= found.low < 2.5 < found.high <= 4.0


def test_probability_of_improvement() -> None:
    # Task 0: pairs (1,0) (1,1) (1,2) (3,0) (3,1) (3,2): wins 1 + tie 1/2 + 3 wins = 4.5 of 6.
    # Task 1: no wins of 6. Mean (0.75 + 0) / 2.
    first, second = list(np.array([[1.0, 3], [0, 0]])), list(np.array([[0.0, 1, 2], [4, 5, 6]]))
    assert probability_of_improvement(first, second) == 0.375
    with pytest.raises(ValueError, match="tasks"):
        probability_of_improvement(first, second[:1])
    # Task 0's share can be resampled to anything between 1/6 and 1, task 1 stays lost.
    low, high = bootstrap(probability_of_improvement, first, second)[1:]
    assert 0.05 <= low < 0.375 < high <= 0.5


def test_performance_profile_is_the_share_above_with_tasks_counting_the_same() -> None:
    scores = [np.array([10.0, 20, 30, 40]), np.array([15.0])]
    thresholds = np.array([0.0, 10, 15, 35, 40])
    # above 10: 3/4 and 1; above 15: 3/4 and 0 (strictly above); above 35: 1/4 and 0.
    expected = [1.0, 0.875, 0.375, 0.125, 0.0]
    np.testing.assert_array_equal(performance_profile(scores, thresholds), expected)
    band = profile_band(scores, thresholds)
    np.testing.assert_array_equal(band.point, expected)
    np.testing.assert_array_equal([band.low[0], band.high[0], band.high[-1]], [1.0, 1.0, 0.0])
    assert band.low[2] < 0.375 < band.high[2]
