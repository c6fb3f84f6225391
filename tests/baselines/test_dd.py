"""Decision Diffuser: plans and returns against plain loops, a known Gaussian, guidance, what is given."""

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

from ipd.baseline_config import DDConfig
from ipd.baselines import dd
from ipd.baselines.material import Material
from ipd.maths import diffusion
from ipd.types import Spec, Steps

CONFIG = DDConfig(
    steps=800, batch_size=64, learning_rate=3e-3, width=16, multipliers=(1,), horizon=8,
    predicts="velocity", diffusion_steps=50, sampling_steps=25, temperature=1.0, average=0.98,
    inverse_hidden=(16,),
)  # fmt: skip
SHORT = dataclasses.replace(CONFIG, horizon=4)
SPEC = Spec(observation_size=3, action_size=2, max_episode_steps=50)
# what a denoiser says is clipped to the range of the data, here far off
WIDE = {"low": [-9.0] * 3, "high": [9.0] * 3}
SCALE = 0.5
BLANK = filled(lambda key: dd.init(CONFIG, SPEC, key), 0).model
STARTS = np.array([0, 3, 13, 97])
"""Ends: a termination before a plan is full, a time limit, a termination."""


@pytest.fixture
def material(small_steps: Steps) -> Material:
    terminated = np.zeros(97, np.float32)
    terminated[[2, 96]] = 1.0
    return Material(
        small_steps._replace(terminated=terminated), STARTS, SPEC._replace(observation_size=5), SCALE
    )


def test_plans_are_those_of_a_plain_loop(material: Material) -> None:
    data, constants = dd.prepare(SHORT, material)
    steps, rows = material.steps, np.array([0, 1, 2, 3, 9, 10, 12, 96])
    plans = jax.jit(lambda rows: dd.plans_from(SHORT, data, rows))(jnp.asarray(rows))
    for place, row in enumerate(rows):
        end = STARTS[np.searchsorted(STARTS, row, side="right")]
        for k in range(4):
            there = steps.observations[row + k] if row + k < end else steps.next_observations[end - 1]
            np.testing.assert_array_equal(plans.states[place, k], there)
        for k in range(3):
            assert bool(plans.logged[place, k]) == (row + k < end)
            if row + k < end:
                np.testing.assert_array_equal(plans.actions[place, k], steps.actions[row + k])
        np.testing.assert_array_equal(plans.returns[place], data.returns[row])
    # a plan may not run into a time limit, but may see the observation behind it
    np.testing.assert_array_equal(data.beginnings, [*range(3), *range(3, 11), *range(13, 97)])
    np.testing.assert_array_equal(constants["low"], steps.observations.min(0))
    np.testing.assert_array_equal(constants["high"], steps.observations.max(0))


def test_returns_are_discounted_penalised_and_between_0_and_1(material: Material) -> None:
    config = dataclasses.replace(SHORT, discount=0.9, termination_penalty=4.0)
    data, _ = dd.prepare(config, material)
    plain, later = np.zeros(97), 0.0
    for row in reversed(range(97)):
        later = 0.0 if row + 1 in STARTS else later
        later = material.steps.rewards[row] - 4.0 * SCALE * material.steps.terminated[row] + 0.9 * later
        plain[row] = later
    plain = (plain - plain.min()) / (plain.max() - plain.min())
    np.testing.assert_allclose(data.returns, plain, rtol=1e-4, atol=1e-5)


def test_plans_are_padded_where_no_episode_is_long_enough(material: Material) -> None:
    steps = material.steps._replace(terminated=np.zeros(97, np.float32))
    data, _ = dd.prepare(dataclasses.replace(CONFIG, horizon=200), material._replace(steps=steps))
    np.testing.assert_array_equal(data.beginnings, np.arange(97))


def toy(key: jax.Array) -> dd.Plans:
    """The second observation is N(2 R - 1, 0.6^2), later ones N(0, 0.6^2), the first anything; a = s' - s."""
    a, b, c = jax.random.split(key, 3)
    returns = jax.random.uniform(a, (CONFIG.batch_size,))
    states = 0.6 * jax.random.normal(b, (CONFIG.batch_size, CONFIG.horizon, 3))
    states = states.at[:, 1].add(2.0 * returns[:, None] - 1.0)
    states = states.at[:, 0].set(jax.random.normal(c, (CONFIG.batch_size, 3)))
    actions = (states[:, 1:] - states[:, :-1])[..., :2]
    return dd.Plans(states, actions, jnp.ones((CONFIG.batch_size, CONFIG.horizon - 1), bool), returns)


