"""Decision Diffuser (Ajay et al., 2023): a plan of states by diffusion, actions by inverse dynamics.

A temporal U-Net learns to tell the noise in ``horizon`` consecutive observations, given the return of
the episode's rest; the first observation is the present one and stays free of noise. Losses, summed:
squared error of the noise over all observations but the first, with the return hidden from a share
``condition_dropout`` of the plans, and squared error of a_t = f(s_t, s_{t+1}) over the plan's logged
steps. In use every step makes a new plan from the present observation, guided towards the return
``target`` (noise = plain + w (conditioned - plain)) with noise below unit variance, and takes the
action that leads from its first observation to its second. A running average of the weights acts.

The return is discounted, less ``termination_penalty`` at a termination, and mapped so that the lowest
logged one is 0 and the highest 1. Beyond the end of its episode a plan repeats the observation that
followed the last step. Plans that a time limit would cut are left out, as in the published code.

Departures from the published code: observations are standardised and not mapped to uniform ranks, and
estimates of the clean plan are clipped to the logged range of each dimension (there [-1, 1]); the
return is scaled by the data and not by a constant of the task (there divided by 400 for Hopper); ends
are padded as above (there with zeros); the running average moves at every update (there at every
tenth); a batch of 64 stands for two of 32; no context of earlier observations (in the paper, not in
its code). With ``sampling_steps`` below ``diffusion_steps`` plans come from evenly spaced moments
without fresh noise (DDIM, eta = 0); with all of them from the published sampler (eta = 1). Ten
moments need ``predicts="velocity"``, from which the noise follows: told only the noise, the clean
plan is anything at all in the first moments, and so few that follow cannot mend it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from ipd.baseline_config import DDConfig
from ipd.baselines.material import Constants, Material
from ipd.maths import diffusion
from ipd.maths.returns import reward_to_go
from ipd.nn.mlp import MLP, PRNG
from ipd.nn.unet import UNet
from ipd.types import Metrics, Spec

DATA_AXES = None
"""The logged steps are the same for every seed."""


class Data(NamedTuple):
    """Logged steps, and where plans may begin."""

    observations: Float[Array, "steps obs"]
    actions: Float[Array, "steps act"]
    next_observations: Float[Array, "steps obs"]
    last: Int[Array, "steps"]
    """Row of the last step of the same episode."""
    returns: Float[Array, "steps"]
    """Of the episode's rest, in [0, 1]."""
    beginnings: Int[Array, "plans"]
    """Rows from which a plan may be drawn."""


class Plans(NamedTuple):
    """A batch of logged plans."""

    states: Float[Array, "batch horizon obs"]
    actions: Float[Array, "batch shorter act"]
    """Of the steps between the states, ``horizon - 1`` of them."""
    logged: Bool[Array, "batch shorter"]
    """False beyond the end of the episode."""
    returns: Float[Array, "batch"]


class Model(eqx.Module):
    """The denoiser of plans and the inverse dynamics."""

    denoiser: UNet
    inverse: MLP

    def __init__(self, config: DDConfig, spec: Spec, key: PRNG):
        a, b = jax.random.split(key)
        size = spec.observation_size
        self.denoiser = UNet(size, config.width, config.multipliers, a)
        self.inverse = MLP(2 * size, config.inverse_hidden, spec.action_size, b)

    def action(self, state: Float[Array, "obs"], following: Float[Array, "obs"]) -> Float[Array, "act"]:
        """The action that leads from one observation to the next, not clipped."""
        return self.inverse(jnp.concatenate([state, following]))


class State(NamedTuple):
    """Everything the stage knows, for one seed."""

    model: Model
    acting: Model
    """Running average of ``model``, which acts."""
    optimiser: Any
    step: Int[Array, ""]


def prepare(config: DDConfig, material: Material) -> tuple[Data, Constants]:
    """Returns and beginnings of every logged step; the observations' range ``low`` and ``high``."""
    steps, starts = material.steps, material.starts
    terminated = np.asarray(steps.terminated)
    last = np.repeat(starts[1:] - 1, np.diff(starts))
    rows = np.arange(len(last))
    rewards = steps.rewards - config.termination_penalty * material.reward_scale * terminated
    go_back = jax.jit(reward_to_go, static_argnums=3)
    returns = np.asarray(go_back(rewards, rows == last, np.zeros_like(rewards), config.discount))
    returns = (returns - returns.min()) / max(float(np.ptp(returns)), 1e-6)
    whole = np.flatnonzero((rows + config.horizon - 1 <= last + 1) | (terminated[last] > 0.0))
    data = Data(
        jnp.asarray(steps.observations),
        jnp.asarray(steps.actions),
        jnp.asarray(steps.next_observations),
        jnp.asarray(last, jnp.int32),
        jnp.asarray(returns, jnp.float32),
        # where no episode is as long as a plan, all are padded
        jnp.asarray(whole if len(whole) else rows, jnp.int32),
    )
    low, high = np.min(steps.observations, axis=0), np.max(steps.observations, axis=0)
    return data, {"low": low.tolist(), "high": high.tolist()}


