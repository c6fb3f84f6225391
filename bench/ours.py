"""Our side of the bench: `python bench/ours.py value` waits for rounds (protocol.py)."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import work
from protocol import serve

from ipd.collect.recording import Environments
from ipd.collect.settings import settle
from ipd.collect.training import Training, improve
from ipd.config import AugmentConfig, PolicyConfig, ValueConfig, WorldConfig
from ipd.data.episodes import Normaliser
from ipd.evaluation.tasks import task as find_task
from ipd.planning.augment import imagine
from ipd.policy import learn as policy_learner
from ipd.policy.act import Controller, Driver, act, begin
from ipd.policy.enriched import DATA_AXES as POLICY_AXES
from ipd.policy.enriched import enrich, stack_seeds
from ipd.runs import loop
from ipd.runs.progress import Progress
from ipd.types import Segment, Spec, Steps
from ipd.value import learn as value_learner
from ipd.value.networks import Critics, Value
from ipd.world import learn as world_learner
from ipd.world.ensemble import ChangeScale, Ensemble
from ipd.world.uncertainty import predict_fn

OBS, ACT = 11, 3
"""Hopper's."""
SPEC = Spec(OBS, ACT, 1000)
EPISODES, LENGTH = 200, 500


def steps(seed: int = 0) -> tuple[Steps, np.ndarray]:
    """Random steps in learner's units, and the starts of their episodes."""
    random, rows = np.random.default_rng(seed), EPISODES * LENGTH

    def normal(*size: int) -> np.ndarray:
        return random.normal(size=(rows, *size)).astype(np.float32)

    actions = random.uniform(-1.0, 1.0, (rows, ACT)).astype(np.float32)
    return Steps(normal(OBS), actions, normal(), normal(OBS), np.zeros(rows, np.float32)), np.arange(
        0, rows + 1, LENGTH
    )


def training(
    learner: loop.Learner, config: Any, states: Any, data: Any, axes: Any, updates: int
) -> Callable[[], float]:
    """Rounds of ``updates`` of the training loop's own program."""
    # Python scalars make weakly typed leaves; the loop has none
    states = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), states)
    data = jax.tree.map(jnp.asarray, data)
    advance, _ = loop._compile(learner, config, states, axes)
    keys = jax.random.split(jax.random.PRNGKey(1), jax.tree.leaves(states)[0].shape[0])
    held = [states, 0]

    def go() -> float:
        held[0], metrics, _ = advance(held[0], data, keys, np.int32(held[1]), np.int32(updates))
        held[1] += updates
        jax.block_until_ready((held[0], metrics))
        return updates

    return go


def value(seeds: int = 1, hidden: int = 256, updates: int = 200) -> tuple[Callable[[], float], float]:
    config = ValueConfig(hidden=(hidden, hidden))
    states = jax.vmap(functools.partial(value_learner.init, config, SPEC))(
        jax.random.split(jax.random.PRNGKey(0), seeds)
    )
    data = jax.tree.map(jnp.asarray, steps()[0])
    learner = loop.Learner(value_learner.draw, value_learner.update)
    each = work.value_update(config.batch_size, OBS, ACT, config.hidden, config.num_critics)
    return training(learner, config, states, data, None, updates), seeds * each


def seeds(number: int) -> tuple[Callable[[], float], float]:
    """Small networks; a unit is one update of one seed."""
    go, each = value(number, 64, 400)
    return lambda: number * go(), each / number


def world(updates: int = 20) -> tuple[Callable[[], float], float]:
    config = WorldConfig()
    scale = ChangeScale(jnp.zeros(OBS), jnp.ones(OBS))
    states = jax.vmap(lambda key: world_learner.init(config, SPEC, scale, False, key))(
        jax.random.split(jax.random.PRNGKey(0), 1)
    )
    data = jax.tree.map(jnp.asarray, steps()[0])
    rows = world_learner.bootstrap(config, len(data.rewards), jax.random.PRNGKey(2))[None]
    learner = loop.Learner(world_learner.draw, world_learner.update)
    axes = world_learner.Data(None, None, 0)  # type: ignore[arg-type]
    each = work.world_update(config.batch_size, OBS, ACT, config.hidden, config.num_members)
    return training(learner, config, states, world_learner.Data(data, data, rows), axes, updates), each


def policy(batch: int = 64, updates: int = 2) -> tuple[Callable[[], float], float]:
    config = PolicyConfig(batch_size=batch)
    logged, starts = steps()
    critics = Critics(OBS, ACT, (256, 256), 2, jax.random.PRNGKey(3))
    value = Value(OBS, (256, 256), jax.random.PRNGKey(4))
    segments, source = dreams(logged, starts)
    data, _ = enrich(
        config, logged, starts, segments, source, jax.jit(jax.vmap(value)),
        jax.jit(lambda s, a: jax.vmap(critics)(s, a).min(1)), 0.99,
    )  # fmt: skip
    stacked = jax.tree.map(lambda leaf: leaf[None], critics)
    keys = jax.random.split(jax.random.PRNGKey(0), 1)
    states = jax.vmap(functools.partial(policy_learner.init, config, SPEC))(stacked, keys)
    learner = loop.Learner(policy_learner.draw, policy_learner.update)
    # Q at the policy's actions with its gradient by them, and at the data's, each by two critics
    asked = 3 * 2 * work.mlp(batch * config.context_len, [OBS + ACT, 256, 256, 1])
    each = work.policy_update(batch, config.context_len, config.width, config.layers, asked)
    return training(learner, config, states, stack_seeds([data]), POLICY_AXES, updates), each


