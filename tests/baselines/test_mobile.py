"""MOBILE: its penalty, its roll-outs, its targets."""

from __future__ import annotations

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled, leaves, member, mlp

from ipd.baseline_config import MOBILEConfig
from ipd.baselines import mobile
from ipd.baselines.material import Material
from ipd.nn.mlp import MLP
from ipd.types import Spec, Steps
from ipd.value.networks import Critics
from ipd.world.ensemble import ChangeScale, Ensemble

SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=50)
CONFIG = MOBILEConfig(batch_size=21, hidden=(7, 11), num_samples=2, rollout_steps=4, real_share=0.2)
REAL, ROLLOUTS = 4, 4  # of 21: 4 logged, 4 roll-outs of 4 steps


def made(noise: float, *shifts: float) -> Ensemble:
    """Members that move observation 0 by ``shifts`` and earn 0.5, with this standard deviation in all."""
    count = len(shifts)
    scale = ChangeScale(jnp.zeros(5), jnp.ones(5))
    ensemble = Ensemble(5, 3, (2,), count, (-300.0, 5.0), scale, False, jax.random.key(0))
    ensemble = eqx.tree_at(
        lambda e: (e.dynamics, e.reward),
        ensemble,
        jax.tree.map(jnp.zeros_like, (ensemble.dynamics, ensemble.reward)),
    )
    means = np.zeros((count, 5))
    means[:, 0] = shifts
    bias = np.concatenate([means, np.full((count, 5), 2.0 * np.log(noise))], axis=1)
    return eqx.tree_at(
        lambda e: (e.dynamics.layers[-1].bias, e.reward.layers[-1].bias),
        ensemble,
        (jnp.asarray(bias, jnp.float32), jnp.full((count, 1), 0.5)),
    )


@jax.tree_util.Partial
def positive(next_observation: jax.Array) -> jax.Array:
    """Ends where observation 0 is positive."""
    return next_observation[..., 0] > 0.0


@jax.tree_util.Partial
def never(next_observation: jax.Array) -> jax.Array:
    return jnp.zeros(next_observation.shape[:-1], bool)


def constant(critics: Critics, *values: float) -> Critics:
    """Critics that answer one number each, whatever they see."""
    critics = jax.tree.map(jnp.zeros_like, critics)
    return eqx.tree_at(lambda c: c.nets.layers[-1].bias, critics, jnp.asarray(values)[:, None])


def first(critics: Critics) -> Critics:
    """Critics without hidden layers that answer observation 0."""
    net = MLP(8, (), 1, jax.random.key(0))
    weight, bias = jnp.zeros((2, 8, 1)).at[:, 0, 0].set(1.0), jnp.zeros((2, 1))
    nets = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), net)
    nets = eqx.tree_at(lambda n: (n.layers[0].weight, n.layers[0].bias), nets, (weight, bias))
    return eqx.tree_at(lambda c: c.nets, critics, nets)


def sure(state: mobile.State) -> mobile.State:
    """The state with a policy of next to no width, which acts by its mean."""
    last = state.policy.net.layers[-1]
    weight, bias = last.weight.at[:, 3:].set(0.0), last.bias.at[3:].set(-50.0)
    where = lambda s: (s.policy.net.layers[-1].weight, s.policy.net.layers[-1].bias)  # noqa: E731
    return eqx.tree_at(where, state, (weight, bias))


INCONSISTENCY = eqx.filter_jit(mobile.inconsistency)