@cache
def trained() -> dd.State:
    """The learner after its updates on the toy."""
    fresh = eqx.filter_jit(lambda key: dd.init(CONFIG, SPEC, key))(jax.random.key(0))
    arrays, static = eqx.partition(fresh, eqx.is_array)

    def body(arrays: Any, key: jax.Array) -> tuple[Any, None]:
        a, b = jax.random.split(key)
        state, _ = dd.update(CONFIG, eqx.combine(arrays, static), toy(a), b)
        return eqx.filter(state, eqx.is_array), None

    arrays, _ = jax.jit(lambda a: jax.lax.scan(body, a, jax.random.split(jax.random.key(1), CONFIG.steps)))(
        arrays
    )
    return eqx.combine(arrays, static)


FIRST = jnp.array([0.7, -1.2, 0.1])


@cache
def sampler(guidance: float) -> Any:
    """label -> 512 plans from one first observation."""
    config, model = dataclasses.replace(CONFIG, guidance=guidance), trained().acting
    draw = jax.vmap(lambda label, key: dd.plan(config, model, WIDE, FIRST, label, key), (None, 0))
    return jax.jit(lambda label: draw(label, jax.random.split(jax.random.key(2), 512)))


@cache
def samples(guidance: float, label: float) -> np.ndarray:
    """Of ``sampler``, NumPy."""
    return np.asarray(sampler(guidance)(jnp.asarray(label)))


def test_a_known_gaussian_is_recovered_given_its_return() -> None:
    for label in (0.25, 0.75):
        plans = samples(1.0, label)
        np.testing.assert_allclose(plans[:, 1].mean(0), 2.0 * label - 1.0, atol=0.12)
        np.testing.assert_allclose(plans[:, 2:].mean(0), 0.0, atol=0.12)
        np.testing.assert_allclose(plans[:, 1:].std(0), 0.6, rtol=0.2)


def test_guidance_moves_plans_up_and_without_it_the_return_does_not_matter() -> None:
    free, conditioned, guided = (float(samples(w, 0.75)[:, 1].mean()) for w in (0.0, 1.0, 3.0))
    assert abs(free) < 0.15 and free + 0.3 < conditioned < guided - 0.05
    np.testing.assert_array_equal(samples(0.0, 0.75), samples(0.0, 0.25))
    # a plan that is told nothing may have any return
    assert samples(0.0, 0.75)[:, 1].std() > samples(1.0, 0.75)[:, 1].std() + 0.05


def test_every_plan_begins_at_the_present_observation() -> None:
    np.testing.assert_array_equal(samples(1.0, 0.75)[:, 0], np.tile(FIRST, (512, 1)))


@cache
def acting() -> Any:
    """(observation, constants) -> the plan at one moment, and the action."""
    state, key = trained(), jax.random.key(5)

    def run(observation: jax.Array, constants: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        target = jnp.asarray(CONFIG.target, jnp.float32)
        states = dd.plan(CONFIG, state.acting, constants, observation, target, key)
        action, memory = dd.act(CONFIG, state, constants, (), observation, jnp.zeros(()), key)
        assert memory == ()
        return states, action

    return jax.jit(run)


def test_the_action_leads_from_the_first_observation_to_the_second() -> None:
    for first in (jnp.array([0.7, 0.2, 0.1]), jnp.array([1.6, 1.2, 0.0])):
        states, action = acting()(first, WIDE)
        np.testing.assert_allclose(action, np.clip((states[1] - states[0])[:2], -1, 1), atol=0.15)


def test_actions_are_clipped_and_plans_stay_in_the_logged_range() -> None:
    narrow = {"low": [0.1, 0.2, 0.3], "high": [0.4, 0.5, 0.6]}
    states, action = acting()(jnp.array([3.0, -3.0, 0.0]), narrow)
    assert (np.asarray(states)[1:] >= np.float32(narrow["low"])).all()
    assert (np.asarray(states)[1:] <= np.float32(narrow["high"])).all()
    np.testing.assert_array_equal(action, [-1.0, 1.0])


class Known(eqx.Module):
    """The best prediction for observations from N(2 R, std^2), or from N(0, std^2) where R is hidden."""

    predicts: str = eqx.field(static=True)
    std: float = eqx.field(static=True)

    def __call__(self, noisy: jax.Array, moment: jax.Array, label: jax.Array, shown: jax.Array) -> jax.Array:
        signal = jnp.asarray(diffusion.cosine_schedule(CONFIG.diffusion_steps))[moment.astype(int)]
        mean = 2.0 * label * shown
        gain = self.std**2 * jnp.sqrt(signal) / (self.std**2 * signal + 1.0 - signal)
        clean = mean + gain * (noisy - jnp.sqrt(signal) * mean)
        noise = diffusion.noise_of(noisy, clean, signal)
        return noise if self.predicts == "noise" else diffusion.velocity(clean, noise, signal)


@pytest.mark.parametrize(
    ("predicts", "steps", "guidance", "mean"),
    [
        ("noise", 50, 1.0, 1.4),
        ("noise", 50, 2.0, 2.8),
        ("velocity", 25, 1.0, 1.4),
        ("velocity", 25, 0.0, 0.0),
    ],
)
def test_plans_of_the_best_prediction_are_its_gaussian(
    predicts: Any, steps: int, guidance: float, mean: float
) -> None:
    config = dataclasses.replace(CONFIG, predicts=predicts, sampling_steps=steps, guidance=guidance)
    model = eqx.tree_at(lambda m: m.denoiser, BLANK, Known(predicts, 0.5))
    draw = jax.vmap(lambda key: dd.plan(config, model, WIDE, FIRST, jnp.asarray(0.7), key))
    plans = np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(0), 4_096)))[:, 1:]
    np.testing.assert_allclose(plans.mean((0, 1)), mean, atol=0.03)
    np.testing.assert_allclose(plans.std((0, 1)), 0.5, rtol=0.1)


