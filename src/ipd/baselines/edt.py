"""Elastic Decision Transformer (Wu et al., 2023): keeps only as much history as promises the most.

A causal Transformer over (s_t, R_t, a_t), tokens interleaved, with four linear heads: the action from
the token of R_t, the next observation from that of a_t, and from that of s_t the return twice, as
logits of ``num_bins`` bins between the lowest and the highest logged return-to-go, and as one number,
its expectile. Returns enter as the middle of their bin, the range mapped to [-1, 1].

Loss, mean over the steps present in the window: squared error of the action + ``observation_weight``
squared error of the next observation + ``expectile_weight`` expectile loss of the return (in [-1, 1])
+ ``cross_entropy_weight`` cross-entropy of its bin.

In use every history length at distance ``search_stride`` is tried, from all of the context downwards.
For each: a first pass gives the bins' logits, which are raised by ``expert_weight`` times the return
(lowest 0, highest 1); a return is drawn at every step of the history from the ``top_share`` likeliest
bins; a second pass with the drawn returns gives the action and the expectile estimate at the newest
step. The history with the largest estimate acts. What it drew for this step stays in the context of
later first passes, so no target return is needed.

Departures from the public code: pre-norm blocks with a LayerNorm on the embeddings; 32-bit floats; the
range of the bins is that of the data and not of the task's reference scores; windows end at steps drawn
uniformly, so trajectories come up by their length and not all equally often; padding is masked; all
histories are tried in one vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ipd.baseline_config import EDTConfig
from ipd.baselines import sequences
from ipd.baselines.material import Constants, Material
from ipd.baselines.sequences import Context, Logged, State, TokenTransformer, Window, step_mean
from ipd.maths.losses import expectile_loss
from ipd.nn.mlp import PRNG, Linear
from ipd.types import Metrics, Spec

DATA_AXES = None
"""The logged steps are the same for every seed."""


class Prediction(NamedTuple):
    """What the network says at every step of one window."""

    actions: Float[Array, "context act"]
    """In [-1, 1]; has seen s_t and R_t."""
    next_observations: Float[Array, "context obs"]
    """Has seen s_t, R_t and a_t."""
    logits: Float[Array, "context bins"]
    """Of the return's bins; has seen s_t."""
    returns: Float[Array, "context"]
    """Expectile of the return, its range mapped to [-1, 1]; has seen s_t."""


class ElasticTransformer(eqx.Module):
    """Actions, next observations and returns of one window."""

    trunk: TokenTransformer
    head_action: Linear
    head_observation: Linear
    head_bins: Linear
    head_return: Linear

    def __init__(self, config: EDTConfig, spec: Spec, key: PRNG):
        keys = jax.random.split(key, 5)
        self.trunk = TokenTransformer(config, spec, (spec.observation_size, 1, spec.action_size), keys[0])
        self.head_action = Linear(config.width, spec.action_size, keys[1])
        self.head_observation = Linear(config.width, spec.observation_size, keys[2])
        self.head_bins = Linear(config.width, config.num_bins, keys[3])
        self.head_return = Linear(config.width, 1, keys[4])

    def __call__(self, window: Window | Context, dropout: float = 0.0, key: PRNG | None = None) -> Prediction:
        """Steps that are not present carry no meaning. Returns are middles of bins (``from_bin``)."""
        streams = (window.observations, window.returns, window.actions)
        hidden = self.trunk(streams, window.timesteps, window.present, dropout, key)
        return Prediction(
            jnp.tanh(self.head_action(hidden[:, 1])),
            self.head_observation(hidden[:, 2]),
            self.head_bins(hidden[:, 0]),
            self.head_return(hidden[:, 0])[:, 0],
        )


def to_bin(returns: Float[Array, "*batch"], num_bins: int) -> Int[Array, "*batch"]:
    """The bin whose middle is nearest; the outer bins' middles are -1 and 1, the ends of the range."""
    nearest = jnp.round(0.5 * (returns + 1.0) * (num_bins - 1))
    return jnp.clip(nearest, 0, num_bins - 1).astype(jnp.int32)


def from_bin(bins: Int[Array, "*batch"], num_bins: int) -> Float[Array, "*batch"]:
    """Middle of a bin, in [-1, 1]."""
    return bins * (2.0 / (num_bins - 1)) - 1.0


def prepare(config: EDTConfig, material: Material) -> tuple[Logged, Constants]:
    """Logged steps, their returns-to-go mapped from the logged range to [-1, 1]. Acting needs nothing."""
    logged, _ = sequences.prepare(material)
    low, high = logged.returns.min(), logged.returns.max()
    span = jnp.where(high > low, high - low, 1.0)
    return logged._replace(returns=2.0 * (logged.returns - low) / span - 1.0), {}


