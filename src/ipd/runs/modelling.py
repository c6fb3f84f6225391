"""The world stage: the ensemble of Eqs. 7-16, trained on most episodes and judged on the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.baselines.material import on_device
from ipd.data.episodes import Episodes, Normaliser, to_steps
from ipd.evaluation.world_quality import EnsembleMembers, EnsemblePredict, world_quality
from ipd.runs import loop
from ipd.runs.context import Run, plain, unstack
from ipd.runs.errors import InputError
from ipd.runs.trained import Trained, finished, train
from ipd.types import Steps
from ipd.world import learn as world_learner
from ipd.world.ensemble import ChangeScale, change_scale
from ipd.world.termination import known_rule
from ipd.world.uncertainty import TerminationRule, threshold


class Split(NamedTuple):
    """The world model's data, NumPy, and how its imagined episodes end."""

    train: Steps
    held_out: Steps
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
        rows = len(split.train.rewards)
        keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 0), 1))(run.keys("world"))
        bootstrap = jax.vmap(lambda key: world_learner.bootstrap(config, rows, key))(keys)
        data = world_learner.Data(on_device(split.train), on_device(split.held_out), bootstrap)
        axes = world_learner.Data(None, None, 0)  # type: ignore[arg-type]
        schedule = run.schedule(config.steps, validate_every=config.validate_every)
        state = train(run, "world", fingerprint, learner, config, jax.vmap(init_one), data, axes, schedule)
        run.progress.say("world: looking at held-out episodes")
        return {
            "seeds": [_world_summary(run, split, unstack(state.best, row)) for row in range(len(run.seeds))]
        }

    fingerprint = run.finish("world", fingerprint, work)
    return finished(run, "world", fingerprint, jax.vmap(init_one)), split


def _world_summary(run: Run, split: Split, ensemble: Any) -> dict[str, Any]:
    config = run.config.world
    kappa = float(threshold(config, ensemble, on_device(split.held_out)))
    predict, members = EnsemblePredict(ensemble, config, split.rule), EnsembleMembers(ensemble)
    horizon = run.config.augment.imagine_steps
    quality = world_quality(
        predict, members, ensemble.scale, split.held_out, split.held_out_starts, kappa, horizon
    )
    return dict(plain(quality)) | {"kappa": kappa}


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
    held_out, train = (_modelled(episodes.select(np.sort(part))) for part in (order[:count], order[count:]))
    train_steps = to_steps(train, run.normaliser)
    rule = (
        termination_rule(run.task.id if run.task else None, run.normaliser)
        if config.termination == "known"
        else None
    )
    learn = rule is None and config.termination != "never" and bool(train.terminated.any())
    return Split(
        train_steps,
        to_steps(held_out, run.normaliser),
        held_out.starts,
        change_scale(on_device(train_steps)),
        rule,
        learn,
    )


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


def _modelled(episodes: Episodes) -> Episodes:
    """Without the steps whose next observation was not stored: they are no target for a dynamics model."""
    if episodes.unlogged_next is None or not episodes.unlogged_next.any():
        return episodes
    keep = ~episodes.unlogged_next
    lengths = np.bincount(episodes.episode_index[keep], minlength=episodes.num_episodes)
    rows = {
        name: getattr(episodes, name)[keep]
        for name in ("observations", "actions", "rewards", "next_observations", "terminated", "truncated")
    }
    starts = np.concatenate([[0], np.cumsum(lengths[lengths > 0])]).astype(np.int64)
    return dataclasses.replace(episodes, starts=starts, unlogged_next=None, **rows)
