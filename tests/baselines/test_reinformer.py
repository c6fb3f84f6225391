"""Reinformer: its expectile on a known distribution, what each head sees, losses, two passes in use."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled

from ipd.baseline_config import ReinformerConfig
from ipd.baselines import reinformer, sequences
from ipd.baselines.material import Material
from ipd.baselines.reinformer import MaxReturnTransformer
from ipd.baselines.sequences import Logged, Window
from ipd.types import Spec, Steps

CONFIG = ReinformerConfig(
    batch_size=6, learning_rate=1e-2, warmup_steps=2, layers=1, heads=2, width=8, context_len=4, dropout=0.0
)
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=11)
CONTEXT = 4


def window(seed: int = 0, batch: int | None = None, missing: int = 0) -> Window:
    """Random steps at every place, the first ``missing`` of them padding."""
    random, shape = np.random.default_rng(seed), (CONTEXT,) if batch is None else (batch, CONTEXT)

    def normal(*more: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape + more), jnp.float32)

    places = jnp.broadcast_to(jnp.arange(CONTEXT), shape)
    return Window(
        normal(5), normal(3), normal(), normal(5), jnp.zeros(shape), normal(), places, places >= missing
    )


def network() -> MaxReturnTransformer:
    model: MaxReturnTransformer = filled(lambda key: MaxReturnTransformer(CONFIG, SPEC, key), 0)
    return model


def fresh(spec: Spec = SPEC) -> reinformer.State:
    """State before the first update, its network filled with numbers, alpha 0.1."""

    def make(key: jax.Array) -> reinformer.State:
        return reinformer.init(CONFIG, spec, key)

    blank, model = filled(make, 0, 0.0), filled(make, 0).model
    return blank._replace(model=model, acting=model, log_temperature=jnp.log(jnp.asarray(0.1)))


def test_return_is_predicted_from_states_and_action_from_the_return_too() -> None:
    """R_hat at t sees s_t and what came before, the action also R_t; neither sees a_t or what follows."""
    steps = window()

    def run(observations: jax.Array, returns: jax.Array, actions: jax.Array) -> tuple[jax.Array, jax.Array]:
        said = network()(steps._replace(observations=observations, returns=returns, actions=actions))
        return said.returns[:, None], said.mean

    jacobians = jax.jit(jax.jacrev(run, argnums=(0, 1, 2)))(steps.observations, steps.returns, steps.actions)
    sees = [
        [(np.abs(np.asarray(j)).reshape(CONTEXT, n, CONTEXT, -1).max((1, 3)) > 1e-9) for j in each]
        for each, n in zip(jacobians, (1, 3), strict=True)
    ]
    here, before = np.tri(CONTEXT, dtype=bool), np.tri(CONTEXT, k=-1, dtype=bool)
    for found, expected in zip(sees, ([here, before, before], [here, here, before]), strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_predicted_return_is_the_expectile_of_the_data() -> None:
    """Returns uniform on [0, 3] in one kind of state and on [-2, -1] in the other, one step an episode.

    The expectile is the root of tau E[(x - e)+] = (1 - tau) E[(e - x)+].
    """

    def expectile(low: float, high: float, tau: float) -> float:
        below, above = low, high
        for _ in range(60):
            e = (below + above) / 2
            if tau * (high - e) ** 2 > (1 - tau) * (e - low) ** 2:
                below = e
            else:
                above = e
        return below

    count = 1_000
    spread = (np.arange(count) + 0.5) / count
    returns = np.concatenate([3.0 * spread, spread - 2.0])
    kind = np.repeat([[1.0], [-1.0]], count, axis=0)
    actions = np.random.default_rng(0).normal(size=(2 * count, 1))
    zeros = jnp.zeros(2 * count)
    data = Logged(
        jnp.asarray(kind, jnp.float32), jnp.asarray(actions, jnp.float32), zeros, zeros[:, None], zeros,
        jnp.asarray(returns, jnp.float32), jnp.zeros(2 * count, jnp.int32),
        jnp.arange(2 * count, dtype=jnp.int32),
    )  # fmt: skip
    config = dataclasses.replace(
        CONFIG, context_len=1, batch_size=128, learning_rate=2e-2, warmup_steps=1, average=0.99
    )

    def one(state: reinformer.State, key: jax.Array) -> tuple[reinformer.State, None]:
        return reinformer.update(config, state, reinformer.draw(config, data, key), key)[0], None

    state = jax.jit(lambda s, keys: jax.lax.scan(one, s, keys)[0])(
        fresh(Spec(observation_size=1, action_size=1, max_episode_steps=1)),
        jax.random.split(jax.random.key(1), 1_000),
    )
    rows = sequences.windows(data, jnp.asarray([0, count]), 1)
    predicted = np.asarray(jax.jit(jax.vmap(lambda w: state.acting(w).returns))(rows))[:, 0]
    np.testing.assert_allclose(predicted, [expectile(0, 3, 0.99), expectile(-2, -1, 0.99)], atol=0.1)
    assert predicted[0] > 2.5 and -1.25 < predicted[1] < -1.0, "0.99 is near the upper end"


def test_losses_are_those_of_a_plain_loop() -> None:
    """Term by term over the steps present; alpha is a constant of the network's loss."""
    batch = window(1, batch=3, missing=1)
    model, key, alpha = network(), jax.random.key(0), jnp.asarray(0.3)
    size = reinformer.mean_size(batch)
    loss, metrics = jax.jit(lambda m: reinformer.loss_fn(CONFIG, m, alpha, size, batch, key))(model)
    said = jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda w: model(w)))(batch))
    np.testing.assert_allclose(size, np.abs(np.asarray(batch.returns))[:, 1:].mean(), rtol=1e-5)
    wrong, density, entropy = [], [], []
    for row in range(3):
        for t in range(1, CONTEXT):
            error = (float(batch.returns[row, t]) - said.returns[row, t]) / size
            wrong.append((0.99 if error > 0 else 0.01) * error**2)
            std = np.exp(said.log_std[row, t])
            scaled = (np.asarray(batch.actions[row, t]) - said.mean[row, t]) / std
            density.append((-0.5 * scaled**2 - np.log(std * np.sqrt(2 * np.pi))).sum())
            entropy.append(np.log(std * np.sqrt(2 * np.pi * np.e)).sum())
    np.testing.assert_allclose(metrics["return_loss"], np.mean(wrong), rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], np.mean(entropy), rtol=1e-5)
    np.testing.assert_allclose(loss, np.mean(wrong) - np.mean(density) - 0.3 * np.mean(entropy), rtol=1e-5)


