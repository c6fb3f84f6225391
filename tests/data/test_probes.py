"""The made datasets have the answers they claim."""

from __future__ import annotations

import numpy as np

from ipd.data import probes


def test_linear_steps_follow_the_matrices() -> None:
    episodes = probes.linear_quadratic(7, 13, seed=1)
    state, action = episodes.observations.astype(np.float64), episodes.actions.astype(np.float64)
    after = state @ probes.LINEAR_A.T + action @ probes.LINEAR_B.T
    np.testing.assert_allclose(episodes.next_observations, after, atol=1e-6)
    reward = [
        -(s @ probes.LINEAR_Q @ s + a @ probes.LINEAR_R @ a) for s, a in zip(state, action, strict=True)
    ]
    np.testing.assert_allclose(episodes.rewards, reward, rtol=1e-5)
    inside = ~episodes.truncated
    assert inside.sum() == 7 * 12 and not episodes.terminated.any()
    np.testing.assert_array_equal(
        episodes.next_observations[inside], episodes.observations[np.flatnonzero(inside) + 1]
    )
    assert np.abs(episodes.actions).max() <= 1
    assert episodes.digest == probes.linear_quadratic(7, 13, seed=1).digest
    assert episodes.digest != probes.linear_quadratic(7, 13, seed=2).digest


def test_linear_optimum_is_the_return_of_its_feedback_and_nothing_near_beats_it() -> None:
    discount, start = 0.9, np.array([1.0, -0.5, 0.3])
    feedback = probes.linear_feedback(discount)

    def value(feedback: probes.DoubleArray) -> float:
        state, total = start, 0.0
        for step in range(400):
            action = -feedback @ state
            total -= discount**step * (state @ probes.LINEAR_Q @ state + action @ probes.LINEAR_R @ action)
            state = probes.LINEAR_A @ state + probes.LINEAR_B @ action
        return total

    best = value(feedback)
    np.testing.assert_allclose(best, -start @ probes.linear_cost(discount) @ start, rtol=1e-10)
    random = np.random.default_rng(0)
    assert all(value(feedback + 0.05 * random.normal(size=(2, 3))) < best for _ in range(20))


def test_chain_ends_as_asked_and_bootstraps_to_its_known_values() -> None:
    discount = 0.9
    for end, second in (("terminated", 1.0), ("truncated", 10.0)):
        chain = probes.chain(4, end)  # type: ignore[arg-type]
        assert chain.starts.tolist() == [0, 2, 4, 6, 8]
        value = np.zeros(2)
        for _ in range(500):  # tabular value iteration on the logged steps
            following = chain.next_observations @ value
            target = chain.rewards + discount * ~chain.terminated * following
            value = np.array([target[0::2].mean(), target[1::2].mean()])
        np.testing.assert_allclose(value, [discount * second, second], rtol=1e-6)
        assert (chain.truncated != chain.terminated)[1::2].all()