def init(config: DDConfig, spec: Spec, key: PRNG) -> State:
    """Fresh networks. Raises ``ValueError`` for sizes that the U-Net cannot have."""
    shrinks = 2 ** (len(config.multipliers) - 1)
    if config.horizon % shrinks:
        raise ValueError(f"a horizon of {config.horizon} is no multiple of {shrinks}")
    model = Model(config, spec, key)
    optimiser = optax.adam(config.learning_rate).init(eqx.filter(model, eqx.is_array))
    return State(model, jax.tree.map(jnp.copy, model), optimiser, jnp.asarray(0, jnp.int32))


def plans_from(config: DDConfig, data: Data, rows: Int[Array, "batch"]) -> Plans:
    """Logged plans that begin at ``rows``."""
    at = rows[:, None] + jnp.arange(config.horizon)[None]
    last = data.last[rows][:, None]
    logged = at <= last
    inside = jnp.minimum(at, last)
    states = jnp.where(logged[..., None], data.observations[inside], data.next_observations[last])
    return Plans(states, data.actions[inside[:, :-1]], logged[:, :-1], data.returns[rows])


def draw(config: DDConfig, data: Data, key: PRNG) -> Plans:
    """A batch of logged plans, their beginnings drawn uniformly."""
    chosen = jax.random.randint(key, (config.batch_size,), 0, data.beginnings.shape[0])
    return plans_from(config, data, data.beginnings[chosen])


def losses(config: DDConfig, model: Model, batch: Plans, key: PRNG) -> Metrics:
    """Errors of the noise and of the action, whose sum is learned from."""
    moment_key, noise_key, shown_key = jax.random.split(key, 3)
    moments = jax.random.randint(moment_key, batch.returns.shape, 0, config.diffusion_steps)
    signals = jnp.asarray(diffusion.cosine_schedule(config.diffusion_steps))[moments]
    noise = jax.random.normal(noise_key, batch.states.shape)
    noisy = jax.vmap(diffusion.noised)(batch.states, noise, signals)
    noisy = noisy.at[:, 0].set(batch.states[:, 0])
    shown = jax.random.bernoulli(shown_key, 1.0 - config.condition_dropout, batch.returns.shape)
    told = jax.vmap(model.denoiser)(noisy, moments.astype(jnp.float32), batch.returns, shown)
    velocity = config.predicts == "velocity"
    truth = jax.vmap(diffusion.velocity)(batch.states, noise, signals) if velocity else noise
    error = jnp.mean((told - truth)[:, 1:] ** 2)
    actions = jax.vmap(jax.vmap(model.action))(batch.states[:, :-1], batch.states[:, 1:])
    missed = ((actions - batch.actions) ** 2).mean(-1)
    action_error = jnp.where(batch.logged, missed, 0.0).sum() / batch.logged.sum()
    return {"diffusion_error": error, "action_error": action_error}


def update(config: DDConfig, state: State, batch: Plans, key: PRNG) -> tuple[State, Metrics]:
    """One Adam step on both errors."""

    def loss(model: Model) -> tuple[Array, Metrics]:
        metrics = losses(config, model, batch, key)
        return metrics["diffusion_error"] + metrics["action_error"], metrics

    grads, metrics = eqx.filter_grad(loss, has_aux=True)(state.model)
    steps, optimiser = optax.adam(config.learning_rate).update(grads, state.optimiser)
    model = eqx.apply_updates(state.model, steps)
    acting = optax.incremental_update(model, state.acting, 1.0 - config.average)
    return State(model, acting, optimiser, state.step + 1), metrics


def plan(
    config: DDConfig,
    model: Model,
    constants: Constants,
    observation: Float[Array, "obs"],
    label: Float[Array, ""],
    key: PRNG,
) -> Float[Array, "horizon obs"]:
    """A plan that begins at ``observation``, guided towards the return ``label`` in [0, 1]."""
    low, high = (jnp.asarray(constants[name], observation.dtype)[None] for name in ("low", "high"))

    def predict(noisy: Array, moment: Array, signal: Array) -> Array:
        shown = jnp.asarray([False, True])
        both = jax.vmap(lambda each: model.denoiser(noisy, moment.astype(float), label, each))(shown)
        if config.predicts == "velocity":
            both = jax.vmap(diffusion.noise_of_velocity, in_axes=(None, 0, None))(noisy, both, signal)
        noise = diffusion.guided(both[0], both[1], config.guidance)
        return jnp.clip(diffusion.clean_of(noisy, noise, signal), low, high)

    return diffusion.sample(
        predict,
        lambda states: states.at[0].set(observation),
        diffusion.cosine_schedule(config.diffusion_steps),
        diffusion.sampling_moments(config.diffusion_steps, config.sampling_steps),
        config.temperature
        * jax.random.normal(key, (config.sampling_steps + 1, config.horizon, len(observation))),
        eta=float(config.sampling_steps == config.diffusion_steps),
    )


def begin(config: DDConfig, spec: Spec, constants: Constants) -> tuple[()]:
    """Nothing to remember."""
    return ()


def act(
    config: DDConfig,
    state: State,
    constants: Constants,
    memory: tuple[()],
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], tuple[()]]:
    """The action between the first two observations of a fresh plan."""
    label = jnp.asarray(config.target, observation.dtype)
    states = plan(config, state.acting, constants, observation, label, key)
    return jnp.clip(state.acting.action(states[0], states[1]), -1.0, 1.0), memory
