"""The world stage: the ensemble of Eqs. 7-16, trained on most episodes and judged on the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.baselines.material import on_device
from ipd.data.columns import moments
from ipd.data.episodes import Episodes, Normaliser
from ipd.evaluation.world_quality import EnsembleMembers, EnsemblePredict, world_quality
from ipd.runs import loop, streaming
from ipd.runs.context import Run, plain, unstack
from ipd.runs.errors import InputError
from ipd.runs.trained import Trained, finished, train
from ipd.types import Steps
from ipd.world import learn as world_learner
from ipd.world.ensemble import ChangeScale, change_scale
from ipd.world.termination import known_rule
from ipd.world.uncertainty import TerminationRule, threshold

HELD_OUT_STEPS = 100_000
"""Steps that suffice to judge a model; of large sets fewer than the share `held_out` are kept from it."""


class Split(NamedTuple):
    """Which steps the world model learns from and is judged by, and how its imagined episodes end."""

    training: NDArray[np.int64]
    """Rows, ascending."""
    held_out: Steps
    """NumPy."""
    held_out_starts: NDArray[np.int64]
    scale: ChangeScale
    rule: TerminationRule | None
    learn_termination: bool


def world(run: Run) -> tuple[Trained, Split]:
    """The ensemble, each member at its best look (Eqs. 7-16); its summary holds kappa and its quality."""
    config = run.config.world
    fingerprint = run.fingerprint("world", config)
    split = split_episodes(run)

    def init_one(key: jax.Array) -> world_learner.State:
        key = jax.random.fold_in(jax.random.fold_in(key, 0), 0)
        return world_learner.init(config, run.spec, split.scale, split.learn_termination, key)

    def work() -> dict[str, Any]:
        learner = loop.Learner(
            world_learner.draw, world_learner.update, world_learner.validate, world_learner.finished,
            batch_axis=1,  # behind the members
        )  # fmt: skip
        data = streaming.world(run, split.training, split.held_out) if run.disk else _whole(run, split)
        axes = world_learner.Data(None, None, 0)  # type: ignore[arg-type]
        schedule = run.schedule(config.steps, validate_every=config.validate_every)
        state = train(run, "world", fingerprint, learner, config, jax.vmap(init_one), data, axes, schedule)
        run.progress.say("world: looking at held-out episodes")
        rows = range(len(run.seeds))
        told = [_world_summary(run, split, unstack(state.best, row)) for row in rows]
        run.stop("world", fingerprint, {seed: "tensor kappa is not finite on the held-out episodes"
                                        for seed, each in zip(run.seeds, told, strict=True)
                                        if each["kappa"] is None})  # fmt: skip
        errors = plain(np.asarray(state.best_error))
        return {"seeds": [each | {"member_error": errors[row]} for row, each in zip(rows, told, strict=True)]}

    fingerprint = run.finish("world", fingerprint, work)
    return finished(run, "world", fingerprint, jax.vmap(init_one)), split


def _whole(run: Run, split: Split) -> world_learner.Data:
    config, rows = run.config.world, len(split.training)
    keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 0), 1))(run.keys("world"))
    bootstrap = jax.vmap(lambda key: world_learner.bootstrap(config, rows, key))(keys)
    return world_learner.Data(on_device(_steps_at(run, split.training)), on_device(split.held_out), bootstrap)


def _steps_at(run: Run, rows: NDArray[np.int64]) -> Steps:
    return Steps(*(leaf[rows] for leaf in run.steps))


def _world_summary(run: Run, split: Split, ensemble: Any) -> dict[str, Any]:
    config = run.config.world
    kappa = float(threshold(config, ensemble, on_device(split.held_out)))
    predict, members = EnsemblePredict(ensemble, config, split.rule), EnsembleMembers(ensemble)
    # as deep whatever a run imagines: runs that imagine otherwise share the model and what is said of it
    quality = world_quality(predict, members, ensemble.scale, split.held_out, split.held_out_starts, kappa)
    return dict(plain(quality)) | {"kappa": kappa if np.isfinite(kappa) else None}


def require_held_out(episodes: Episodes) -> None:
    """`InputError` with fewer than two episodes: one trains the world model, one judges it."""
    if episodes.num_episodes < 2:
        raise InputError(
            f"{episodes.source}: one episode only; the world model needs one more to be judged on"
        )


def split_episodes(run: Run) -> Split:
    """Held-out episodes by a fixed draw, the same for every seed."""
    config, episodes = run.config.world, run.episodes
    order = np.random.default_rng(0).permutation(episodes.num_episodes)
    count = min(max(1, round(config.held_out * episodes.num_episodes)), episodes.num_episodes - 1)
    within = np.cumsum(episodes.lengths[order]) <= HELD_OUT_STEPS
    count = min(count, max(1, int(within.sum())))
    is_held_out = np.zeros(episodes.num_episodes, bool)
    is_held_out[order[:count]] = True
    # A step whose next observation was not stored is no target for a dynamics model.
    known = np.ones(episodes.num_steps, bool) if episodes.unlogged_next is None else ~episodes.unlogged_next
    apart = is_held_out[episodes.episode_index]
    training, held_out = np.flatnonzero(known & ~apart), np.flatnonzero(known & apart)
    lengths = np.bincount(episodes.episode_index[held_out])
    rule = rule_of(run)
    ends = bool(episodes.terminated[training].any())
    return Split(
        training,
        _steps_at(run, held_out),
        np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int64),
        _scale(run, training),
        rule,
        rule is None and config.termination != "never" and ends,
    )


def _scale(run: Run, training: NDArray[np.int64]) -> ChangeScale:
    if run.disk is None:
        return change_scale(on_device(_steps_at(run, training)))
    steps: Any = run.steps
    mean, std = moments(steps.next_observations, steps.observations, training)
    return ChangeScale(jnp.asarray(mean, jnp.float32), jnp.asarray(np.maximum(std, 1e-6), jnp.float32))


def ensembles(run: Run) -> Any:
    """The finished ensembles, seeds on axis 0, of the stage's files alone: the data may have gone."""
    fingerprint = run.made("world") or ""
    store = run.store("world", fingerprint)
    names = store.names(max(store.steps(), default=0))
    head = any(name.startswith("best/termination/") for name in names)
    size = jnp.zeros(run.spec.observation_size)

    def init_one(key: jax.Array) -> world_learner.State:
        return world_learner.init(run.config.world, run.spec, ChangeScale(size, size), head, key)

    return finished(run, "world", fingerprint, jax.vmap(init_one)).state.best


def rule_of(run: Run) -> TerminationRule | None:
    """How imagined episodes end by the run's settings, where the task has a rule."""
    known = run.config.world.termination == "known"
    return termination_rule(run.job.task, run.normaliser) if known else None


@cache
def _rule(task: str) -> Callable[..., Any] | None:
    return known_rule(task)


def termination_rule(task: str | None, normaliser: Normaliser) -> TerminationRule | None:
    """The task's own rule, for normalised observations."""
    rule = None if task is None else _rule(task)
    if rule is None:
        return None
    mean, std = jnp.asarray(normaliser.observation_mean), jnp.asarray(normaliser.observation_std)
    return lambda observation: rule(observation * std + mean)
