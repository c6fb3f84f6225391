"""The stages that train: value, world, cloning, policy. Each returns its finished state, seeds on axis 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.baselines import cloning as cloning_learner
from ipd.config import Config, PolicyConfig
from ipd.data.episodes import Episodes, Normaliser, to_steps
from ipd.evaluation.world_quality import EnsembleMembers, EnsemblePredict, world_quality
from ipd.policy import enriched
from ipd.policy import learn as policy_learner
from ipd.runs import loop
from ipd.runs.context import Run, plain, unstack
from ipd.runs.errors import InputError, RunFailed
from ipd.runs.imagination import read_segments
from ipd.types import Spec, Steps
from ipd.value import learn as value_learner
from ipd.value import refit as refit_learner
from ipd.world import learn as world_learner
from ipd.world.ensemble import ChangeScale, change_scale
from ipd.world.termination import known_rule
from ipd.world.uncertainty import TerminationRule, threshold


class Trained(NamedTuple):
    """A finished stage."""

    fingerprint: str
    step: int
    state: Any


def value(run: Run) -> Trained:
    """Q, V and the quasi-optimal policy (Eqs. 1-6)."""
    config = run.config.value
    fingerprint = run.fingerprint("value", config)
    init = jax.vmap(lambda key: value_learner.init(config, run.spec, jax.random.fold_in(key, 0)))

    def work() -> dict[str, Any]:
        learner = loop.Learner(value_learner.draw, value_learner.update)
        _train(run, "value", fingerprint, learner, config, init, _on_device(run.steps))
        return {}

    fingerprint = run.finish("value", fingerprint, work)
    return _finished(run, "value", fingerprint, init)


def cloning(run: Run) -> Trained:
    """The yardstick: the logged actions by squared error."""
    config = run.config.cloning
    fingerprint = run.fingerprint("cloning", config)
    init = jax.vmap(lambda key: cloning_learner.init(config, run.spec, jax.random.fold_in(key, 0)))

    def work() -> dict[str, Any]:
        learner = loop.Learner(cloning_learner.draw, cloning_learner.update)
        _train(run, "cloning", fingerprint, learner, config, init, _on_device(run.steps))
        return {}

    fingerprint = run.finish("cloning", fingerprint, work)
    return _finished(run, "cloning", fingerprint, init)


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
            world_learner.draw, world_learner.update, world_learner.validate, world_learner.finished
        )
        rows = len(split.train.rewards)
        keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 0), 1))(run.keys("world"))
        bootstrap = jax.vmap(lambda key: world_learner.bootstrap(config, rows, key))(keys)
        data = world_learner.Data(_on_device(split.train), _on_device(split.held_out), bootstrap)
        axes = world_learner.Data(None, None, 0)  # type: ignore[arg-type]
        schedule = run.schedule(config.steps, validate_every=config.validate_every)
        state = _train(run, "world", fingerprint, learner, config, jax.vmap(init_one), data, axes, schedule)
        run.progress.say("world: looking at held-out episodes")
        return {
            "seeds": [_world_summary(run, split, unstack(state.best, row)) for row in range(len(run.seeds))]
        }

    fingerprint = run.finish("world", fingerprint, work)
    return _finished(run, "world", fingerprint, jax.vmap(init_one)), split


def _world_summary(run: Run, split: Split, ensemble: Any) -> dict[str, Any]:
    config = run.config.world
    kappa = float(threshold(config, ensemble, _on_device(split.held_out)))
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
        change_scale(_on_device(train_steps)),
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


def refits(config: Config) -> bool:
    """Whether values are refitted: only where there is something imagined to refit them on."""
    return config.augment.enabled and config.refit.steps > 0


def refit(run: Run, values: Trained, augment: str) -> Trained:
    """The values, going on from `values` with imagined steps among the logged ones."""
    share = run.config.refit.share
    config = dataclasses.replace(run.config.value, steps=run.config.refit.steps)
    fingerprint = run.fingerprint(
        "refit", dataclasses.asdict(config) | {"share": share}, (values.fingerprint, augment)
    )

    def init(keys: jax.Array) -> value_learner.State:
        del keys
        state: value_learner.State = jax.vmap(partial(refit_learner.restart, config))(values.state)
        return state

    def work() -> dict[str, Any]:
        parts = [_imagined_steps(run, seed) for seed in run.seeds]
        counts = [len(part.rewards) for part in parts]
        if not all(counts):
            raise RunFailed("stage refit: a seed imagined nothing; take --refit.steps 0")

        def stacked(*leaves: NDArray[Any]) -> jax.Array:
            most = max(counts)
            return jnp.stack(
                [np.pad(leaf, [(0, most - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)]) for leaf in leaves]
            )

        data = refit_learner.Data(
            _on_device(run.steps), jax.tree.map(stacked, *parts), jnp.asarray(counts, jnp.int32)
        )
        learner = loop.Learner(partial(refit_learner.draw, share), value_learner.update)
        _train(run, "refit", fingerprint, learner, config, init, data, refit_learner.DATA_AXES)
        return {}

    fingerprint = run.finish("refit", fingerprint, work)
    return _finished(run, "refit", fingerprint, init)


def _imagined_steps(run: Run, seed: int) -> Steps:
    """Every valid imagined step of one seed, NumPy."""
    segments, _ = read_segments(run, seed)
    valid = np.asarray(segments.valid)
    return Steps(*(np.asarray(getattr(segments, name))[valid] for name in Steps._fields))


def policy(run: Run, values: Trained, augment: str | None) -> Trained:
    """The Transformer of Eq. 26; `augment` is the fingerprint of the imagined data, None without."""
    config = policy_config(run)
    inputs = (values.fingerprint, augment) if augment else (values.fingerprint,)
    fingerprint = run.fingerprint("policy", config, inputs)
    critics = values.state.target_critics

    def init(keys: jax.Array) -> policy_learner.State:
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
        state: policy_learner.State = jax.vmap(partial(policy_learner.init, config, run.spec))(critics, keys)
        return state

    def work() -> dict[str, Any]:
        parts, scales = [], []
        for row, seed in enumerate(run.seeds):
            state = unstack(values.state, row)
            segments, source = read_segments(run, seed) if augment else (None, np.zeros(0, np.int64))
            if augment and not len(source):
                run.progress.say(
                    f"policy: seed {seed} has no imagined segment and learns from logged steps alone"
                )
            data, scale = enriched.enrich(
                config, run.steps, run.episodes.starts, segments, source, value_learner.value_fn(state),
                partial(value_learner.smallest_q, state), run.config.value.discount,
            )  # fmt: skip
            parts.append(data)
            scales.append(scale)
        learner = loop.Learner(policy_learner.draw, policy_learner.update)
        schedule = run.schedule(config.steps, snapshots=snapshots(config))
        data = enriched.stack_seeds(parts)
        _train(run, "policy", fingerprint, learner, config, init, data, enriched.DATA_AXES, schedule)
        return {"prompt_scale": scales}

    fingerprint = run.finish("policy", fingerprint, work)
    return _finished(run, "policy", fingerprint, init)


def policy_config(run: Run) -> PolicyConfig:
    """The policy's settings; without imagined data no window is drawn from it."""
    config = run.config.policy
    return config if run.config.augment.enabled else dataclasses.replace(config, mix=0.0)


