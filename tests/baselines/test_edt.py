"""Elastic Decision Transformer: bins, what each head sees, its loss, and the search over histories."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled

from ipd.baseline_config import EDTConfig
from ipd.baselines import edt
from ipd.baselines.edt import ElasticTransformer, Prediction
from ipd.baselines.material import Material
from ipd.baselines.sequences import Context, Window
from ipd.types import Spec, Steps

CONFIG = EDTConfig(
    batch_size=6, learning_rate=1e-2, warmup_steps=2, layers=1, heads=2, width=8, context_len=7,
    dropout=0.0, num_bins=9, expert_weight=0.2, top_share=0.01,
)  # fmt: skip
"""`top_share` keeps one bin, so that the search draws nothing at random."""
SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=11)
CONTEXT = 7


def network() -> ElasticTransformer:
    model: ElasticTransformer = filled(lambda key: ElasticTransformer(CONFIG, SPEC, key), 0)
    return model


def window(seed: int = 0, batch: int | None = None, missing: int = 0) -> Window:
    """Random steps at every place, the first ``missing`` of them padding; returns within [-1, 1]."""
    random, shape = np.random.default_rng(seed), (CONTEXT,) if batch is None else (batch, CONTEXT)

    def normal(*more: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape + more), jnp.float32)

    places = jnp.broadcast_to(jnp.arange(CONTEXT), shape)
    returns = jnp.asarray(random.uniform(-1.0, 1.0, shape), jnp.float32)
    return Window(
        normal(5), normal(3), normal(), normal(5), jnp.zeros(shape), returns, places, places >= missing
    )


def test_bins_span_the_range_and_come_back_within_half_a_bin() -> None:
    inside = jnp.linspace(-1.0, 1.0, 201)
    back = edt.from_bin(edt.to_bin(inside, 9), 9)
    np.testing.assert_array_less(np.abs(back - inside), 0.125 + 1e-6)
    np.testing.assert_array_equal(np.unique(back), np.linspace(-1.0, 1.0, 9))
    edges = jnp.asarray([-7.0, -1.0, 1.0, 7.0])
    np.testing.assert_array_equal(edt.to_bin(edges, 9), [0, 0, 8, 8])
    np.testing.assert_array_equal(edt.to_bin(edt.from_bin(jnp.arange(60), 60), 60), np.arange(60))


def test_returns_of_the_data_fill_the_range() -> None:
    """Rewards 1, 2, 3 and 4, -8: returns-to-go 6, 5, 3 and -4, -8."""
    rows = np.zeros((5, 3), np.float32)
    steps = Steps(rows, rows, np.asarray([1.0, 2.0, 3.0, 4.0, -8.0], np.float32), rows, rows[:, 0])
    data, constants = edt.prepare(CONFIG, Material(steps, np.asarray([0, 3, 5]), SPEC, 0.5))
    np.testing.assert_allclose(data.returns, (np.asarray([6.0, 5.0, 3.0, -4.0, -8.0]) + 1) / 7, rtol=1e-6)
    assert constants == {}
    alike = steps._replace(rewards=np.zeros(5, np.float32))
    flat, _ = edt.prepare(CONFIG, Material(alike, np.asarray([0, 3, 5]), SPEC, 0.5))
    assert np.isfinite(flat.returns).all()


def test_each_head_sees_its_own_past() -> None:
    """Return at t: s_t and the past. Action: R_t too. Next observation: a_t too. Nothing sees ahead."""
    steps, model = window(), network()

    def run(observations: jax.Array, returns: jax.Array, actions: jax.Array) -> tuple[jax.Array, ...]:
        said = model(steps._replace(observations=observations, returns=returns, actions=actions))
        return said.returns[:, None], said.logits, said.actions, said.next_observations

    jacobians = jax.jit(jax.jacrev(run, argnums=(0, 1, 2)))(steps.observations, steps.returns, steps.actions)
    here, before = np.tri(CONTEXT, dtype=bool), np.tri(CONTEXT, k=-1, dtype=bool)
    states = [here, before, before]
    for each, expected in zip(
        jacobians, (states, states, [here, here, before], [here, here, here]), strict=True
    ):
        for jacobian, sees in zip(each, expected, strict=True):
            size = np.abs(np.asarray(jacobian)).reshape(CONTEXT, jacobian.shape[1], CONTEXT, -1)
            np.testing.assert_array_equal(size.max((1, 3)) > 1e-9, sees)


def test_loss_is_that_of_a_plain_loop() -> None:
    """Over the steps present; what enters is the middle of the return's bin, what is learned the return."""
    batch, model = window(1, batch=2, missing=3), network()
    bins = np.rint((np.asarray(batch.returns) + 1.0) * 4.0).astype(int)
    said = jax.jit(jax.vmap(lambda w: model(w)))(batch._replace(returns=jnp.asarray(bins / 4.0 - 1.0)))
    said = jax.tree.map(np.asarray, said)
    total = []
    for row in range(2):
        for t in range(3, CONTEXT):
            error = float(batch.returns[row, t]) - said.returns[row, t]
            logits = said.logits[row, t]
            total.append(
                ((said.actions[row, t] - np.asarray(batch.actions[row, t])) ** 2).mean()
                + ((said.next_observations[row, t] - np.asarray(batch.next_observations[row, t])) ** 2).mean()
                + 0.5 * (0.99 if error > 0 else 0.01) * error**2
                + 0.001 * (np.log(np.exp(logits).sum()) - logits[bins[row, t]])
            )
    loss = jax.jit(lambda m: edt.loss_fn(CONFIG, m, batch, jax.random.key(0))[0])(model)
    np.testing.assert_allclose(loss, np.mean(total), rtol=1e-5)


