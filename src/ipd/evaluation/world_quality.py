"""How far a world model can be believed, measured on episodes it never saw.

Everything is in learner's units. Members predict the *encoded* change of observation
(``ipd.world.ensemble.ChangeScale``); errors are of observations, mean squared over dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr

from ipd.config import WorldConfig
from ipd.maths.gaussians import DIVERGENCES, uncertainty
from ipd.types import PredictFn, Prediction, Steps
from ipd.world.ensemble import ChangeScale, Ensemble
from ipd.world.uncertainty import TerminationRule, predict_fn

Floats = NDArray[np.float32]
MembersFn = Callable[
    [Float[Array, "batch obs"], Float[Array, "batch act"]],
    tuple[Float[Array, "members batch obs"], Float[Array, "members batch obs"]],
]
"""Mean and log-variance of the encoded change of observation, by every member."""

BATCH = 512
"""Rows of every call of the model: one compilation serves all."""
VALUES = 2_000
"""Uncertainties of each kind that are kept for the page."""
DEPTHS = (1, 5, 10)
NOMINAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
PARTICLES = 4
"""Sampled futures of each member and start state."""
PARTICLE_WINDOWS = 256
VARIANTS = {f"{kind}_{pairs}": (kind, pairs) for kind in DIVERGENCES for pairs in ("mean", "max")}
"""Name of an uncertainty -> divergence, reduction over pairs."""


class EnsemblePredict(eqx.Module):
    """``predict`` of a trained ensemble. As a pytree its weights are arguments of the compiled code, so
    that every seed's ensemble runs in the first one's compilation."""

    ensemble: Ensemble
    config: WorldConfig = eqx.field(static=True)
    rule: TerminationRule | None = eqx.field(static=True)

    def __call__(
        self, observation: Float[Array, "batch obs"], action: Float[Array, "batch act"]
    ) -> Prediction:
        return predict_fn(self.config, self.ensemble, self.rule)(observation, action)


class EnsembleMembers(eqx.Module):
    """``members`` of a trained ensemble, a pytree for the same reason."""

    ensemble: Ensemble

    def __call__(
        self, observation: Float[Array, "batch obs"], action: Float[Array, "batch act"]
    ) -> tuple[Float[Array, "members batch obs"], Float[Array, "members batch obs"]]:
        means, log_variances = jax.vmap(self.ensemble.members)(observation, action)
        return jnp.moveaxis(means, 1, 0), jnp.moveaxis(log_variances, 1, 0)


class Windows(NamedTuple):
    """Logged stretches of ``steps`` steps within one held-out episode."""

    observations: Floats
    """(n, steps + 1, obs): the start and what every step led to."""
    actions: Floats
    """(n, steps, act)."""


class Rollouts(NamedTuple):
    """Open-loop predictions under the logged actions."""

    errors: NDArray[np.float64]
    """(n, steps): squared error after each step, mean over dimensions, of mean dynamics."""
    uncertainties: dict[str, NDArray[np.float64]]
    """Of ``VARIANTS``: (n, steps), at the pair that each step was taken from."""


def windows(held_out: Steps, starts: NDArray[np.int64], steps: int, count: int, seed: int = 0) -> Windows:
    """At most ``count`` random windows (with their order shuffled) that cross no episode.

    ``starts`` (episodes + 1,) are the rows where episodes begin, then the number of rows.
    Raises ``ValueError`` where no episode is as long as ``steps``.
    """
    first = [np.arange(begin, end - steps + 1) for begin, end in pairwise(starts)]
    rows = np.concatenate(first)
    if not len(rows):
        raise ValueError(f"no held-out episode has {steps} steps")
    rows = np.random.default_rng(seed).permutation(rows)[:count]
    inside = rows[:, None] + np.arange(steps)
    start, after = np.asarray(held_out.observations)[rows], np.asarray(held_out.next_observations)[inside]
    return Windows(np.concatenate([start[:, None], after], axis=1), np.asarray(held_out.actions)[inside])


def world_quality(
    predict: PredictFn,
    members: MembersFn,
    scale: ChangeScale,
    held_out: Steps,
    starts: NDArray[np.int64],
    uncertainty_max: float,
    horizon: int = 10,
    count: int = BATCH,
    seed: int = 0,
) -> dict[str, Any]:
    """One seed's entry of the ``world`` summary (docs/architecture.md).

    ``predict`` and ``members`` (``EnsemblePredict``, ``EnsembleMembers``) are compiled here and called on
    ``BATCH`` rows at a time. ``horizon`` is shortened to the longest held-out episode. Of the keys:

    * ``one_step_r2``: R^2 of the next observation, of each dimension; ``one_step_change_r2``: of the
      change, the harder number, because a model that predicts no change already explains most of the
      next observation;
    * ``model_error``, ``no_change_error``: of mean dynamics fed with itself, and of the start state;
    * ``coverage``: share of dimensions and windows inside the central interval of the predictive
      distribution, a Gaussian with the mixture's mean and variance. At depth 1 it is exactly the
      ensemble's; deeper, particles that each follow one member with its noise stand for it;
    * ``uncertainty``: U of logged pairs, of the same states with uniform actions, and with the actions
      of other steps;
    * ``ranking``: Spearman correlation of the error at a depth with the largest U on the way there,
      as the threshold cuts a roll-out at its first large U; None where one of them is constant.
    """
    generator = np.random.default_rng(seed)
    observations, actions = np.asarray(held_out.observations), np.asarray(held_out.actions)
    following = np.asarray(held_out.next_observations)

    def judge(pairs: Floats, chosen: Floats) -> Prediction:
        return Prediction(*batched(partial(_predict, predict), pairs, chosen))

    said = judge(observations, actions)
    few = generator.permutation(len(observations))[:VALUES]
    uniform = generator.uniform(-1.0, 1.0, actions[few].shape).astype(np.float32)
    shuffled = actions[generator.permutation(len(actions))[: len(few)]]
    horizon = min(horizon, int(np.diff(starts).max()))
    futures = windows(held_out, starts, horizon, count, seed)
    rolled = open_loop(members, scale, futures)
    still = _squared(futures.observations[:, :1], futures.observations[:, 1:])
    return {
        "kappa": float(uncertainty_max),
        "accepted_held_out": float(np.mean(said.uncertainty < uncertainty_max)),
        "one_step_r2": _r2(np.asarray(said.next_observation), following),
        "one_step_change_r2": _r2(np.asarray(said.next_observation) - observations, following - observations),
        "reward_r2": _r2(np.asarray(said.reward)[:, None], np.asarray(held_out.rewards)[:, None])[0],
        "depth": list(range(1, horizon + 1)),
        "model_error": rolled.errors.mean(0).tolist(),
        "no_change_error": still.mean(0).tolist(),
        "coverage": coverage(members, scale, futures, seed),
        "uncertainty": {
            "held_out": said.uncertainty[few].tolist(),
            "random_actions": judge(observations[few], uniform).uncertainty.tolist(),
            "shuffled": judge(observations[few], shuffled).uncertainty.tolist(),
        },
        "ranking": ranking(rolled),
    }


def open_loop(members: MembersFn, scale: ChangeScale, futures: Windows) -> Rollouts:
    """Roll the mean of the members' means along the logged actions of each window."""

    step = partial(_mean_step, members, scale)
    state, states, divergences = futures.observations[:, 0], [], []
    for depth in range(futures.actions.shape[1]):
        state, each = batched(step, state, futures.actions[:, depth])
        states.append(state)
        divergences.append(each)
    return Rollouts(
        _squared(np.stack(states, axis=1), futures.observations[:, 1:]),
        {name: np.stack([each[name] for each in divergences], axis=1) for name in VARIANTS},
    )


