"""Returns of real, imagined and planned stretches of steps (Eqs. 17, 18, 21, 25), on one stretch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Scalar = Float[Array, ""]


def cut_return(
    rewards: Float[Array, "time"],
    valid: Bool[Array, "time"],
    terminated: Float[Array, "time"],
    final_value: Scalar,
    discount: float,
) -> Scalar:
    """sum over valid k of gamma^k r_k + gamma^m V(s_m), where m steps are valid (Eqs. 17, 18, 25).

    ``valid`` is true up to the cut and false after it. ``final_value`` is V at the state that the
    last valid step reached (at the start state if none is valid); it counts 0 after a termination.
    """
    powers = discount ** jnp.arange(rewards.shape[0], dtype=rewards.dtype)
    length = valid.sum().astype(rewards.dtype)
    alive = 1.0 - jnp.max(jnp.where(valid, terminated, 0.0))
    return jnp.sum(jnp.where(valid, powers * rewards, 0.0)) + discount**length * alive * final_value


def reward_to_go(
    rewards: Float[Array, "steps"],
    last: Bool[Array, "steps"],
    tails: Float[Array, "steps"],
    discount: float,
) -> Float[Array, "steps"]:
    """Discounted return from every step to the end of its episode, episodes one after another.

    ``last`` marks the last step of each episode; ``tails`` holds, at those steps, the value of what
    follows (0 behind a termination, V behind a truncation).
    """

    def back(later: Scalar, step: tuple[Scalar, Bool[Array, ""], Scalar]) -> tuple[Scalar, Scalar]:
        reward, is_last, tail = step
        now = reward + discount * jnp.where(is_last, tail, later)
        return now, now

    return jax.lax.scan(back, jnp.zeros((), rewards.dtype), (rewards, last, tails), reverse=True)[1]


def num_selected(augment_ratio: float, episode_steps: int, imagine_steps: int, candidates: int) -> int:
    """K = min(floor(N_aug |tau| / H_I), candidates), Eq. 21."""
    return min(int(augment_ratio * episode_steps / imagine_steps + 1e-9), candidates)