def test_penalty_is_that_of_a_plain_loop(small_steps: Steps) -> None:
    state = sure(filled(lambda key: mobile.init(CONFIG, SPEC, key), 0))
    scale = ChangeScale(jnp.linspace(-0.2, 0.2, 5), jnp.linspace(0.5, 1.5, 5))
    make = lambda key: Ensemble(5, 3, (7,), 3, (-300.0, 5.0), scale, False, key)  # noqa: E731
    ensemble = eqx.tree_at(lambda e: e.scale, filled(make, 1), scale)
    where = lambda e: (e.dynamics.layers[-1].weight, e.dynamics.layers[-1].bias)  # noqa: E731
    weight, bias = where(ensemble)
    still = (weight.at[:, :, 5:].set(0.0), bias.at[:, 5:].set(-290.0))  # no noise in the next state
    ensemble = eqx.tree_at(where, ensemble, still)
    observations, actions = small_steps.observations[:6], small_steps.actions[:6]
    ours = INCONSISTENCY(
        CONFIG, state, mobile.Model(ensemble, positive),
        jnp.asarray(observations), jnp.asarray(actions), jax.random.key(3),
    )  # fmt: skip
    ended = 0
    for row, (o, a) in enumerate(zip(observations, actions, strict=True)):
        targets = []
        for m in range(3):
            out, _ = mlp(member(ensemble.dynamics, m), np.concatenate([o, a])[None], 2)
            after = o + np.asarray(scale.mean) + np.asarray(scale.std) * out[0, :5]
            chosen = np.tanh(mlp(leaves(state.policy.net), after[None], 3)[0][0, :3])
            pair = np.concatenate([after, chosen])[None]
            q = min(mlp(member(state.target_critics, i), pair, 3)[0][0, 0] for i in (0, 1))
            targets.append(0.0 if after[0] > 0 else 0.99 * q)
            ended += after[0] > 0
        spread = np.sqrt(sum((t - sum(targets) / 3) ** 2 for t in targets) / 2)
        assert float(ours[row]) == pytest.approx(spread, rel=1e-4, abs=1e-6)
    assert 0 < ended < 18  # both sides of the mask were seen


def test_penalty_is_zero_without_disagreement_and_noise_averages_out() -> None:
    state = mobile.init(CONFIG, SPEC, jax.random.key(0))
    state = state._replace(target_critics=first(state.target_critics))
    observations, actions = jnp.zeros((6, 5)), jnp.zeros((6, 3))

    def penalty(noise: float, shifts: tuple[float, ...], samples: int) -> np.ndarray:
        config = dataclasses.replace(CONFIG, num_samples=samples)
        model = mobile.Model(made(noise, *shifts), never)
        return np.asarray(INCONSISTENCY(config, state, model, observations, actions, jax.random.key(1)))

    np.testing.assert_allclose(penalty(1e-30, (0.3, 0.3, 0.3), 900), 0.0, atol=1e-6)
    # Q' is observation 0: members at -1, 0 and 1 have a standard deviation of 1, identical ones of none
    np.testing.assert_allclose(penalty(1e-30, (-1.0, 0.0, 1.0), 900), 0.99, rtol=1e-4)
    few, many = penalty(1.0, (0.0, 0.0, 0.0), 2).mean(), penalty(1.0, (0.0, 0.0, 0.0), 900).mean()
    assert 0.3 < few < 1.2 and 0.01 < many < 0.06  # about 1 / sqrt(samples)


def batch_for(state: mobile.State, ensemble: Ensemble, rule: object, starts: np.ndarray) -> mobile.Batch:
    zero = jnp.zeros((REAL, 5))
    logged = Steps(zero, jnp.zeros((REAL, 3)), jnp.ones(REAL), zero, jnp.zeros(REAL))
    return mobile.Batch(
        logged, jnp.asarray(starts, jnp.float32), mobile.Model(ensemble, rule), jnp.asarray(-1e3)
    )


