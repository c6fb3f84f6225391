"""A learner small enough to see through: linear regression with noise on the draw."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ipd.runs.loop import Learner


class Config(NamedTuple):
    rate: float = 0.1
    enough: float = 0.0
    """`finished` once the held-out error is below this."""
    poison_at: int = -1
    """From this update on the weights of seed number 1 are NaN."""


class State(NamedTuple):
    weight: jax.Array
    best: jax.Array
    which: jax.Array
    key: jax.Array
    step: jax.Array


traces = {"update": 0}


def init(which: int) -> State:
    zero, infinity = jnp.asarray(0), jnp.asarray(jnp.inf)
    return State(jnp.zeros(3), infinity, jnp.asarray(which), jax.random.key(which), zero)


def draw(config: Config, data: Any, key: jax.Array) -> Any:
    rows = jax.random.randint(key, (5,), 0, data["x"].shape[0])
    return data["x"][rows], data["y"][rows]


def update(config: Config, state: State, batch: Any, key: jax.Array) -> Any:
    traces["update"] += 1
    x, y = batch
    noise = 0.01 * jax.random.normal(key, y.shape) + 0.01 * jax.random.normal(state.key, y.shape)
    error = x @ state.weight - y - noise
    weight = state.weight - config.rate * (x * error[:, None]).mean(0)
    poisoned = (state.step + 1 == config.poison_at) & (state.which == 1)
    weight = jnp.where(poisoned, jnp.nan, weight)
    state = state._replace(weight=weight, step=state.step + 1, key=jax.random.fold_in(state.key, 1))
    return state, {"value_loss": (error**2).mean()}


def validate(config: Config, state: State, data: Any) -> Any:
    error = ((data["x"] @ state.weight - data["y"]) ** 2).mean()
    state = state._replace(best=jnp.minimum(state.best, error))
    return state, {"held_out_error": error}


def finished(config: Config, state: State) -> jax.Array:
    return state.best < config.enough


LEARNER = Learner(draw, update, validate, finished)
PLAIN = Learner(draw, update)