def init(config: EDTConfig, spec: Spec, key: PRNG) -> State:
    """Fresh network."""
    return sequences.fresh(config, ElasticTransformer(config, spec, key))


def draw(config: EDTConfig, data: Logged, key: PRNG) -> Window:
    """Windows that end at steps drawn uniformly; returns in [-1, 1], not yet rounded to bins."""
    return sequences.windows(data, sequences.draw_rows(config, data, key), config.context_len)


def loss_fn(
    config: EDTConfig, model: ElasticTransformer, batch: Window, key: PRNG
) -> tuple[Float[Array, ""], Metrics]:
    """Weighted sum of the four losses, each a mean over the steps present."""
    keys = jax.random.split(key, batch.returns.shape[0])
    bins = to_bin(batch.returns, config.num_bins)
    seen = batch._replace(returns=from_bin(bins, config.num_bins))
    said = jax.vmap(lambda window, k: model(window, config.dropout, k))(seen, keys)

    mean = partial(step_mean, batch)

    metrics = {
        "action_error": mean(((said.actions - batch.actions) ** 2).mean(-1)),
        "observation_error": mean(((said.next_observations - batch.next_observations) ** 2).mean(-1)),
        "return_loss": mean(expectile_loss(batch.returns - said.returns, config.expectile)),
        "return_cross_entropy": mean(optax.softmax_cross_entropy_with_integer_labels(said.logits, bins)),
    }
    loss = (
        metrics["action_error"]
        + config.observation_weight * metrics["observation_error"]
        + config.expectile_weight * metrics["return_loss"]
        + config.cross_entropy_weight * metrics["return_cross_entropy"]
    )
    return loss, metrics


def update(config: EDTConfig, state: State, batch: Window, key: PRNG) -> tuple[State, Metrics]:
    """One clipped AdamW step."""
    grads, metrics = sequences.gradient(partial(loss_fn, config), state.model, batch, key)
    state, more = sequences.descend(config, state, grads)
    return state, metrics | more


def draw_expert(
    config: EDTConfig, logits: Float[Array, "context bins"], key: PRNG
) -> Float[Array, "context"]:
    """High yet likely returns: drawn from the likeliest bins once high bins are preferred."""
    raised = logits + config.expert_weight * jnp.linspace(0.0, 1.0, config.num_bins)[None]
    kept, bins = jax.lax.top_k(raised, max(1, round(config.top_share * config.num_bins)))
    place = jax.random.categorical(key, kept)
    return from_bin(jnp.take_along_axis(bins, place[:, None], axis=1)[:, 0], config.num_bins)


class Found(NamedTuple):
    """What the search keeps."""

    start: Int[Array, ""]
    """Oldest place of the context that is still seen."""
    estimate: Float[Array, ""]
    """Largest estimate of the return, in [-1, 1]."""
    to_go: Float[Array, ""]
    """Return that was drawn for the newest step."""
    action: Float[Array, "act"]


def search(config: EDTConfig, model: Callable[[Context], Prediction], context: Context, key: PRNG) -> Found:
    """The history with the largest estimated return, among starts ``search_stride`` steps apart."""
    length = config.context_len
    oldest = length - context.present.sum()
    starts = oldest + jnp.arange(0, length, config.search_stride)

    def attempt(start: Int[Array, ""], key: PRNG) -> Found:
        seen = context._replace(present=jnp.arange(length) >= start)
        drawn = draw_expert(config, model(seen).logits, key)
        said = model(seen._replace(returns=drawn))
        estimate = jnp.where(start < length, said.returns[-1], -jnp.inf)
        return Found(start, estimate, drawn[-1], said.actions[-1])

    found = jax.vmap(attempt)(starts, jax.random.split(key, starts.shape[0]))
    best = jnp.argmax(found.estimate)
    kept: Found = jax.tree.map(lambda leaf: leaf[best], found)
    return kept


def begin(config: EDTConfig, spec: Spec, constants: Constants) -> Context:
    """No steps yet."""
    return sequences.empty(config, spec)


def act(
    config: EDTConfig,
    state: State,
    constants: Constants,
    memory: Context,
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], Context]:
    """Action of the history that promises most; rewards are not looked at."""
    # the newest step's return is not seen by the heads that predict it, so any number may stand there
    memory = sequences.push(memory, observation, jnp.asarray(0.0))
    found = search(config, state.acting, memory, key)
    memory = memory._replace(returns=memory.returns.at[-1].set(found.to_go))
    return found.action, sequences.chosen(memory, found.action)