@cache
def compiled() -> Any:
    return jax.jit(lambda state, batch: reinformer.update(CONFIG, state, batch, jax.random.key(1)))


@pytest.mark.parametrize(("log_std", "falls"), [(0.0, True), (-4.0, False)])
def test_temperature_moves_the_entropy_towards_its_target(log_std: float, falls: bool) -> None:
    """alpha falls while the policy is more random than -3 nats, and rises while it is less."""
    state = fresh()
    head = lambda model: (model.head_log_std.weight, model.head_log_std.bias)  # noqa: E731
    model = eqx.tree_at(head, state.model, (jnp.zeros((8, 3)), jnp.full(3, log_std)))
    new, metrics = compiled()(state._replace(model=model), window(2, batch=6))
    np.testing.assert_allclose(metrics["entropy"], 3 * (log_std + 0.5 * np.log(2 * np.pi * np.e)), rtol=1e-5)
    step = float(new.log_temperature - state.log_temperature)
    np.testing.assert_allclose(step, -CONFIG.learning_rate if falls else CONFIG.learning_rate, rtol=1e-3)


def test_network_learns_by_lamb_with_warm_up() -> None:
    """LAMB moves every array by the rate times its own norm; the rate of the first of two is half."""
    state = fresh()
    new, _ = compiled()(state, window(2, batch=6))
    for before, after, acting in zip(
        *(map(np.asarray, jax.tree.leaves(m)) for m in (state.model, new.model, new.acting)), strict=True
    ):
        size = np.linalg.norm(after - before) / np.linalg.norm(before)
        np.testing.assert_allclose(size, 0.5 * CONFIG.learning_rate, rtol=1e-3)
        np.testing.assert_array_equal(acting, after)


