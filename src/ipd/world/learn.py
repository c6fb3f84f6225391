"""World-model stage: every member fits its own bootstrap sample (Eqs. 13-16).

``likelihood`` (default): Gaussian negative log-likelihood per member plus the decaying penalty on
the log-variance. ``literal``: Eq. 14 as printed, which trains only the mean of the members.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from ipd.config import WorldConfig
from ipd.maths.gaussians import (
    literal_consistency,
    negative_log_likelihood,
    variance_penalty,
    variance_weight,
)
from ipd.nn.mlp import MLP, PRNG
from ipd.types import Metrics, Spec, Steps
from ipd.world.ensemble import ChangeScale, Ensemble

LOOKED_AT_ONCE = 4_096
"""Held-out steps: many more would take more memory than the training does."""
IMPROVEMENT = 0.01
"""Held-out error must fall by this share to count as better."""


class Data(NamedTuple):
    """What the stage learns from. Only ``bootstrap`` differs between seeds."""

    train: Steps
    held_out: Steps
    bootstrap: Int[Array, "members samples"]
    """Rows of ``train``, drawn with replacement for each member."""


class State(NamedTuple):
    """Everything the stage knows, for one seed; ``best`` holds each member at its best look."""

    ensemble: Ensemble
    optimiser: Any
    best: Ensemble
    best_error: Float[Array, "members"]
    looks_since_best: Int[Array, "members"]
    step: Int[Array, ""]


def bootstrap(config: WorldConfig, samples: int, key: PRNG) -> Int[Array, "members samples"]:
    """Rows for each member, with replacement."""
    return jax.random.randint(key, (config.num_members, samples), 0, samples)


def init(config: WorldConfig, spec: Spec, scale: ChangeScale, learn_termination: bool, key: PRNG) -> State:
    """Fresh ensemble; no member has been looked at yet."""
    ensemble = Ensemble(
        spec.observation_size,
        spec.action_size,
        config.hidden,
        config.num_members,
        config.log_variance_bounds,
        scale,
        learn_termination,
        key,
    )
    members = config.num_members
    return State(
        ensemble,
        optax.adam(config.learning_rate).init(ensemble),
        jax.tree.map(jnp.copy, ensemble),
        jnp.full(members, jnp.inf),
        jnp.zeros(members, int),
        jnp.asarray(0),
    )


def draw(config: WorldConfig, data: Data, key: PRNG) -> Steps:
    """A batch for each member from its own sample: leaves are ``(members, batch, ...)``."""
    members, samples = data.bootstrap.shape
    pick = jax.random.randint(key, (members, config.batch_size), 0, samples)
    rows = jnp.take_along_axis(data.bootstrap, pick, axis=1)
    if config.loss == "literal":  # Eq. 14 needs all members at the same pairs
        rows = jnp.broadcast_to(rows[:1], rows.shape)
    return jax.tree.map(lambda leaf: leaf[rows], data.train)


def _dynamics_loss(
    config: WorldConfig, ensemble: Ensemble, batch: Steps, step: Array, key: PRNG
) -> tuple[Array, Array]:
    """Consistency loss (members summed, so each has its own gradient scale) and mean log-variance."""
    pairs = jnp.concatenate([batch.observations, batch.actions], axis=-1)
    # the scale of the change is measured, not learned
    targets = jax.lax.stop_gradient(ensemble.scale.encode(batch.next_observations - batch.observations))
    weight = variance_weight(
        step.astype(jnp.float32), config.variance_weight_start, config.variance_decay_steps
    )
    means, log_variances = jax.vmap(lambda net, x: jax.vmap(lambda p: ensemble.gaussian(net, p))(x))(
        ensemble.dynamics, pairs
    )
    if config.loss == "literal":
        noise = jax.random.normal(key, targets.shape[1:])
        loss = jax.vmap(
            lambda t, m, v, n: literal_consistency(t, m, v, n, config.log_variance_target, weight),
            in_axes=(0, 1, 1, 0),
        )(targets[0], means, log_variances, noise).mean()
    else:
        each = jax.vmap(jax.vmap(negative_log_likelihood))(targets, means, log_variances)
        penalty = jax.vmap(jax.vmap(lambda v: variance_penalty(v, config.log_variance_target, weight)))(
            log_variances
        )
        loss = (each + penalty).mean(axis=1).sum()
    return loss, log_variances.mean()


def update(config: WorldConfig, state: State, batch: Steps, key: PRNG) -> tuple[State, Metrics]:
    """One update of every member (Eq. 16)."""

    def world_loss(ensemble: Ensemble) -> tuple[Array, Metrics]:
        consistency, log_variance = _dynamics_loss(config, ensemble, batch, state.step, key)
        pairs = jnp.concatenate([batch.observations, batch.actions], axis=-1)
        rewards = jax.vmap(lambda net, x: jax.vmap(net)(x)[..., 0])(ensemble.reward, pairs)
        reward_loss = ((rewards - batch.rewards) ** 2).mean(axis=1).sum()
        loss = config.dynamics_weight * consistency + config.reward_weight * reward_loss
        metrics = {"dynamics_loss": consistency, "reward_loss": reward_loss, "log_variance": log_variance}
        if ensemble.termination is not None:
            logits = jax.vmap(ensemble.termination)(pairs[0])[:, 0]
            metrics["termination_loss"] = optax.sigmoid_binary_cross_entropy(
                logits, batch.terminated[0]
            ).mean()
            loss = loss + metrics["termination_loss"]
        return loss, metrics

    grads, metrics = jax.grad(world_loss, has_aux=True)(state.ensemble)
    steps, optimiser = optax.adam(config.learning_rate).update(grads, state.optimiser)
    ensemble = optax.apply_updates(state.ensemble, steps)
    return state._replace(ensemble=ensemble, optimiser=optimiser, step=state.step + 1), metrics


def held_out_error(ensemble: Ensemble, held_out: Steps) -> Float[Array, "members"]:
    """Mean squared error of each member on held-out steps: encoded change plus reward."""
    pairs = jnp.concatenate([held_out.observations, held_out.actions], axis=-1)
    targets = ensemble.scale.encode(held_out.next_observations - held_out.observations)

    def member(dynamics: MLP, reward: MLP) -> Array:
        def step(row: tuple[Array, Array, Array]) -> Array:
            pair, target, logged = row
            mean, _ = ensemble.gaussian(dynamics, pair)
            return jnp.mean((mean - target) ** 2) + (reward(pair)[0] - logged) ** 2

        return jnp.mean(jax.lax.map(step, (pairs, targets, held_out.rewards), batch_size=LOOKED_AT_ONCE))

    return jax.vmap(member)(ensemble.dynamics, ensemble.reward)


def member_done(config: WorldConfig, state: State) -> Bool[Array, "members"]:
    """Members whose best look lies ``patience`` looks back; they no longer change."""
    return state.looks_since_best >= config.patience


def finished(config: WorldConfig, state: State) -> Bool[Array, ""]:
    """Whether no member can improve any more."""
    return member_done(config, state).all()


def validate(config: WorldConfig, state: State, data: Data) -> tuple[State, Metrics]:
    """A look at the held-out error; keeps each member where it is best."""
    error = held_out_error(state.ensemble, data.held_out)
    open_ = ~member_done(config, state)
    better = open_ & (error < (1.0 - IMPROVEMENT) * state.best_error)

    def keep(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    state = state._replace(
        best=_best_with(state.best, state.ensemble, keep, open_.any()),
        best_error=jnp.where(better, error, state.best_error),
        looks_since_best=jnp.where(better, 0, state.looks_since_best + open_),
    )
    return state, {"held_out_error": error.mean(), "best_error": state.best_error.mean()}


def _best_with(best: Ensemble, newest: Ensemble, keep: Any, is_open: Bool[Array, ""]) -> Ensemble:
    """``best`` with the members that ``keep`` selects, and the newest termination head while one is open.

    A seed that is done must not change any more while others of its batch still train.
    """
    dynamics = jax.tree.map(keep, newest.dynamics, best.dynamics)
    reward = jax.tree.map(keep, newest.reward, best.reward)
    return eqx.tree_at(
        lambda e: (e.dynamics, e.reward, e.termination),
        best,
        (dynamics, reward, jax.tree.map(partial(jnp.where, is_open), newest.termination, best.termination)),
        is_leaf=lambda x: x is None,
    )
