"""ReBRAC: penalties, delay, targets."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_numpy import filled, leaves, member, mlp

from ipd.baseline_config import ReBRACConfig
from ipd.baselines import rebrac
from ipd.baselines.material import Material
from ipd.types import Spec, Steps

SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=50)
CONFIG = ReBRACConfig(batch_size=13, hidden=(7, 11), critic_penalty=0.8, actor_penalty=0.3, policy_delay=3)
STARTS = np.array([0, 40, 97])


def prepared(steps: Steps, config: ReBRACConfig = CONFIG) -> rebrac.Data:
    return rebrac.prepare(config, Material(steps, STARTS, SPEC, 0.25))[0]


def first_rows(data: rebrac.Data) -> rebrac.Data:
    return jax.tree.map(lambda leaf: leaf[:13], data)


def test_next_action_is_that_of_the_same_episode(small_steps: Steps) -> None:
    data = prepared(small_steps)
    inside = np.setdiff1d(np.arange(97), [39, 96])
    np.testing.assert_array_equal(data.next_actions[inside], small_steps.actions[inside + 1])
    np.testing.assert_allclose(data.penalty[inside], 0.8 * 0.25, rtol=1e-6)
    np.testing.assert_array_equal(data.penalty[np.array([39, 96])], 0.0)


def test_target_is_that_of_plain_numpy(small_steps: Steps) -> None:
    with jax.enable_x64(True):
        state = filled(lambda key: rebrac.init(CONFIG, SPEC, key), 0)
        data = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), first_rows(prepared(small_steps)))
        steps = data.steps._replace(terminated=jnp.asarray([1.0] + [0.0] * 12))
        data = data._replace(steps=steps, penalty=data.penalty.at[4].set(0.0))
        noise = 3.0 * np.random.default_rng(1).normal(size=(13, 3))  # often outside the clip
        target = rebrac.critic_target(CONFIG, state, data, jnp.asarray(noise))
        out, _ = mlp(leaves(state.target_policy), np.asarray(steps.next_observations), 3)
        chosen = np.clip(np.tanh(out) + np.clip(0.2 * noise, -0.5, 0.5), -1.0, 1.0)
        pairs = np.concatenate([steps.next_observations, chosen], axis=1)
        q = np.minimum(*(mlp(member(state.target_critics, i), pairs, 3)[0][:, 0] for i in (0, 1)))
        q -= np.asarray(data.penalty) * ((chosen - np.asarray(data.next_actions)) ** 2).sum(1)
        expected = np.asarray(steps.rewards) + 0.99 * (1.0 - np.asarray(steps.terminated)) * q
        np.testing.assert_allclose(target, expected, rtol=1e-6, atol=1e-8)
        assert target[0] == steps.rewards[0]  # behind an end there is nothing


def test_penalty_of_the_critic_lowers_the_target_only_off_the_data(small_steps: Steps) -> None:
    config = dataclasses.replace(CONFIG, target_noise=0.0)
    state = rebrac.init(config, SPEC, jax.random.key(0))
    data = first_rows(prepared(small_steps))
    data = data._replace(steps=data.steps._replace(terminated=jnp.zeros(13)))
    noise, without = jnp.zeros((13, 3)), data._replace(penalty=jnp.zeros(13))
    target = jax.jit(lambda d: rebrac.critic_target(config, state, d, noise))
    assert (target(data) < target(without)).all()
    own = data._replace(next_actions=jax.vmap(state.target_policy.mode)(data.steps.next_observations))
    np.testing.assert_allclose(target(own), target(without), rtol=1e-5)


def test_policy_gradient_pulls_to_the_data_and_up_q_in_its_own_units(small_steps: Steps) -> None:
    with jax.enable_x64(True):
        state = filled(lambda key: rebrac.init(CONFIG, SPEC, key), 0)
        steps = jax.tree.map(lambda leaf: jnp.asarray(leaf[:13], jnp.float64), small_steps)
        policy, critics = state.policy, state.critics
        loss = lambda p, c: rebrac.policy_loss(CONFIG, p, c, steps)[0]  # noqa: E731

        def smallest(p: rebrac.DeterministicPolicy) -> jax.Array:
            return jax.vmap(lambda o: critics(o, p.mode(o)).min())(steps.observations)

        size = float(jnp.abs(smallest(policy)).mean())

        def by_hand(p: rebrac.DeterministicPolicy) -> jax.Array:
            distance = ((jax.vmap(p.mode)(steps.observations) - steps.actions) ** 2).sum()
            return 0.3 * distance / 13 - smallest(p).mean() / size

        assert float(loss(policy, critics)) == pytest.approx(float(by_hand(policy)), rel=1e-9)
        for a, b in zip(
            leaves(jax.grad(loss)(policy, critics)), leaves(jax.grad(by_hand)(policy)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-12)
        # the size of Q does not matter, so one penalty serves all reward scales
        scale = lambda leaf: 7.0 * leaf  # noqa: E731
        last = lambda c: (c.nets.layers[-1].weight, c.nets.layers[-1].bias)  # noqa: E731
        larger = eqx.tree_at(last, critics, tuple(map(scale, last(critics))))
        assert float(loss(policy, larger)) == pytest.approx(float(loss(policy, critics)), rel=1e-9)


def test_policy_and_slow_networks_move_at_every_third_update_only(small_steps: Steps) -> None:
    data = prepared(small_steps)
    update = eqx.filter_jit(
        lambda s, k: rebrac.update(CONFIG, s, rebrac.draw(CONFIG, data, k), jax.random.fold_in(k, 1))
    )
    state = rebrac.init(CONFIG, SPEC, jax.random.key(0))
    for step in range(1, 8):
        new, metrics = update(state, jax.random.key(step))
        same = lambda name: all(  # noqa: E731
            np.array_equal(a, b)
            for a, b in zip(leaves(getattr(new, name)), leaves(getattr(state, name)), strict=True)  # noqa: B023
        )
        for name in ("policy", "target_policy", "target_critics", "policy_optimiser"):
            assert same(name) == (step % 3 != 0), f"{name} after update {step}"
        assert not same("critics")
        if step == 3:  # the slow critics move towards the new critics
            for t, old, c in zip(
                leaves(new.target_critics), leaves(state.target_critics), leaves(new.critics), strict=True
            ):
                np.testing.assert_allclose(t, old + 0.005 * (c - old), rtol=1e-5, atol=1e-7)
        state = new
    assert int(state.step) == 7 and all(np.isfinite(float(v)) for v in metrics.values())
    assert [int(leaf) for leaf in jax.tree.leaves(state.policy_optimiser) if leaf.shape == ()] == [2]


def test_critics_are_normalised_and_the_policy_is_not() -> None:
    state = rebrac.init(CONFIG, SPEC, jax.random.key(0))
    first = lambda c: (c.nets.layers[0].weight, c.nets.layers[0].bias)  # noqa: E731
    larger = eqx.tree_at(first, state.critics, tuple(100.0 * leaf for leaf in first(state.critics)))
    observation, action = jnp.linspace(-1.0, 1.0, 5), jnp.asarray([0.1, -0.4, 0.9])
    np.testing.assert_allclose(larger(observation, action), state.critics(observation, action), rtol=1e-3)
    assert len(state.critics.nets.norms) == 2 and not state.policy.net.norms


@pytest.mark.parametrize("actor_penalty, expected", [(0.01, 0.6), (50.0, -0.2)])
def test_one_step_task(actor_penalty: float, expected: float) -> None:
    """Reward -(a - 0.6)^2; the data's actions are about -0.2 on the whole. The penalty decides who wins."""
    config = ReBRACConfig(
        batch_size=32, hidden=(32, 32), actor_penalty=actor_penalty,
        actor_learning_rate=3e-3, critic_learning_rate=3e-3,
    )  # fmt: skip
    actions = np.random.default_rng(0).uniform(-1.0, 0.6, size=(400, 1)).astype(np.float32)
    blank = np.zeros((400, 2), np.float32)
    rewards = -((actions[:, 0] - 0.6) ** 2)
    steps = Steps(blank, actions, rewards, blank, np.ones(400, np.float32))
    spec = Spec(2, 1, 1)
    data, _ = rebrac.prepare(config, Material(steps, np.arange(401), spec, 1.0))

    def advance(state: rebrac.State, key: jax.Array) -> tuple[rebrac.State, None]:
        return rebrac.update(config, state, rebrac.draw(config, data, key), key)[0], None

    keys = jax.random.split(jax.random.key(1), 400)
    state = jax.jit(lambda s: jax.lax.scan(advance, s, keys)[0])(rebrac.init(config, spec, jax.random.key(0)))
    action, _ = rebrac.act(config, state, {}, (), jnp.zeros(2), jnp.asarray(0.0), jax.random.key(0))
    assert float(action[0]) == pytest.approx(expected, abs=0.15)
