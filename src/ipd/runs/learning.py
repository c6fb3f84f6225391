"""The stages that train beside the world model: the baselines (value and cloning among them), refit, policy.

Each returns its finished state, seeds on axis 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.baselines.cloning import cloned
from ipd.baselines.material import Material
from ipd.config import Config, PolicyConfig, ValueConfig
from ipd.data.episodes import Episodes
from ipd.policy import enriched
from ipd.policy import learn as policy_learner
from ipd.runs import loop, streaming
from ipd.runs.algorithms import ALGORITHMS, code_of
from ipd.runs.augmented import read_segments, read_steps
from ipd.runs.context import Run, plain, unstack
from ipd.runs.errors import RunFailed
from ipd.runs.modelling import Split, world
from ipd.runs.trained import Kept, Trained, finished, train
from ipd.types import Spec, Steps
from ipd.value import learn as value_learner
from ipd.value import refit as refit_learner
from ipd.value.multi_step import multi_step


def _cloned(run: Run) -> NDArray[np.int64] | None:
    config, episodes = run.config.cloning, run.episodes
    if config.best_share == 1:
        return None
    return np.flatnonzero(cloned(config, np.asarray(run.steps.rewards), episodes.starts))


def _one_step(run: Run) -> None:
    if run.config.value.multi_step > 1:
        raise RunFailed(
            "stage value: --value.multi-step looks ahead in the whole set, but this one is streamed; take 1, "
            "or keep it in memory by a larger --stream.above-steps"
        )


STREAMED: dict[str, Callable[[Run], NDArray[np.int64] | None]] = {"value": _one_step, "cloning": _cloned}
"""Baselines that learn from steps one by one -> their rows, None for all; the others read the whole set."""


def baseline(run: Run, name: str, tell: Kept | None = None) -> Trained:
    """A row of `ALGORITHMS`: what it needs, then its own stage, which tells of its snapshots."""
    algorithm = ALGORITHMS[name]
    module, stage = algorithm.module, algorithm.stage
    config = getattr(run.config, stage)
    # a finished baseline acts without what it learned from
    needs = () if run.trusted else algorithm.needs
    values = value(run) if "value" in needs else None
    modelled = world(run) if "world" in needs else None
    inputs = tuple(t.fingerprint for t in (values, modelled and modelled[0]) if t)
    judged = run.config.algo == name
    kept = run.snapshots(config.steps) if judged else ()
    settings = (dataclasses.asdict(config), kept) if judged else config
    fingerprint = run.fingerprint(stage, settings, inputs, code_of(algorithm))
    init = jax.vmap(lambda key: module.init(config, run.spec, jax.random.fold_in(key, 0)))

    def work() -> dict[str, Any]:
        if run.disk and stage in STREAMED:
            data: Any = streaming.steps(run, STREAMED[stage](run), config.batch_size)
            told: list[Any] = [{}]
        else:
            rows = range(len(run.seeds)) if inputs else range(1)
            parts = [module.prepare(config, _material(run, values, modelled, row)) for row in rows]
            data = _stack_seeds([part for part, _ in parts], module.DATA_AXES)
            told = [constants for _, constants in parts] * (len(run.seeds) // len(parts))
        learner = loop.Learner(module.draw, module.update)
        schedule = run.schedule(config.steps, snapshots=kept)
        constants = {"constants": {key: [plain(each[key]) for each in told] for key in told[0]}}
        run.tell(stage, constants)
        train(run, stage, fingerprint, learner, config, init, data, module.DATA_AXES, schedule, tell)
        return constants

    fingerprint = run.finish(stage, fingerprint, work)
    return finished(run, stage, fingerprint, init)


def _material(run: Run, values: Trained | None, modelled: tuple[Trained, Split] | None, row: int) -> Material:
    found = Material(run.steps, run.episodes.starts, run.spec, float(run.normaliser.reward_scale))
    if values is not None:
        value_of = value_learner.value_fn(unstack(values.state, row))
        found = found._replace(values=enriched.batched(value_of, np.asarray(run.steps.observations)))
    if modelled is not None:
        trained, split = modelled
        rule = None if split.rule is None else jax.tree_util.Partial(split.rule)
        found = found._replace(ensemble=unstack(trained.state.best, row), rule=rule)
    return found


def _stack_seeds(parts: list[Any], axes: Any) -> Any:
    """One pytree for all seeds: stacked where `axes` has 0, the first seed's where it has None."""
    if axes is None:
        return parts[0]

    def join(axis: int | None, *subtrees: Any) -> Any:
        if axis is None:
            return subtrees[0]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *subtrees)

    return jax.tree.map(join, axes, *parts, is_leaf=lambda axis: axis is None)


def value(run: Run) -> Trained:
    """Q, V and the quasi-optimal policy (Eqs. 1-6)."""
    return baseline(run, "iql")