def dreams(logged: Steps, starts: np.ndarray, number: int = 2_000) -> tuple[Segment, np.ndarray]:
    """Imagined segments of ten steps, none of them true."""
    random = np.random.default_rng(5)
    source = np.sort(random.choice(len(logged.rewards) - 20, number, replace=False))
    at = source[:, None] + np.arange(10)
    flat = (getattr(logged, name)[at] for name in ("observations", "actions", "rewards", "next_observations"))
    return Segment(*flat, np.zeros((number, 10), np.float32), np.zeros((number, 10), np.float32),
                   valid=np.ones((number, 10), bool)), source  # fmt: skip


def augment(batch: int = 512, hidden: int = 400) -> tuple[Callable[[], float], float]:
    """Algorithm 1; a unit is one start state, replanned over ten steps."""
    world_config, config = WorldConfig(hidden=(hidden,) * 4, uncertainty="disagreement"), AugmentConfig()
    values = value_learner.init(ValueConfig(), SPEC, jax.random.PRNGKey(0))
    ensemble = Ensemble(OBS, ACT, world_config.hidden, world_config.num_members,
                        world_config.log_variance_bounds, ChangeScale(jnp.zeros(OBS), 0.01 * jnp.ones(OBS)),
                        False, jax.random.PRNGKey(1))  # fmt: skip
    starts = jnp.asarray(steps()[0].observations[:batch])

    @jax.jit
    def run(values: Any, ensemble: Any, observations: jax.Array, key: jax.Array) -> Segment:
        return imagine(
            predict_fn(world_config, ensemble, None), value_learner.value_fn(values),
            value_learner.policy_fn(values), config, 0.99, observations, ACT, key, jnp.asarray(jnp.inf),
        )  # fmt: skip

    keys = iter(range(10**9))

    def go() -> float:
        jax.block_until_ready(run(values, ensemble, starts, jax.random.PRNGKey(next(keys))))
        return batch

    rows = config.num_plans * config.plan_steps + 1
    sizes = [OBS + ACT, *world_config.hidden]
    once = world_config.num_members * (work.mlp(rows, [*sizes, 2 * OBS]) + work.mlp(rows, [*sizes, 1]))
    once += work.mlp(config.num_plans * config.plan_steps, [OBS, 256, 256, ACT])
    return go, config.imagine_steps * once


def controller(config: PolicyConfig) -> Controller:
    """A fresh policy for one environment."""
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    critics, value = Critics(OBS, ACT, (256, 256), 2, keys[0]), Value(OBS, (256, 256), keys[1])
    driver = Driver(policy_learner.init(config, SPEC, critics, keys[2]).acting, value, critics, jnp.ones(()))
    add = functools.partial(jax.tree.map, lambda leaf: jnp.asarray(leaf)[None])
    normaliser = Normaliser(np.zeros(OBS, np.float32), np.ones(OBS, np.float32), -np.ones(ACT, np.float32),
                            np.ones(ACT, np.float32), 1.0)  # fmt: skip
    return Controller(act, add(driver), add(begin(config.context_len, SPEC)), 1, normaliser)


def action(calls: int = 500) -> tuple[Callable[[], float], float]:
    """One environment at the paper's size."""
    config = PolicyConfig()
    acting = controller(config)
    seen = np.random.default_rng(0).normal(size=(calls, OBS)).astype(np.float32)

    def go() -> float:
        for observation in seen:
            acting.act(observation)
        return calls

    return go, work.action(config.context_len, config.width, config.layers)


def collect(number: int = 600) -> tuple[Callable[[], float], float]:
    """Soft actor-critic in Hopper, one update for two steps; a unit is a step of the environment."""
    task, size = find_task("Hopper-v4"), 8
    settings = settle(task, "medium-replay", environments=size, warmup=200, training_steps=100_000)
    training = Training(task, settings, Path(tempfile.mkdtemp()), Progress(quiet=True))
    held = [jax.jit(training._fresh)(), 0]
    environments = Environments(task, size, 0, 0)

    def go(steps: int = number) -> float:
        for _ in range(steps // size):
            state, at = held
            environments.step(
                training._actions(at, state.policy, environments.observations), training.log[at]
            )
            if updates := training._updates(at + 1):
                key = jax.random.fold_in(training.key, at)
                state, loss = improve(settings.sac, state, training._draw(at + 1, updates), key)
                loss.block_until_ready()
            held[:] = state, at + 1
        return steps

    go(400)
    return go, 0.0


def products(size: int = 1536) -> tuple[Callable[[], float], float]:
    """The machine's own rate: a product of two square matrices."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    multiply = jax.jit(lambda x, y: x @ y)

    def go() -> float:
        for _ in range(8):
            multiply(a, a).block_until_ready()
        return 8

    return go, 2.0 * size**3


JOBS: dict[str, Callable[[], tuple[Callable[[], float], float]]] = {
    "products": products,
    "value": value,
    "world": world,
    "policy": policy,
    "augment": augment,
    "act": action,
    "collect": collect,
    "seeds-1": functools.partial(seeds, 1),
    "seeds-4": functools.partial(seeds, 4),
}

if __name__ == "__main__":
    go, flop = JOBS[sys.argv[1]]()
    serve(go, flop=flop)