@pytest.mark.parametrize("bounded", [False, True])
def test_use_is_two_passes_with_the_predicted_return_in_the_context(bounded: bool) -> None:
    """The actions are those of a loop over ever longer lists that are cut to the context."""
    model = network()
    state = fresh()._replace(model=None, acting=model)
    random = np.random.default_rng(6)  # predictions that fall, rise and fall
    seen = random.normal(size=(7, 5)).astype(np.float32)
    config = dataclasses.replace(CONFIG, bounded=bounded)
    act = jax.jit(
        lambda memory, o, r: reinformer.act(config, state, {"rise": 0.05}, memory, o, r, jax.random.key(0))
    )
    memory = reinformer.begin(CONFIG, SPEC, {"rise": 0.05})
    predict = jax.jit(lambda steps: model(steps))
    returns: list[float] = []
    actions: list[np.ndarray] = []

    rubbish = window(6)

    def said(length: int, t: int) -> reinformer.Prediction:
        def ending(rows: list[Any]) -> np.ndarray:
            last = np.asarray(rows[-length:])
            padding = random.normal(size=(CONTEXT - length, *last.shape[1:]))
            return np.concatenate([padding, last]).astype(np.float32)

        steps = rubbish._replace(
            observations=ending(list(seen[: t + 1])), returns=ending([*returns, 77.0][: t + 1]),
            actions=ending([*actions, np.full(3, 55.0)]),
            timesteps=np.maximum(np.arange(t + 1 - CONTEXT, t + 1), 0),
            present=np.arange(CONTEXT) >= CONTEXT - length,
        )  # fmt: skip
        return predict(steps)

    for t in range(len(seen)):
        action, memory = act(memory, jnp.asarray(seen[t]), jnp.asarray(100.0))
        length = min(t + 1, CONTEXT)
        predicted = float(said(length, t).returns[-1])
        returns.append(min(predicted, returns[-1] + 0.05) if bounded and returns else predicted)
        actions.append(np.clip(np.asarray(said(length, t).mean[-1]), -1.0, 1.0))
        np.testing.assert_allclose(action, actions[-1], atol=1e-5)
        np.testing.assert_allclose(memory.returns[-length:], returns[-length:], rtol=1e-4, atol=1e-5)
    assert np.ptp(returns) > 0.1 and np.ptp(np.stack(actions)) > 0.1
    assert (max(np.diff(returns)) > 0.051) != bounded and max(np.diff(returns)) > 0


def test_no_logged_return_rises_by_more_than_the_bound(small_steps: Steps) -> None:
    starts = np.array([0, 40, 97])
    steps = Steps(*(leaf[:97] for leaf in small_steps))
    steps = steps._replace(rewards=np.random.default_rng(1).normal(0.5, 1.0, 97).astype(np.float32))
    logged, constants = reinformer.prepare(CONFIG, Material(steps, starts, SPEC, 1.0))
    returns = np.asarray(logged.returns)
    rises = np.concatenate([np.diff(returns[:40]), np.diff(returns[40:])])
    assert 0 < rises.max() <= constants["rise"] + 1e-6
    bare = steps._replace(rewards=np.abs(steps.rewards))
    assert reinformer.prepare(CONFIG, Material(bare, starts, SPEC, 1.0))[1] == {"rise": 0.0}
