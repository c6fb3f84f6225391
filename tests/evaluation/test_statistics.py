"""Statistics against values worked by hand and against known laws."""

from __future__ import annotations

import numpy as np
import pytest

from ipd.evaluation.scores import Row
from ipd.evaluation.statistics import (
    bootstrap,
    iqm,
    last_and_best,
    mean_interval,
    probability_of_improvement,
)


def test_iqm_drops_a_quarter_on_each_side() -> None:
    # Eight values: 0 and 1 go below, 90 and 100 above; mean(2, 3, 4, 7) = 4.
    assert iqm(np.array([[100.0, 2, 3, 0], [1, 4, 7, 90]])) == 4.0


def test_bootstrap_draws_within_a_task() -> None:
    scores = np.array([[1.0, 1, 1], [5, 5, 5]])
    # Every draw within a task gives that task's constant: mixing tasks would not.
    assert bootstrap(scores, lambda x: float(x.mean()), resamples=50) == (3.0, 3.0, 3.0)
    rng = np.random.default_rng(0)
    wide = bootstrap(rng.normal(size=(3, 5)), resamples=400)
    narrow = bootstrap(rng.normal(size=(3, 80)), resamples=400)
    assert wide.low < wide.point < wide.high and narrow.high - narrow.low < 0.5 * (wide.high - wide.low)
    again = [bootstrap(np.arange(6.0).reshape(2, 3), seed=4) for _ in range(2)]
    assert again[0] == again[1]


def test_interval_of_a_mean_knows_seeds_from_episodes() -> None:
    rng = np.random.default_rng(0)
    between = rng.normal(size=(40, 1)) + np.zeros((40, 30))
    within = rng.normal(size=(40, 30))
    # 40 seeds that differ: +- 1.96 / sqrt(40); 1200 episodes that differ: +- 1.96 / sqrt(1200).
    for returns, sigma in ((between, between[:, 0].std()), (within, within.std() * np.sqrt(40 / 1200))):
        found = mean_interval(returns)
        assert found.point == pytest.approx(returns.mean())
        # Drawing episodes within drawn seeds also carries the noise of each seed's mean: up to sqrt(2).
        expected = 2 * 1.96 * sigma / np.sqrt(40)
        assert 0.85 * expected < found.high - found.low < 1.55 * expected
    assert mean_interval(within, seed=1) == mean_interval(within, seed=1)


def test_one_seed_gives_an_interval_over_episodes() -> None:
    found = mean_interval(np.array([[1.0, 2, 3, 4]]))
    assert found.point == 2.5 and 1.0 <= found.low < 2.5 < found.high <= 4.0


def test_probability_of_improvement() -> None:
    # Task 0: pairs (1,0) (1,1) (1,2) (3,0) (3,1) (3,2): wins 1 + tie 1/2 + 3 wins = 4.5 of 6.
    # Task 1: no wins of 6. Mean (0.75 + 0) / 2.
    first, second = np.array([[1.0, 3], [0, 0]]), np.array([[0.0, 1, 2], [4, 5, 6]])
    assert probability_of_improvement(first, second) == 0.375
    with pytest.raises(ValueError, match="tasks"):
        probability_of_improvement(first, second[:1])


def test_last_and_best_stand_apart() -> None:
    means = {0: {100: 5.0, 200: 9.0, 300: 4.0}, 1: {100: 6.0, 200: 2.0, 300: 6.0}}
    rows = [
        Row("ipd", seed, step, episode, mean + offset, 10, None)
        for seed, steps in means.items()
        for step, mean in steps.items()
        for episode, offset in enumerate((-1.0, 1.0) if step < 300 else (-1.0, 0.0, 1.0))
    ]
    found = last_and_best(reversed(rows))["ipd"]
    assert found.seeds == [0, 1] and found.last_step == [300, 300]
    assert found.best_step == [200, 300], "the later of two equals"
    assert [sorted(part) for part in found.last] == [[3.0, 4.0, 5.0], [5.0, 6.0, 7.0]]
    assert sorted(found.best[0]) == [8.0, 10.0]
