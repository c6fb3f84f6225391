"""Finished stages of a run, alone: a world model for another planner, values for another policy.

Everything here takes and gives NumPy arrays in logged units, and reads nothing but the run directory.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from ipd.data.episodes import Normaliser
from ipd.runs import files, learning, modelling
from ipd.runs.context import Run, unstack
from ipd.runs.opened import open_run
from ipd.runs.progress import Progress
from ipd.types import PredictFn
from ipd.value import learn as value_learner
from ipd.world.uncertainty import predict_fn


class Imagined(NamedTuple):
    """What a world model says of a batch of pairs, in logged units."""

    next_observations: Float[np.ndarray, "rows obs"]
    rewards: Float[np.ndarray, "rows"]
    terminated: Bool[np.ndarray, "rows"]
    uncertainty: Float[np.ndarray, "rows"]
    """U(s, a), Eq. 8; of the normalised observations, so without unit."""
    reliable: Bool[np.ndarray, "rows"]
    """U below kappa, the threshold that held-out steps gave (Eq. 12)."""


class World:
    """The world model of one seed: `world(observations, actions)`, row by row."""

    def __init__(self, predict: PredictFn, kappa: float, normaliser: Normaliser):
        self.kappa, self._normaliser = kappa, normaliser
        self._predict = eqx.filter_jit(predict)

    def __repr__(self) -> str:
        """Sizes and kappa."""
        return f"<World: {_sizes(self._normaliser)}, kappa {self.kappa:.4g}>"

    def __call__(
        self, observations: Float[np.ndarray, "rows obs"], actions: Float[np.ndarray, "rows act"]
    ) -> Imagined:
        """What follows each pair: mean dynamics and reward of the members. Raises `ValueError` by shapes.

        Actions beyond the run's bounds count as the nearest within: U says nothing of how far beyond.
        """
        bridge = self._normaliser
        _require_rows(bridge, observations, actions)
        said = self._predict(
            jnp.asarray(bridge.observations(observations)), jnp.asarray(bridge.actions(actions))
        )
        following = np.asarray(said.next_observation) * bridge.observation_std + bridge.observation_mean
        unsure = np.asarray(said.uncertainty)
        return Imagined(
            following,
            np.asarray(said.reward) / bridge.reward_scale,
            np.asarray(said.terminated) > 0.5,
            unsure,
            unsure < self.kappa,
        )


class Values:
    """V and Q of one seed, in logged reward units: discounted sums of what is to come."""

    def __init__(self, state: value_learner.State, normaliser: Normaliser, discount: float):
        self.discount, self._state, self._normaliser = discount, state, normaliser
        self._v = eqx.filter_jit(lambda state, rows: value_learner.value_fn(state)(rows))

    def __repr__(self) -> str:
        """Sizes and discount."""
        return f"<Values: {_sizes(self._normaliser)}, discount {self.discount:.4g}>"

    def v(self, observations: Float[np.ndarray, "rows obs"]) -> Float[np.ndarray, "rows"]:
        """V(s). Raises `ValueError` where the shape is another."""
        _require_rows(self._normaliser, observations)
        rows = jnp.asarray(self._normaliser.observations(observations))
        return np.asarray(self._v(self._state, rows)) / self._normaliser.reward_scale

    def q(
        self, observations: Float[np.ndarray, "rows obs"], actions: Float[np.ndarray, "rows act"]
    ) -> Float[np.ndarray, "rows"]:
        """min over the target critics of Q(s, a). Raises `ValueError` where shapes are others."""
        _require_rows(self._normaliser, observations, actions)
        pairs = self._normaliser.observations(observations), self._normaliser.actions(actions)
        found = value_learner.smallest_q(self._state, *map(jnp.asarray, pairs))
        return np.asarray(found) / self._normaliser.reward_scale


def _sizes(normaliser: Normaliser) -> str:
    observation, action = len(normaliser.observation_mean), len(normaliser.action_low)
    return f"{observation} observation and {action} action dimensions"


def _require_rows(normaliser: Normaliser, observations: Any, actions: Any = None) -> None:
    rows = np.shape(observations)[:1]
    sizes = {"observations": (observations, len(normaliser.observation_mean))}
    sizes |= {} if actions is None else {"actions": (actions, len(normaliser.action_low))}
    for name, (given, size) in sizes.items():
        if np.shape(given) != (*rows, size):
            raise ValueError(f"{name} of shape {np.shape(given)}, expected (rows, {size}), one row a pair")


def load_world(folder: str | Path, seed: int | None = None) -> World:
    """The world model of a run whose world stage is finished (`ipd train --until world`).

    `seed` is one of the run's seeds (default: the first). Raises `InputError`.
    """
    run, row = _opened(folder, seed, "world")
    with files.understood(run.folder):
        ensemble = unstack(modelling.ensembles(run), row)
        kappa = float(run.summary("world")["seeds"][row]["kappa"])
        predict = predict_fn(run.config.world, ensemble, modelling.rule_of(run))
    return World(predict, kappa, run.normaliser)


def load_values(folder: str | Path, seed: int | None = None, refitted: bool = False) -> Values:
    """V and Q of a run whose value stage is finished (or, `refitted`, whose refit is).

    `seed` is one of the run's seeds (default: the first). Raises `InputError`.
    """
    run, row = _opened(folder, seed, "refit" if refitted else "value")
    with files.understood(run.folder):
        values = learning.value(run)
        chosen = learning.refit(run, values, "trusted") if refitted else values
    return Values(unstack(chosen.state, row), run.normaliser, run.config.value.discount)


def _opened(folder: str | Path, seed: int | None, stage: str) -> tuple[Run, int]:
    opened = open_run(Path(folder), task=False, needs=(stage,))
    run = dataclasses.replace(opened, progress=Progress(quiet=True))
    return run, run.row(seed)