def ranking(rolled: Rollouts, depths: Sequence[int] = DEPTHS) -> dict[str, dict[str, float | None]]:
    """Variant -> depth -> Spearman correlation of the largest U so far with the error at that depth."""
    return {
        name: {
            str(depth): _spearman(each[:, :depth].max(axis=1), rolled.errors[:, depth - 1])
            for depth in depths
            if depth <= rolled.errors.shape[1]
        }
        for name, each in rolled.uncertainties.items()
    }


def coverage(
    members: MembersFn, scale: ChangeScale, futures: Windows, seed: int = 0
) -> dict[str, list[float]]:
    """Observed share inside the central intervals of nominal size ``NOMINAL``, at each of ``DEPTHS``."""

    futures = Windows(*(array[:PARTICLE_WINDOWS] for array in futures))
    step = partial(_gaussian_step, members, scale)
    generator = np.random.default_rng(seed)
    count, horizon, _ = futures.actions.shape
    means, spreads = batched(step, futures.observations[:, 0], futures.actions[:, 0])
    num_members = means.shape[1]
    # (n, particles of all members, obs): particle p follows member p mod members.
    own = np.arange(num_members * PARTICLES) % num_members
    means, spreads = means[:, own], spreads[:, own]
    wide = np.array([norm.ppf(0.5 + 0.5 * size) for size in NOMINAL])
    shares: dict[str, list[float]] = {"nominal": list(NOMINAL)}
    for depth in range(1, max(depth for depth in DEPTHS if depth <= horizon) + 1):
        if depth in DEPTHS:
            # Law of total variance over the particles' next-step Gaussians.
            deviation = np.sqrt((spreads**2).mean(axis=1) + means.var(axis=1))
            off = np.abs(futures.observations[:, depth] - means.mean(axis=1)) / deviation
            shares[str(depth)] = [float((off <= width).mean()) for width in wide]
        if depth == horizon:
            break
        noise = generator.standard_normal(means.shape).astype(np.float32)
        particles = (means + spreads * noise).reshape(count * len(own), -1)
        repeated = np.repeat(futures.actions[:, depth], len(own), axis=0)
        following, deviations = batched(step, particles, repeated)
        rows = np.arange(len(particles))
        means = following[rows, np.tile(own, count)].reshape(means.shape)
        spreads = deviations[rows, np.tile(own, count)].reshape(spreads.shape)
    return shares