@pytest.mark.parametrize("predicts", ["noise", "velocity"])
def test_a_prediction_that_knows_the_plan_has_no_loss(predicts: Any) -> None:
    config = dataclasses.replace(CONFIG, predicts=predicts, condition_dropout=0.0)
    model = eqx.tree_at(lambda m: m.denoiser, BLANK, Known(predicts, 0.0))
    returns = jnp.linspace(0.0, 1.0, 64)
    states = jnp.zeros((64, 4, 3)) + 2.0 * returns[:, None, None]
    batch = dd.Plans(states, jnp.zeros((64, 3, 2)), jnp.ones((64, 3), bool), returns)
    losses = jax.jit(lambda batch: dd.losses(config, model, batch, jax.random.key(1)))(batch)
    assert float(losses["diffusion_error"]) < 1e-5


class Fake(eqx.Module):
    """Tells the first observation as the noise of the others, and 10 more where the label is shown."""

    def __call__(self, noisy: jax.Array, moment: jax.Array, label: jax.Array, shown: jax.Array) -> jax.Array:
        return (jnp.zeros_like(noisy) + noisy[:1] + 10.0 * shown).at[0].set(1e4)


def diffusion_error(dropout: float, first: float = 0.0) -> float:
    config = dataclasses.replace(CONFIG, condition_dropout=dropout, predicts="noise")
    model = eqx.tree_at(lambda m: m.denoiser, BLANK, Fake())
    states = jnp.zeros((4_096, 4, 3)).at[:, 0].set(first)
    batch = dd.Plans(states, jnp.zeros((4_096, 3, 2)), jnp.ones((4_096, 3), bool), jnp.zeros(4_096))
    losses = jax.jit(lambda batch: dd.losses(config, model, batch, jax.random.key(1)))(batch)
    return float(losses["diffusion_error"])


def test_the_first_observation_is_told_without_noise_and_not_learned() -> None:
    assert diffusion_error(1.0) == pytest.approx(1.0, rel=0.02)
    assert diffusion_error(1.0, first=5.0) == pytest.approx(1.0 + 5.0**2, rel=0.02)


def test_the_label_is_hidden_from_the_share_of_plans_that_is_asked_for() -> None:
    assert diffusion_error(0.25) == pytest.approx(1.0 + 0.75 * 10.0**2, rel=0.03)


def test_padding_has_no_part_in_the_action_error() -> None:
    model = eqx.tree_at(lambda m: m.denoiser, BLANK, Fake())
    right = jax.jit(toy)(jax.random.key(3))
    wrong = right._replace(actions=right.actions.at[:, 2].set(99.0))
    learn = jax.jit(lambda batch: dd.losses(CONFIG, model, batch, jax.random.key(4))["action_error"])
    assert float(learn(right)) < 10.0 < float(learn(wrong))
    hidden = right.logged.at[:, 2].set(False)
    assert float(learn(right._replace(logged=hidden))) == float(learn(wrong._replace(logged=hidden)))


def test_a_state_has_no_weak_types_and_impossible_sizes_are_refused() -> None:
    state = eqx.filter_jit(lambda key: dd.init(CONFIG, SPEC, key))(jax.random.key(0))
    assert not [leaf for leaf in jax.tree.leaves(state) if getattr(leaf, "weak_type", False)]
    with pytest.raises(ValueError, match="a horizon of 5 is no multiple of 2"):
        dd.init(dataclasses.replace(CONFIG, horizon=5, multipliers=(1, 2)), SPEC, jax.random.key(0))