def test_expert_return_is_drawn_from_the_likeliest_of_the_raised_bins() -> None:
    """Three of nine bins; among them in proportion to exp(logit + weight * place)."""
    config = dataclasses.replace(CONFIG, expert_weight=2.0, top_share=1 / 3)
    logits = np.asarray([3.0, -1.0, 2.0, 1.0, 1.5, 0.0, 0.4, -9.0, -1.5], np.float32)
    raised = logits + 2.0 * np.arange(9) / 8.0
    kept = np.sort(np.argsort(raised)[-3:])
    assert kept.tolist() == [0, 2, 4]
    draws = 20_000
    drawn = jax.jit(lambda x: edt.draw_expert(config, x, jax.random.key(0)))(
        jnp.broadcast_to(jnp.asarray(logits), (draws, 9))
    )
    values, counts = np.unique(np.asarray(drawn), return_counts=True)
    np.testing.assert_allclose(values, kept / 4.0 - 1.0, atol=1e-6)
    share = np.exp(raised[kept]) / np.exp(raised[kept]).sum()
    np.testing.assert_allclose(counts / draws, share, atol=0.012)


@pytest.mark.parametrize("best", [1, 3, 5])
def test_search_keeps_the_history_with_the_largest_estimate(best: int) -> None:
    """A made network whose second estimate depends on the oldest step that it sees.

    Of seven places one is not there yet, so that histories may start at 1, 3 and 5. The first pass, and
    a history of no step at all, would promise more than any; the return drawn and the action tell which
    history they belong to.
    """
    gains = jnp.asarray([9.0, 0.2, 9.0, 0.3, 9.0, 0.1, 9.0, 9.0]).at[best].add(0.4)

    def model(seen: Context) -> Prediction:
        start = jnp.where(seen.present.any(), jnp.argmax(seen.present), 7)
        first = (seen.returns == 0.4).all()
        return Prediction(
            jnp.full((7, 3), start / 10.0),
            jnp.zeros((7, 5)),
            100.0 * jnp.broadcast_to(jnp.arange(9) == start + 1, (7, 9)),
            jnp.full(7, jnp.where(first, 50.0 - start, gains[start])),
        )

    steps = window()
    context = Context(
        steps.observations, steps.actions, jnp.full(7, 0.4), steps.timesteps, jnp.arange(7) >= 1
    )
    found = jax.jit(lambda c: edt.search(CONFIG, model, c, jax.random.key(0)))(context)
    assert int(found.start) == best
    np.testing.assert_allclose(found.estimate, gains[best])
    np.testing.assert_allclose(found.action, best / 10.0)
    np.testing.assert_allclose(found.to_go, (best + 1) / 4.0 - 1.0)


def test_acting_is_a_plain_loop_over_shortened_histories() -> None:
    """Step by step, each history cut out by hand and alone in the network, not masked."""
    model = network()
    bins = (8.0 * model.head_bins.weight, jnp.zeros(9))  # so that not always the same bin is drawn
    model = eqx.tree_at(lambda m: (m.head_bins.weight, m.head_bins.bias), model, bins)
    state = filled(lambda key: edt.init(CONFIG, SPEC, key), 0, 0.0)._replace(acting=model)
    random = np.random.default_rng(5)
    seen = random.normal(size=(9, 5)).astype(np.float32)
    act = jax.jit(
        lambda memory, o: edt.act(CONFIG, state, {}, memory, o, jnp.asarray(3.0), jax.random.key(0))
    )
    memory = edt.begin(CONFIG, SPEC, {})
    predict = jax.jit(lambda steps: model(steps))
    returns: list[float] = []
    actions: list[np.ndarray] = []
    lengths = []
    rubbish = window(6)

    def alone(first: int, to_go: np.ndarray) -> Prediction:
        """Step ``first`` and what follows, at the window's end; the rest of it is rubbish."""
        length = len(to_go)

        def ending(rows: np.ndarray) -> np.ndarray:
            shape = (CONTEXT - length, *rows.shape[1:])
            return np.concatenate([random.normal(size=shape), rows]).astype(np.float32)

        history = ending(np.stack([*actions[first:], np.full(3, 33.0)]))
        timesteps = np.maximum(np.arange(first + length - CONTEXT, first + length), 0)
        return predict(
            rubbish._replace(
                observations=ending(seen[first : first + length]), returns=ending(to_go), actions=history,
                timesteps=timesteps, present=np.arange(CONTEXT) >= CONTEXT - length,
            )
        )  # fmt: skip

    for t in range(len(seen)):
        action, memory = act(memory, jnp.asarray(seen[t]))
        tried = []
        for first in range(max(0, t + 1 - CONTEXT), t + 1, 2):
            to_go = np.asarray([*returns[first:], 44.0], np.float32)
            logits = np.asarray(alone(first, to_go).logits)[-len(to_go) :]
            drawn = (logits + 0.2 * np.arange(9) / 8.0).argmax(1) / 4.0 - 1.0
            said = alone(first, drawn)
            tried.append((float(said.returns[-1]), first, drawn[-1], np.asarray(said.actions[-1])))
        _, first, to_go, expected = max(tried, key=lambda one: one[0])
        returns.append(float(to_go))
        actions.append(expected)
        lengths.append(t + 1 - first)
        np.testing.assert_allclose(action, expected, atol=1e-4)
        np.testing.assert_allclose(memory.returns[-1], to_go, atol=1e-6)
    assert len(set(lengths)) > 2 and len(set(returns)) > 1, "the case is too easy"