@eqx.filter_jit
def _predict(predict: PredictFn, observation: Array, action: Array) -> Prediction:
    return predict(observation, action)


@eqx.filter_jit
def _mean_step(
    members: MembersFn, scale: ChangeScale, observation: Array, action: Array
) -> tuple[Array, dict[str, Array]]:
    """Next observation of mean dynamics, and every variant of U; rows first."""
    means, log_variances = members(observation, action)
    each = {
        name: jax.vmap(lambda m, v, how=how: uncertainty(m, v, *how), in_axes=(1, 1))(means, log_variances)
        for name, how in VARIANTS.items()
    }
    return observation + jax.vmap(scale.decode)(means.mean(0)), each


@eqx.filter_jit
def _gaussian_step(
    members: MembersFn, scale: ChangeScale, observation: Array, action: Array
) -> tuple[Array, Array]:
    """(batch, members, obs) mean and standard deviation of the next observation by every member."""
    means, log_variances = members(observation, action)
    means, log_variances = jnp.moveaxis(means, 0, 1), jnp.moveaxis(log_variances, 0, 1)
    following = observation[:, None] + jax.vmap(jax.vmap(scale.decode))(means)
    return following, jnp.exp(0.5 * log_variances) * scale.std[None, None]


def batched(function: Callable[..., Any], *inputs: Floats) -> Any:
    """Apply a function of rows to ``BATCH`` rows at a time; numpy out, rows on the first axis.

    The last batch is filled up with copies of its first row, so that every call has one shape.
    """
    parts = []
    for begin in range(0, len(inputs[0]), BATCH):
        part = [array[begin : begin + BATCH] for array in inputs]
        rows = len(part[0])
        full = [np.concatenate([array, np.repeat(array[:1], BATCH - rows, axis=0)]) for array in part]
        parts.append(jax.tree.map(partial(_first, rows), function(*map(jnp.asarray, full))))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def _first(rows: int, array: Array) -> NDArray[Any]:
    return np.asarray(array)[:rows]


def _squared(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(((first - second).astype(np.float64) ** 2).mean(axis=-1))


def _r2(predicted: NDArray[Any], actual: NDArray[Any]) -> list[float | None]:
    """Of each column; None where it is constant."""
    residual = ((predicted - actual).astype(np.float64) ** 2).sum(axis=0)
    spread = ((actual - actual.mean(axis=0)).astype(np.float64) ** 2).sum(axis=0)
    return [float(1.0 - r / s) if s > 0 else None for r, s in zip(residual, spread, strict=True)]


def _spearman(first: NDArray[Any], second: NDArray[Any]) -> float | None:
    rho = float(spearmanr(first, second).statistic) if np.ptp(first) > 0 and np.ptp(second) > 0 else math.nan
    return rho if math.isfinite(rho) else None
