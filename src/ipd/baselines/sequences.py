"""What the Transformer baselines share: windows of logged steps, tokens, optimiser, memory of an episode.

A baseline of this family is built as

    logged, constants = prepare(material, config.target)         # Data and what acting needs of them
    window = windows(logged, draw_rows(config, logged, key), config.context_len)
    trunk = TokenTransformer(config, spec, (1, obs, act), key)   # sizes of the streams, in token order
    hidden = trunk((returns, observations, actions), timesteps, present)   # (context, streams, width)
    grads, metrics = gradient(loss, model, window, key)
    state = fresh(config, model); state, norm = descend(config, state, grads)
    memory = empty(config, spec, first_return); memory = push(memory, observation, to_go)
    memory = chosen(memory, action)

with heads and losses of its own. Returns are undiscounted sums of scaled rewards, divided by the
constant ``return_scale``, so that what enters a network is of order 1 whatever the reward's unit; the
return at step t counts the reward of step t. Windows end at steps drawn uniformly, so trajectories come
up in proportion to their length, as in Decision Transformer's code; there a window *starts* at the
drawn step, here it ends there, so that short contexts in training are those of an episode's first
steps, as in use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from ipd.baseline_config import SequenceConfig
from ipd.baselines.material import Constants, Material, episode_start, on_device
from ipd.data.windows import window_rows
from ipd.maths.returns import reward_to_go
from ipd.nn.mlp import PRNG, Linear
from ipd.nn.parts import number_of_parts, summed
from ipd.nn.transformer import Transformer
from ipd.types import Metrics, Spec

TOKENS_A_STEP = 3
"""Streams of every member of the family."""


class Logged(NamedTuple):
    """All logged steps on the device, in learner's units, episodes one after another."""

    observations: Float[Array, "steps obs"]
    actions: Float[Array, "steps act"]
    rewards: Float[Array, "steps"]
    """Scaled rewards, not divided by ``return_scale``."""
    next_observations: Float[Array, "steps obs"]
    terminated: Float[Array, "steps"]
    returns: Float[Array, "steps"]
    """Return-to-go, this step's reward included, divided by ``return_scale``."""
    timesteps: Int[Array, "steps"]
    """Step within the episode, 0-based."""
    episode_start: Int[Array, "steps"]
    """Row of the first step of the same episode."""


class Window(NamedTuple):
    """Consecutive steps of one episode, oldest first, padded on the left; leaves as in ``Logged``."""

    observations: Float[Array, "*batch context obs"]
    actions: Float[Array, "*batch context act"]
    rewards: Float[Array, "*batch context"]
    next_observations: Float[Array, "*batch context obs"]
    terminated: Float[Array, "*batch context"]
    returns: Float[Array, "*batch context"]
    timesteps: Int[Array, "*batch context"]
    present: Bool[Array, "*batch context"]
    """False on padding, which repeats the episode's first step: never attended to, never a target."""


def prepare(material: Material, target: float = 0.0) -> tuple[Logged, Constants]:
    """The steps on the device, and ``return_scale`` and ``target``.

    ``return_scale`` is the largest absolute return of a logged episode in scaled rewards (1 where all
    are 0). ``target`` is given in logged units, 0 standing for the best logged return, and comes back
    in units of ``return_scale``: what a network is asked for.
    """
    starts = material.starts
    last = np.zeros(len(material.steps.rewards), bool)
    last[starts[1:] - 1] = True
    steps = on_device(material.steps)
    returns = reward_to_go(steps.rewards, jnp.asarray(last), jnp.zeros_like(steps.rewards), 1.0)
    whole = np.asarray(returns)[starts[:-1]]
    scale = float(np.abs(whole).max()) or 1.0
    wanted = target * material.reward_scale if target else float(whole.max())
    first = jnp.asarray(episode_start(starts), jnp.int32)
    timesteps = jnp.arange(len(last), dtype=jnp.int32) - first
    constants = {"return_scale": scale, "target": wanted / scale}
    return Logged(*steps, returns / scale, timesteps, first), constants


def draw_rows(config: SequenceConfig, logged: Logged, key: PRNG) -> Int[Array, "batch"]:
    """Rows at which a batch of windows ends, uniformly with replacement."""
    return jax.random.randint(key, (config.batch_size,), 0, logged.rewards.shape[0])


def windows(logged: Logged, rows: Int[Array, "batch"], context: int) -> Window:
    """The ``context`` steps that end at each of ``rows``; none crosses the start of its episode."""
    at, present = window_rows(rows, logged.episode_start[rows], context)
    read = Logged(*(leaf[at] for leaf in logged))
    return Window(
        read.observations,
        read.actions,
        read.rewards,
        read.next_observations,
        read.terminated,
        read.returns,
        read.timesteps,
        present,
    )


def step_mean(window: Window, each: Float[Array, "*batch context"]) -> Float[Array, ""]:
    """Mean over the steps present, of all windows together."""
    return jnp.where(window.present, each, 0.0).sum() / window.present.sum()


