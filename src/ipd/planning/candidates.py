"""Which logged states to replan (Eqs. 17-22)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ipd.config import AugmentConfig
from ipd.maths.returns import cut_return, num_selected
from ipd.planning.mpc import rollout_return, unroll
from ipd.types import PolicyFn, PredictFn, Steps, ValueFn


def imagined_return(
    predict: PredictFn,
    value: ValueFn,
    policy: PolicyFn,
    config: AugmentConfig,
    discount: float,
    observations: Float[Array, "batch obs"],
    action_size: int,
    uncertainty_max: Float[Array, ""],
) -> Float[Array, "batch"]:
    """Return of the quasi-optimal policy's mean actions in the model for ``imagine_steps``, Eq. 17.

    Cut and bootstrapped with V where the pair is unreliable, 0 after a termination.
    """
    noise = jnp.zeros((config.imagine_steps, observations.shape[0], action_size), observations.dtype)
    rollout = unroll(predict, policy, observations, noise, uncertainty_max)
    return rollout_return(rollout, value, discount)


def real_return(stretches: Steps, value: ValueFn, discount: float) -> Float[Array, "batch"]:
    """Recorded return of stretches of steps, plus V behind them, Eq. 18.

    Leaves are ``(batch, time, ...)``: the ``imagine_steps`` steps from each state on, all of one episode.
    """
    return jax.vmap(cut_return, in_axes=(0, 0, 0, 0, None))(
        stretches.rewards,
        jnp.ones(stretches.rewards.shape, bool),
        stretches.terminated,
        value(stretches.next_observations[:, -1]),
        discount,
    )


def choose(
    rows: Int[np.ndarray, "candidates"],
    gap: Float[np.ndarray, "candidates"],
    episode: Int[np.ndarray, "candidates"],
    lengths: Int[np.ndarray, "episodes"],
    config: AugmentConfig,
) -> Int[np.ndarray, "chosen"]:
    """Rows with the largest ``gap`` = imagined - real return, K of each episode (Eqs. 20-22).

    ``episode`` is each candidate's episode, ascending; ``spacing`` keeps chosen rows of one episode
    at least that far apart. Ties go to the earlier row. The result ascends.
    """
    order = np.lexsort((rows, -gap, episode))
    rows, episode = rows[order], episode[order]
    first = np.searchsorted(episode, np.arange(len(lengths) + 1))
    chosen: list[Int[np.ndarray, "part"]] = []
    for e in range(len(lengths)):
        ranked = rows[first[e] : first[e + 1]]
        count = num_selected(config.augment_ratio, int(lengths[e]), config.imagine_steps, len(ranked))
        chosen.append(_spaced(ranked, config.spacing)[:count])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _spaced(ranked: Int[np.ndarray, "ranked"], spacing: int) -> Int[np.ndarray, "kept"]:
    """Best-first rows without those closer than ``spacing`` to a better one."""
    if spacing <= 1:
        return ranked
    open_: Bool[np.ndarray, "ranked"] = np.ones(len(ranked), bool)
    for i, row in enumerate(ranked):
        if open_[i]:
            open_[i + 1 :] &= np.abs(ranked[i + 1 :] - row) >= spacing
    return ranked[open_]
