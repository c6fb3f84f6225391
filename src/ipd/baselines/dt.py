"""Decision Transformer (Chen et al., 2021): actions conditioned on the return still to come.

A causal Transformer over (R_t, s_t, a_t), tokens interleaved; the action of step t is read from the
token of s_t. Loss: squared error of the action, mean over the steps present in the window and over
action dimensions. R_t is the undiscounted return-to-go, the reward of step t included. In use R_0 is
the target and R_{t+1} = R_t - r_t, which is the same quantity of an episode that reaches the target.

Departures from the published code: pre-norm blocks with a LayerNorm on the embeddings and no dropout on
them; windows end at the drawn step (``sequences``); returns are divided by the largest logged return and
not by a constant of the task; padding is masked, whatever it holds; one target (the best logged return
unless set) and not the better of two.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ipd.baseline_config import DTConfig
from ipd.baselines import sequences
from ipd.baselines.material import Constants, Material
from ipd.baselines.sequences import Context, Logged, State, TokenTransformer, Window, step_mean
from ipd.nn.mlp import PRNG, Linear
from ipd.types import Metrics, Spec

DATA_AXES = None
"""The logged steps are the same for every seed."""


class ReturnPolicy(eqx.Module):
    """Action at every step of one window, from returns-to-go, observations and earlier actions."""

    trunk: TokenTransformer
    head: Linear

    def __init__(self, config: DTConfig, spec: Spec, key: PRNG):
        a, b = jax.random.split(key)
        self.trunk = TokenTransformer(config, spec, (1, spec.observation_size, spec.action_size), a)
        self.head = Linear(config.width, spec.action_size, b)

    def __call__(
        self, window: Window | Context, dropout: float = 0.0, key: PRNG | None = None
    ) -> Float[Array, "context act"]:
        """Deterministic actions in [-1, 1]; steps that are not present carry no meaning."""
        streams = (window.returns, window.observations, window.actions)
        hidden = self.trunk(streams, window.timesteps, window.present, dropout, key)
        return jnp.tanh(self.head(hidden[:, 1]))


def prepare(config: DTConfig, material: Material) -> tuple[Logged, Constants]:
    """Logged steps with their returns-to-go; ``return_scale`` and ``target``."""
    return sequences.prepare(material, config.target)


def init(config: DTConfig, spec: Spec, key: PRNG) -> State:
    """Fresh policy."""
    return sequences.fresh(config, ReturnPolicy(config, spec, key))


def draw(config: DTConfig, data: Logged, key: PRNG) -> Window:
    """Windows that end at steps drawn uniformly."""
    return sequences.windows(data, sequences.draw_rows(config, data, key), config.context_len)


def loss_fn(
    config: DTConfig, policy: ReturnPolicy, batch: Window, key: PRNG
) -> tuple[Float[Array, ""], Metrics]:
    """Mean of (pi - a)^2 over the steps present."""
    keys = jax.random.split(key, batch.returns.shape[0])
    predicted = jax.vmap(lambda window, k: policy(window, config.dropout, k))(batch, keys)
    error = step_mean(batch, ((predicted - batch.actions) ** 2).mean(-1))
    return error, {"action_error": error}


def update(config: DTConfig, state: State, batch: Window, key: PRNG) -> tuple[State, Metrics]:
    """One clipped AdamW step."""
    grads, metrics = sequences.gradient(partial(loss_fn, config), state.model, batch, key)
    state, more = sequences.descend(config, state, grads)
    return state, metrics | more


def begin(config: DTConfig, spec: Spec, constants: Constants) -> Context:
    """No steps yet, the whole target still to come."""
    return sequences.empty(config, spec, constants["target"])


def act(
    config: DTConfig,
    state: State,
    constants: Constants,
    memory: Context,
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], Context]:
    """The policy's action once the reward just received is taken off the return asked for."""
    del config, key
    to_go = memory.returns[-1] - reward / constants["return_scale"]
    memory = sequences.push(memory, observation, to_go)
    action = state.acting(memory)[-1]
    return action, sequences.chosen(memory, action)
