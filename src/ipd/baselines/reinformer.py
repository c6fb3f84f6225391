"""Reinformer (Zhuang et al., 2024): the return to ask for is itself predicted, near the best possible.

A causal Transformer over (s_t, R_t, a_t), tokens interleaved: R_t is predicted from the token of s_t,
a diagonal Gaussian over a_t from the token of R_t. Losses, mean over the steps present in the window:

* return: expectile loss (tau = 0.99) of (R - R_hat) / mean \\|R\\|, so that R_hat is close to the
  largest return that the data hold for such a history;
* action: -log pi(a) - alpha H(pi), summed over action dimensions;
* temperature: alpha (H - H*) with H held fixed, H* = minus the number of action dimensions; alpha is
  learned by Adam, at the learning rate of the network and without its warm-up.

In use each step takes two passes: R_hat from the states so far, then, with R_hat in the context, the
mean action. The predicted returns of earlier steps stay in the context; rewards are not looked at.
So a prediction a little above the one before it raises the next ones, and what is asked for can climb
beyond all that was logged. With ``bounded`` (not published) R_hat_{t+1} <= R_hat_t - min r, over the
logged rewards and 0: the return-to-go of no logged episode ever rises by more.

As published, the network learns by LAMB behind a clip of the gradient's norm. Departures from the
public code: pre-norm blocks with ReLU and a LayerNorm on the embeddings, where it has post-norm blocks
with GELU; returns are divided by the largest logged return and not by a constant of the task; windows
end at steps drawn uniformly, so trajectories come up by their length and not all equally often; padding
is masked; the standard deviation is kept between e^-5 and e^2.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ipd.baseline_config import ReinformerConfig
from ipd.baselines import sequences
from ipd.baselines.material import Constants, Material
from ipd.baselines.sequences import Context, Logged, TokenTransformer, Window, step_mean
from ipd.maths.losses import expectile_loss, gaussian_log_prob
from ipd.nn.mlp import PRNG, Linear
from ipd.types import Metrics, Spec
from ipd.value.networks import LOG_STD_BOUNDS

DATA_AXES = None
"""The logged steps are the same for every seed."""


class Prediction(NamedTuple):
    """What the network says at every step of one window."""

    returns: Float[Array, "context"]
    """Expectile of the return-to-go, in units of ``return_scale``; has seen s_t."""
    mean: Float[Array, "context act"]
    """Has seen s_t and R_t."""
    log_std: Float[Array, "context act"]


class MaxReturnTransformer(eqx.Module):
    """Returns and actions of one window."""

    trunk: TokenTransformer
    head_return: Linear
    head_mean: Linear
    head_log_std: Linear

    def __init__(self, config: ReinformerConfig, spec: Spec, key: PRNG):
        a, b, c, d = jax.random.split(key, 4)
        self.trunk = TokenTransformer(config, spec, (spec.observation_size, 1, spec.action_size), a)
        self.head_return = Linear(config.width, 1, b)
        self.head_mean = Linear(config.width, spec.action_size, c)
        self.head_log_std = Linear(config.width, spec.action_size, d)

    def __call__(self, window: Window | Context, dropout: float = 0.0, key: PRNG | None = None) -> Prediction:
        """Steps that are not present carry no meaning."""
        streams = (window.observations, window.returns, window.actions)
        hidden = self.trunk(streams, window.timesteps, window.present, dropout, key)
        return Prediction(
            self.head_return(hidden[:, 0])[:, 0],
            self.head_mean(hidden[:, 1]),
            jnp.clip(self.head_log_std(hidden[:, 1]), *LOG_STD_BOUNDS),
        )


class State(NamedTuple):
    """Everything the learner knows, for one seed."""

    model: MaxReturnTransformer
    acting: MaxReturnTransformer
    """Running average of ``model``, which acts; the newest weights where ``average`` is 0."""
    log_temperature: Float[Array, ""]
    """ln alpha."""
    optimiser: Any
    temperature_optimiser: Any
    step: Int[Array, ""]


def _optimiser(config: ReinformerConfig) -> optax.GradientTransformation:
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.lamb(sequences.learning_rate(config), weight_decay=config.weight_decay),
    )


def prepare(config: ReinformerConfig, material: Material) -> tuple[Logged, Constants]:
    """Logged steps with their returns-to-go; ``rise``, the most by which these could rise in one step."""
    logged, constants = sequences.prepare(material)
    return logged, {"rise": max(0.0, -float(logged.rewards.min())) / constants["return_scale"]}


def init(config: ReinformerConfig, spec: Spec, key: PRNG) -> State:
    """Fresh network; alpha is ``entropy_weight``."""
    model = MaxReturnTransformer(config, spec, key)
    temperature = jnp.log(jnp.asarray(config.entropy_weight, jnp.float32))
    return State(
        model,
        jax.tree.map(jnp.copy, model),
        temperature,
        _optimiser(config).init(model),
        optax.adam(config.learning_rate).init(temperature),
        jnp.asarray(0),
    )


def draw(config: ReinformerConfig, data: Logged, key: PRNG) -> Window:
    """Windows that end at steps drawn uniformly."""
    return sequences.windows(data, sequences.draw_rows(config, data, key), config.context_len)


def mean_size(batch: Window) -> Float[Array, ""]:
    """Mean size of the returns-to-go of a batch."""
    return step_mean(batch, jnp.abs(batch.returns)) + 1e-6


def loss_fn(
    config: ReinformerConfig,
    model: MaxReturnTransformer,
    temperature: Float[Array, ""],
    size: Float[Array, ""],
    batch: Window,
    key: PRNG,
) -> tuple[Float[Array, ""], Metrics]:
    """Return and action losses at a fixed temperature; ``entropy`` among the metrics feeds the latter's.

    Errors of the return are divided by ``size`` (``mean_size``).
    """
    keys = jax.random.split(key, batch.returns.shape[0])
    said = jax.vmap(lambda window, k: model(window, config.dropout, k))(batch, keys)

    mean = partial(step_mean, batch)

    likelihood = jax.vmap(jax.vmap(gaussian_log_prob))(batch.actions, said.mean, said.log_std)
    entropy = mean((said.log_std + 0.5 * jnp.log(2.0 * jnp.pi * jnp.e)).sum(-1))
    metrics = {
        "return_loss": mean(expectile_loss((batch.returns - said.returns) / size, config.expectile)),
        "return_gain": mean(said.returns - batch.returns),
        "negative_log_likelihood": -mean(likelihood),
        "entropy": entropy,
        "action_error": mean(((said.mean - batch.actions) ** 2).mean(-1)),
    }
    return metrics["return_loss"] - mean(likelihood) - temperature * entropy, metrics


def update(config: ReinformerConfig, state: State, batch: Window, key: PRNG) -> tuple[State, Metrics]:
    """One clipped LAMB step of the network, then one Adam step of the temperature."""
    temperature = jnp.exp(state.log_temperature)
    size = mean_size(batch)
    grads, metrics = sequences.gradient(
        lambda model, part, key: loss_fn(config, model, temperature, size, part, key), state.model, batch, key
    )
    steps, optimiser = _optimiser(config).update(grads, state.optimiser, state.model)
    model = optax.apply_updates(state.model, steps)
    target_entropy = -batch.actions.shape[-1]
    step, temperature_optimiser = optax.adam(config.learning_rate).update(
        temperature * (metrics["entropy"] - target_entropy), state.temperature_optimiser
    )
    new = State(
        model,
        optax.incremental_update(model, state.acting, 1.0 - config.average),
        optax.apply_updates(state.log_temperature, step),
        optimiser,
        temperature_optimiser,
        state.step + 1,
    )
    return new, metrics | {"temperature": temperature, "gradient_norm": optax.tree.norm(grads)}


def begin(config: ReinformerConfig, spec: Spec, constants: Constants) -> Context:
    """No steps yet."""
    return sequences.empty(config, spec)


def act(
    config: ReinformerConfig,
    state: State,
    constants: Constants,
    memory: Context,
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], Context]:
    """The return is predicted, then the mean action that goes with it, cut to [-1, 1]."""
    most = memory.returns[-1] + constants["rise"]
    most = jnp.where(memory.present[-1] & config.bounded, most, jnp.inf)
    # the return's head does not see the return of its own step, so any number may stand there
    memory = sequences.push(memory, observation, jnp.asarray(0.0))
    to_go = jnp.minimum(state.acting(memory).returns[-1], most)
    memory = memory._replace(returns=memory.returns.at[-1].set(to_go))
    action = jnp.clip(state.acting(memory).mean[-1], -1.0, 1.0)
    return action, sequences.chosen(memory, action)