class TokenTransformer(eqx.Module):
    """A causal Transformer over the interleaved tokens of several streams.

    The tokens of a step stand in the order in which the streams are given, and steps follow one
    another: (x_0, y_0, z_0, x_1, y_1, z_1, ...). So what is read at y_t has seen x_t and y_t, and
    everything of the steps before, but not z_t.
    """

    embed: tuple[Linear, ...]
    embed_timestep: Float[Array, "timesteps width"]
    transformer: Transformer
    time: Literal["episode", "window"] = eqx.field(static=True)

    def __init__(self, config: SequenceConfig, spec: Spec, sizes: tuple[int, ...], key: PRNG):
        """``sizes`` are the sizes of the streams' vectors; 1 for a stream of scalars."""
        a, b, c = jax.random.split(key, 3)
        keys = jax.random.split(a, len(sizes))
        self.embed = tuple(Linear(size, config.width, k) for size, k in zip(sizes, keys, strict=True))
        steps = spec.max_episode_steps if config.time == "episode" else config.context_len
        self.embed_timestep = 0.02 * jax.random.normal(b, (steps, config.width))
        self.transformer = Transformer(config.width, config.layers, config.heads, c)
        self.time = config.time

    def __call__(
        self,
        streams: tuple[Float[Array, "context *_"], ...],
        timesteps: Int[Array, "context"],
        present: Bool[Array, "context"],
        dropout: float = 0.0,
        key: PRNG | None = None,
    ) -> Float[Array, "context streams width"]:
        """Hidden state at every token of one window; rows that are not ``present`` carry no meaning.

        Streams are ``(context, size)``, or ``(context,)`` for scalars. Timesteps beyond the table use
        its last row. ``dropout`` acts where a key is given.
        """
        context = present.shape[0]
        time = self.embed_timestep
        if self.time == "episode":
            time = time[jnp.minimum(timesteps, time.shape[0] - 1)]
        tokens = jnp.stack(
            [
                embed(stream.reshape(context, -1)) + time
                for embed, stream in zip(self.embed, streams, strict=True)
            ],
            axis=1,
        )
        _, count, width = tokens.shape
        flat = tokens.reshape(context * count, width)
        return self.transformer(flat, jnp.repeat(present, count), dropout, key).reshape(tokens.shape)


class State(NamedTuple):
    """Everything a sequence learner knows, for one seed. ``model`` is a pytree of float arrays."""

    model: Any
    acting: Any
    """Running average of ``model``, which acts; the newest weights where ``average`` is 0."""
    optimiser: Any
    step: Int[Array, ""]


def learning_rate(config: SequenceConfig) -> optax.Schedule:
    """Rate by the number of earlier updates: linear up to ``learning_rate``, then constant."""
    # the first update counts 1, as in Decision Transformer's code: a rate of 0 would waste it
    return lambda count: config.learning_rate * jnp.minimum((count + 1) / max(config.warmup_steps, 1), 1.0)


def optimiser(config: SequenceConfig) -> optax.GradientTransformation:
    """AdamW behind a clip of the gradient's norm."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(learning_rate(config), weight_decay=config.weight_decay),
    )


def fresh(config: SequenceConfig, model: Any) -> State:
    """State of an untrained model."""
    acting = jax.tree.map(jnp.copy, model)
    return State(model, acting, optimiser(config).init(model), jnp.asarray(0))


def gradient(
    loss_fn: Callable[[Any, Window, PRNG], tuple[Float[Array, ""], Metrics]],
    model: Any,
    batch: Window,
    key: PRNG,
) -> tuple[Any, Metrics]:
    """Gradient and metrics of a loss that, like each of its metrics, is a mean over the steps present.

    Summed over parts, each of which weighs as many steps as it has (``nn.parts``).
    """
    tokens = TOKENS_A_STEP * batch.present.shape[1]
    total = batch.present.sum()

    def of(part: Window, key: PRNG) -> tuple[Any, Metrics]:
        found = jax.grad(lambda m: loss_fn(m, part, key), has_aux=True)(model)
        share = part.present.sum() / total
        weighed: tuple[Any, Metrics] = jax.tree.map(lambda leaf: share * leaf, found)
        return weighed

    sums: tuple[Any, Metrics] = summed(of, batch, key, number_of_parts(batch.present.shape[0], tokens))
    return sums


def descend(config: SequenceConfig, state: State, grads: Any) -> tuple[State, Metrics]:
    """One optimiser step and one of the running average; the metric is ``gradient_norm``, unclipped."""
    steps, inner = optimiser(config).update(grads, state.optimiser, state.model)
    model = optax.apply_updates(state.model, steps)
    acting = optax.incremental_update(model, state.acting, 1.0 - config.average)
    return State(model, acting, inner, state.step + 1), {"gradient_norm": optax.tree.norm(grads)}


class Context(NamedTuple):
    """Memory of one episode: its last ``context_len`` steps, newest last."""

    observations: Float[Array, "context obs"]
    actions: Float[Array, "context act"]
    returns: Float[Array, "context"]
    timesteps: Int[Array, "context"]
    present: Bool[Array, "context"]


def empty(config: SequenceConfig, spec: Spec, first_return: float | Array = 0.0) -> Context:
    """Before an episode's first step. ``first_return`` fills the (absent) steps' returns, so that a
    return that is counted down can start from ``context.returns[-1]`` at every step alike."""
    length = config.context_len
    return Context(
        jnp.zeros((length, spec.observation_size)),
        jnp.zeros((length, spec.action_size)),
        jnp.full(length, first_return, jnp.float32),
        jnp.zeros(length, jnp.int32),
        jnp.zeros(length, bool),
    )


def push(context: Context, observation: Float[Array, "obs"], to_go: Float[Array, ""]) -> Context:
    """The context with a new step in it, whose action is still zero; see ``chosen``."""

    def roll(row: Array, new: Array) -> Array:
        return jnp.concatenate([row[1:], jnp.asarray(new, row.dtype)[None]])

    time = jnp.where(context.present[-1], context.timesteps[-1] + 1, 0)
    return Context(
        roll(context.observations, observation),
        roll(context.actions, jnp.zeros(context.actions.shape[1])),
        roll(context.returns, to_go),
        roll(context.timesteps, time),
        roll(context.present, jnp.asarray(True)),
    )


def chosen(context: Context, action: Float[Array, "act"]) -> Context:
    """The context with the newest step's action filled in."""
    return context._replace(actions=context.actions.at[-1].set(action))