def test_rollouts_end_at_a_termination_and_begin_anew_from_the_data() -> None:
    state = mobile.init(CONFIG, SPEC, jax.random.key(0))
    starts = np.full((4, 2, 5), -7.0)
    starts[0, :, 0] = [-1.5, -9.0]
    starts[2, 0] = [-4.0, 1.0, 2.0, 3.0, 4.0]
    batch = batch_for(state, made(1e-30, 1.0, 1.0, 1.0), positive, starts)
    steps = eqx.filter_jit(mobile.imagine)(state.policy, batch, jax.random.key(0))
    by_rollout = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(4, 2, *leaf.shape[1:]), steps)
    # +1 a step: -1.5, -0.5, then over at 0.5; the third step begins at the third row of states
    np.testing.assert_allclose(by_rollout.observations[:, 0, 0], [-1.5, -0.5, -4.0, -3.0], atol=1e-6)
    np.testing.assert_allclose(by_rollout.next_observations[:, 0, 0], [-0.5, 0.5, -3.0, -2.0], atol=1e-6)
    np.testing.assert_allclose(by_rollout.observations[2, 0], starts[2, 0], atol=1e-6)
    np.testing.assert_array_equal(by_rollout.terminated[:, 0], [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_allclose(by_rollout.observations[:, 1, 0], [-9.0, -8.0, -7.0, -6.0], atol=1e-6)
    np.testing.assert_array_equal(by_rollout.terminated[:, 1], 0.0)
    np.testing.assert_allclose(steps.rewards, 0.5)


def test_every_step_goes_through_a_random_member_with_its_noise() -> None:
    state = mobile.init(CONFIG, SPEC, jax.random.key(0))
    batch = batch_for(state, made(0.01, -1.0, 0.0, 1.0), never, np.zeros((4, 100, 5)))
    steps = eqx.filter_jit(mobile.imagine)(state.policy, batch, jax.random.key(0))
    change = np.asarray(steps.next_observations - steps.observations)
    shares = np.bincount(np.rint(change[:, 0]).astype(int) + 1, minlength=3) / 400
    np.testing.assert_allclose(shares, 1 / 3, atol=0.08)
    assert change[:, 1:].std() == pytest.approx(0.01, rel=0.1)
    paths = np.rint(change[:, 0].reshape(4, 100))
    assert (paths[0] != paths[1]).mean() > 0.5  # drawn anew at each step


def test_update_penalises_imagined_steps_and_no_logged_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    state = mobile.init(CONFIG, SPEC, jax.random.key(0))
    state = state._replace(
        target_critics=constant(state.critics, 4.0, 3.0), critics=constant(state.critics, 0.0, 0.0)
    )
    # one member of three is sure that everything ends: U = 0.99 * std of (0, 3, 3)
    batch = batch_for(state, made(1e-30, -1.0, -1.0, 90.0), positive, np.full((4, ROLLOUTS, 5), -8.0))
    seen, real = {}, mobile.critic_target

    def spy(
        config: MOBILEConfig, state: mobile.State, steps: Steps, penalty: jax.Array, *rest: object
    ) -> jax.Array:
        seen.update(penalty=penalty, steps=steps, target=real(config, state, steps, penalty, *rest))
        return seen["target"]

    monkeypatch.setattr(mobile, "critic_target", spy)

    @eqx.filter_jit
    def update(state: mobile.State, batch: mobile.Batch) -> tuple[object, object]:
        new = mobile.update(CONFIG, state, batch, jax.random.key(1))
        return new, dict(seen)

    (new, metrics), seen = update(state, batch)
    np.testing.assert_array_equal(seen["penalty"][:REAL], 0.0)
    spread = 0.99 * np.std([0.0, 3.0, 3.0], ddof=1)
    np.testing.assert_allclose(seen["penalty"][REAL:], spread, rtol=1e-4)
    ended = np.asarray(seen["steps"].terminated)
    assert 0 < ended.sum() < ended.size and ended.size == REAL + 4 * ROLLOUTS
    expected = np.where(np.arange(ended.size) < REAL, 1.0, 0.5 - 1.5 * spread) + 0.99 * 3.0 * (1.0 - ended)
    np.testing.assert_allclose(seen["target"], expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["critic_loss"], 2 * (expected**2).mean(), rtol=1e-4)
    assert float(metrics["inconsistency"]) == pytest.approx(spread, rel=1e-4) and int(new.step) == 1


def test_target_has_a_floor_and_goes_on_behind_a_time_limit_only(small_steps: Steps) -> None:
    state = mobile.init(CONFIG, SPEC, jax.random.key(0))
    state = state._replace(target_critics=constant(state.critics, 4.0, 3.0))
    steps = jax.tree.map(lambda leaf: jnp.asarray(leaf[:2]), small_steps)
    steps = steps._replace(rewards=jnp.asarray([1.0, 1.0]), terminated=jnp.asarray([0.0, 1.0]))
    target = lambda u: mobile.critic_target(  # noqa: E731
        CONFIG, state, steps, jnp.full(2, u), jnp.asarray(-0.25), jax.random.key(0)
    )
    np.testing.assert_allclose(target(0.0), [1.0 + 0.99 * 3.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(target(1.0), [1.0 + 0.99 * 3.0 - 1.5, -0.25], rtol=1e-6)


@pytest.mark.parametrize("sign, floor", [(1.0, 0.0), (-1.0, -(1 + 0.99 + 0.99**2))])
def test_floor_is_the_smallest_logged_return_of_an_episode(
    small_steps: Steps, sign: float, floor: float
) -> None:
    steps = jax.tree.map(lambda leaf: leaf[:5], small_steps)._replace(rewards=np.full(5, sign, np.float32))
    material = Material(steps, np.array([0, 2, 5]), SPEC, 1.0, ensemble=made(1.0, 0.0), rule=never)
    data, _ = mobile.prepare(CONFIG, material)
    assert float(data.floor) == pytest.approx(floor, rel=1e-5)


def test_seeds_side_by_side_each_in_its_own_world_learn_the_model_s_reward(small_steps: Steps) -> None:
    """Seed 0's model pays for action 0, seed 1's against it, the logged data for neither."""
    config = MOBILEConfig(
        batch_size=40, hidden=(16,), num_samples=2, rollout_steps=2, real_share=0.05,
        actor_learning_rate=1e-2, critic_learning_rate=1e-2, discount=0.5,
    )  # fmt: skip

    def world(sign: float) -> Ensemble:
        ensemble = made(0.1, 0.0, 0.0)
        scale = ensemble.scale
        linear = Ensemble(5, 3, (), 2, (-300.0, 5.0), scale, False, jax.random.key(0))
        weight = jnp.zeros((2, 8, 1)).at[:, 5, 0].set(3.0 * sign)
        last = (ensemble.dynamics, eqx.tree_at(lambda r: r.layers[0].weight, linear.reward, weight))
        return eqx.tree_at(lambda e: (e.dynamics, e.reward), ensemble, last)

    starts = np.array([0, 40, 97])
    each = [
        mobile.prepare(config, Material(small_steps, starts, SPEC, 1.0, None, world(s), never))[0]
        for s in (1, -1)
    ]
    ensembles = jax.tree.map(lambda a, b: jnp.stack([a, b]), *(data.model.ensemble for data in each))
    data = each[0]._replace(model=mobile.Model(ensembles, never))

    def learn(data: mobile.Data, key: jax.Array) -> mobile.State:
        def advance(state: mobile.State, key: jax.Array) -> tuple[mobile.State, None]:
            batch = mobile.draw(config, data, key)
            assert batch.starts.shape == (2, 19, 5) and batch.logged.rewards.shape == (2,)
            return mobile.update(config, state, batch, jax.random.fold_in(key, 1))[0], None

        return jax.lax.scan(advance, mobile.init(config, SPEC, key), jax.random.split(key, 150))[0]

    both = jax.jit(jax.vmap(learn, in_axes=(mobile.DATA_AXES, 0)))
    states = both(data, jax.random.split(jax.random.key(0), 2))
    act = partial(mobile.act, config)
    actions = jax.vmap(lambda s: act(s, {}, (), jnp.zeros(5), jnp.asarray(0.0), jax.random.key(0))[0])(states)
    assert float(actions[0, 0]) > 0.4 and float(actions[1, 0]) < -0.4
