"""Golden values and gradients of Eqs. 17, 18, 21 and 25."""

from __future__ import annotations

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.maths.returns import cut_return, num_selected, reward_to_go

# rewards 1, 2, 4 at gamma = 1/2 are worth 1 each; V = 8 behind the third step is worth 1.
REWARDS = [1.0, 2.0, 4.0]


def close(actual: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("valid", "terminated", "value", "by_rewards", "by_final"),
    [
        # whole: 1 + 1 + 1 + 8 / 8; the final value bears gamma^3, which Eqs. 17 and 18 forget
        ([1, 1, 1], [0, 0, 0], 4.0, [1.0, 0.5, 0.25], 0.125),
        # cut after one step: 1 + 8 / 2
        ([1, 0, 0], [0, 0, 0], 5.0, [1.0, 0.0, 0.0], 0.5),
        # cut at once: V of the start
        ([0, 0, 0], [0, 0, 0], 8.0, [0.0, 0.0, 0.0], 1.0),
        # ended by the second step: 1 + 1 and nothing behind
        ([1, 1, 0], [0, 1, 0], 2.0, [1.0, 0.5, 0.0], 0.0),
        # a termination said of a step behind the cut is not believed: 1 + 8 / 2
        ([1, 0, 0], [0, 1, 0], 5.0, [1.0, 0.0, 0.0], 0.5),
    ],
)
def test_cut_return(
    valid: list[int], terminated: list[int], value: float, by_rewards: list[float], by_final: float
) -> None:
    arguments = (jnp.array(valid, bool), jnp.array(terminated, float))

    def total(rewards: jax.Array, final: jax.Array) -> jax.Array:
        return cut_return(rewards, *arguments, final, 0.5)

    said, slopes = jax.value_and_grad(total, (0, 1))(jnp.array(REWARDS), jnp.array(8.0))
    close(said, value)
    close(slopes[0], by_rewards)
    close(slopes[1], by_final)


def test_reward_to_go_restarts_at_every_episode() -> None:
    # gamma = 1/2. First episode: rewards 1, 2, 4, V = 8 behind: 4 + 4 = 8, 2 + 4 = 6, 1 + 3 = 4.
    # Second, terminated: rewards 6, 2: 2, 6 + 1 = 7.
    rewards = jnp.array([1.0, 2.0, 4.0, 6.0, 2.0])
    last = jnp.array([False, False, True, False, True])
    tails = jnp.array([99.0, 99.0, 8.0, 99.0, 0.0])  # only those behind a last step count
    close(reward_to_go(rewards, last, tails, 0.5), [4.0, 6.0, 8.0, 7.0, 2.0])
    # the first return sees its own episode only: gamma^k, and gamma^3 of what follows
    by_rewards, by_tails = jax.grad(lambda r, t: reward_to_go(r, last, t, 0.5)[0], (0, 1))(rewards, tails)
    close(by_rewards, [1.0, 0.5, 0.25, 0.0, 0.0])
    close(by_tails, [0.0, 0.0, 0.125, 0.0, 0.0])


def test_num_selected() -> None:
    # Eq. 21: floor(1 * 105 / 10) = 10; floor(0.5 * 105 / 10) = 5; never more than there are
    assert num_selected(1.0, 105, 10, 85) == 10
    assert num_selected(0.5, 105, 10, 85) == 5
    assert num_selected(20.0, 105, 10, 85) == 85
    assert num_selected(1.0, 9, 10, 3) == 0


def test_num_selected_is_not_robbed_by_rounding() -> None:
    # 0.29 * 100 / 1 is 28.999999999999996 in floating point; the floor of the true product is 29
    for hundredths in range(1, 301):
        exact = Fraction(hundredths, 100) * 100
        assert num_selected(hundredths / 100, 100, 1, 10_000) == int(exact)