def cloning(run: Run) -> Trained:
    """The yardstick: the logged actions by squared error."""
    return baseline(run, "bc")


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
        data = _mixed(run, config)
        learner = loop.Learner(partial(refit_learner.draw, share), value_learner.update)
        train(run, "refit", fingerprint, learner, config, init, data, refit_learner.DATA_AXES)
        return {}

    fingerprint = run.finish("refit", fingerprint, work)
    return finished(run, "refit", fingerprint, init)


def _mixed(run: Run, config: ValueConfig) -> Any:
    """Logged and imagined steps, on the device or as a feed."""
    imagined = [_imagined_steps(run, seed) for seed in run.seeds]
    ahead = run.steps
    if not run.disk:  # a streamed run looks one step ahead
        ahead = multi_step(run.steps, run.episodes.starts, config.multi_step, config.discount)
    stopped = run.stopped("refit")
    for place, seed in enumerate(run.seeds):
        if not len(imagined[place].rewards):
            imagined[place] = ahead
            if seed not in stopped:
                run.progress.say(f"refit: seed {seed} imagined nothing and goes on with logged steps")
    if run.disk:
        return streaming.refitted(run, imagined)
    data = refit_learner.Data(ahead, *refit_learner.stack_seeds(imagined))  # type: ignore[arg-type]
    return jax.tree.map(jnp.asarray, data)


def _imagined_steps(run: Run, seed: int) -> Steps:
    """Every imagined step of one seed, NumPy; none looks ahead beyond its segment."""
    found, config = read_steps(run, seed), run.config.value
    return multi_step(found.steps, found.starts, config.multi_step, config.discount)


def policy(run: Run, values: Trained, augment: str | None, tell: Kept | None = None) -> Trained:
    """The Transformer of Eq. 26, which tells of its snapshots.

    `augment` is the fingerprint of the imagined data, None without.
    """
    config = policy_config(run)
    inputs = (values.fingerprint, augment) if augment else (values.fingerprint,)
    kept = run.snapshots(config.steps)
    fingerprint = run.fingerprint("policy", (dataclasses.asdict(config), kept), inputs)
    critics = values.state.target_critics

    def init(keys: jax.Array) -> policy_learner.State:
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys)
        state: policy_learner.State = jax.vmap(partial(policy_learner.init, config, run.spec))(critics, keys)
        return state

    def work() -> dict[str, Any]:
        data, scales = _enriched(run, config, values, augment)
        summary = {"prompt_scale": scales, "best_return": _best_discounted_return(run)}
        run.tell("policy", summary)
        learner = loop.Learner(policy_learner.draw, policy_learner.update)
        schedule = run.schedule(config.steps, snapshots=kept)
        train(run, "policy", fingerprint, learner, config, init, data, enriched.DATA_AXES, schedule, tell)
        return summary

    fingerprint = run.finish("policy", fingerprint, work)
    return finished(run, "policy", fingerprint, init)


def _enriched(
    run: Run, config: PolicyConfig, values: Trained, augment: str | None
) -> tuple[Any, list[float]]:
    """What the policy learns from, on the device or as a feed, and std(V) of every seed."""
    parts, scales = [], []
    for row, seed in enumerate(run.seeds):
        state = unstack(values.state, row)
        segments, source = read_segments(run, seed) if augment else (None, np.zeros(0, np.int64))
        if augment and not len(source):
            run.progress.say(
                f"policy: seed {seed} has no imagined segment and learns from logged steps alone"
            )
        part, scale = enriched.enrich(
            config, run.steps, run.episodes.starts, segments, source, value_learner.value_fn(state),
            partial(value_learner.smallest_q, state), run.config.value.discount,
        )  # fmt: skip
        parts.append(part)
        scales.append(scale)
    if run.disk:
        return streaming.enriched_steps(run, parts), scales
    return jax.tree.map(jnp.asarray, enriched.stack_seeds(parts)), scales


def _best_discounted_return(run: Run) -> float:
    """Largest discounted return of a logged episode, scaled reward units."""
    starts, discount = run.episodes.starts, run.config.value.discount
    powers = discount ** np.arange(run.episodes.lengths.max())
    return max(float(run.steps.rewards[a:b] @ powers[: b - a]) for a, b in pairwise(starts))


def policy_config(run: Run) -> PolicyConfig:
    """The policy's settings; without imagined data no window is drawn from it."""
    config = run.config.policy
    return config if run.config.augment.enabled else dataclasses.replace(config, mix=0.0)


def spec_of(episodes: Episodes, horizon: int | None) -> Spec:
    """Sizes of the networks; timesteps reach to the task's limit or the longest episode."""
    longest = max(int(episodes.lengths.max()), horizon or 0)
    return Spec(episodes.observation_size, episodes.action_size, longest)