def snapshots(config: PolicyConfig) -> tuple[int, ...]:
    """Steps at which the policy is kept, the last one among them."""
    return tuple(
        sorted({config.steps * (i + 1) // config.snapshots for i in range(config.snapshots)} | {config.steps})
    )


def _train(
    run: Run,
    stage: str,
    fingerprint: str,
    learner: loop.Learner,
    config: Any,
    init: Callable[[jax.Array], Any],
    data: Any,
    axes: Any = None,
    schedule: loop.Schedule | None = None,
) -> Any:
    keys = run.keys(stage)
    schedule = schedule or run.schedule(config.steps)
    store = run.store(stage, fingerprint)
    # What runs once is not worth optimising: random numbers take several times as long to compile at level 3.
    fresh = jax.jit(init, compiler_options={"xla_backend_optimization_level": 1})(keys)
    state, _ = loop.train(
        stage, learner, config, fresh, data, axes, keys, schedule, store, run.log, run.progress
    )
    return state


def _finished(run: Run, stage: str, fingerprint: str, init: Callable[[jax.Array], Any]) -> Trained:
    store = run.store(stage, fingerprint)
    step = store.steps()[-1]
    return Trained(fingerprint, step, store.load(step, like=eqx.filter_eval_shape(init, run.keys(stage))))


def snapshot(run: Run, trained: Trained, stage: str, step: int) -> Any:
    """The state of a stage at an earlier step that was kept."""
    return run.store(stage, trained.fingerprint).load(step, like=trained.state)


def _on_device(steps: Steps) -> Steps:
    moved: Steps = jax.tree.map(jnp.asarray, steps)
    return moved


def spec_of(episodes: Episodes, horizon: int | None) -> Spec:
    """Sizes of the networks; timesteps reach to the task's limit or the longest episode."""
    longest = max(int(episodes.lengths.max()), horizon or 0)
    return Spec(episodes.observation_size, episodes.action_size, longest)
