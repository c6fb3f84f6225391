"""Policy stage: distil logged and imagined steps and the Q function into the Transformer (Eq. 26)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ipd.config import PolicyConfig
from ipd.data.windows import window_rows
from ipd.maths.losses import policy_loss
from ipd.nn.mlp import PRNG
from ipd.nn.parts import number_of_parts, summed
from ipd.policy.enriched import Data
from ipd.policy.model import SequencePolicy
from ipd.types import Metrics, Spec, Window
from ipd.value.networks import Critics


class State(NamedTuple):
    """Everything the policy stage knows, for one seed. ``critics`` are the value stage's, frozen."""

    policy: SequencePolicy
    acting: SequencePolicy
    """Running average of ``policy``, which acts; the newest weights where ``average`` is 0."""
    critics: Critics
    optimiser: Any
    step: Int[Array, ""]


def _optimiser(config: PolicyConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(config.learning_rate))


def init(config: PolicyConfig, spec: Spec, critics: Critics, key: PRNG) -> State:
    """Fresh policy beside the finished (target) critics of the value stage."""
    policy = SequencePolicy(config, spec, key)
    acting = jax.tree.map(jnp.copy, policy)
    return State(policy, acting, critics, _optimiser(config).init(policy), jnp.asarray(0))


def num_imagined(config: PolicyConfig) -> int:
    """Windows of a batch that end in an imagined segment."""
    return round(config.mix * config.batch_size)


def logged_windows(config: PolicyConfig, data: Data, rows: Int[Array, "batch"]) -> Window:
    """Windows of logged steps that end at ``rows``; none crosses the start of its episode."""
    logged = data.logged
    at, present = window_rows(rows, logged.episode_start[rows], config.context_len)
    target = jnp.where(present, logged.weights[at], 0.0)
    return Window(
        logged.observations[at], logged.actions[at], logged.prompts[at], logged.timesteps[at], present, target
    )


def imagined_windows(
    config: PolicyConfig, data: Data, segments: Int[Array, "batch"], ends: Int[Array, "batch"]
) -> Window:
    """Windows that end at imagined step ``ends`` of ``segments``, logged history in front.

    Only imagined steps are targets; the logged ones are context.
    """
    logged, imagined = data.logged, data.imagined
    source = imagined.source[segments][:, None]
    offset = ends[:, None] + jnp.arange(1 - config.context_len, 1)[None, :]
    dreamed = offset >= 0
    row = source + offset
    present = dreamed | (row >= logged.episode_start[source])
    row, step = jnp.clip(row, 0, source), jnp.maximum(offset, 0)
    segment = segments[:, None]

    def pick(dream: Array, real: Array) -> Array:
        a, b = dream[segment, step], real[row]
        return jnp.where(dreamed.reshape(*dreamed.shape, *[1] * (a.ndim - 2)), a, b)

    return Window(
        pick(imagined.observations, logged.observations),
        pick(imagined.actions, logged.actions),
        pick(imagined.prompts, logged.prompts),
        logged.timesteps[source] + offset,
        present,
        jnp.where(dreamed, imagined.weights[segment, step], 0.0),
    )


def draw(config: PolicyConfig, data: Data, key: PRNG) -> Window:
    """A batch of windows, the share ``mix`` of them imagined; timesteps kept inside their table."""
    keys = jax.random.split(key, 5)
    dreams = num_imagined(config)
    rows = jax.random.randint(keys[0], (config.batch_size - dreams,), 0, data.logged.total)
    window = logged_windows(config, data, rows)
    if dreams:
        segments = jax.random.randint(keys[1], (dreams,), 0, data.imagined.total)
        lengths = data.imagined.lengths[segments]
        # every imagined step is a target of a window that ends at or after it; ends beyond the
        # context would never show the first steps, so they are spread where it is short
        first = jnp.minimum(config.context_len, lengths) - 1
        ends = jax.random.randint(keys[2], (dreams,), first, lengths)
        window = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]), window, imagined_windows(config, data, segments, ends)
        )
    if config.shorten > 0.0:
        window = shorten(config, window, keys[3])
    return window


def shorten(config: PolicyConfig, window: Window, key: PRNG) -> Window:
    """Hide a random number of the oldest steps of some windows, as at the start of an episode."""
    a, b = jax.random.split(key)
    batch, context = window.present.shape
    some = jax.random.bernoulli(a, config.shorten, (batch, 1))
    hidden = jax.random.randint(b, (batch, 1), 0, context)
    keep = ~some | (jnp.arange(context)[None, :] >= hidden)
    return window._replace(present=window.present & keep, target=jnp.where(keep, window.target, 0.0))


def halves(config: PolicyConfig) -> bool:
    """Whether the Transformer's products are in bfloat16 on this machine."""
    return config.precision == "bfloat16" or (config.precision == "auto" and jax.default_backend() != "cpu")


class Scales(NamedTuple):
    """What the loss divides by, of a whole batch: a part of it alone does not know."""

    targets: Float[Array, ""]
    """Number of positions that are learned."""
    weight: Float[Array, ""]
    """Their mean weight."""
    q: Float[Array, ""]
    """Mean \\|Q\\| of the data's actions there; 1 where Q is not asked."""


def _smallest(critics: Critics, window: Window, actions: Float[Array, "batch context act"]) -> Array:
    return jax.vmap(jax.vmap(lambda s, a: critics(s, a).min()))(window.observations, actions)


def scales(window: Window, q_logged: Float[Array, "batch context"] | None) -> Scales:
    """Of a batch, before anything is predicted; ``q_logged`` is Q at its actions."""
    mask = (window.target > 0.0).astype(window.target.dtype)
    count = jnp.maximum(mask.sum(), 1.0)
    q = jnp.ones_like(count) if q_logged is None else (jnp.abs(q_logged) * mask).sum() / count + 1e-6
    return Scales(count, jnp.maximum(window.target.sum(), 1e-6) / count, q)


def loss_fn(
    config: PolicyConfig,
    policy: SequencePolicy,
    critics: Critics,
    window: Window,
    q_logged: Float[Array, "batch context"] | None,
    key: PRNG,
    by: Scales,
) -> tuple[Float[Array, ""], Metrics]:
    """Eq. 26 averaged over the target positions of the batch that ``by`` is of.

    ``window`` may be a part of it; the losses of all parts add up. Q is a function of the action only as
    far as gradients go; ``q_logged`` is Q at the window's own actions, None where Q is not asked.
    """
    keys = jax.random.split(key, window.prompts.shape[0])
    half = halves(config)
    predicted = jax.vmap(lambda p, o, a, t, m, k: policy(p, o, a, t, m, config.dropout, k, half))(
        window.prompts, window.observations, window.actions, window.timesteps, window.present, keys
    )
    mask = (window.target > 0.0).astype(predicted.dtype)
    q = jnp.zeros_like(mask) if q_logged is None else _smallest(critics, window, predicted)
    each = jax.vmap(jax.vmap(lambda a, p, x, w: policy_loss(a, p, x, by.q, config.q_weight, w)))(
        window.actions, predicted, q, window.target / by.weight
    )
    loss = (each * mask).sum() / by.targets
    error = (((predicted - window.actions) ** 2).mean(-1) * mask).sum() / by.targets
    metrics = {"policy_loss": loss, "action_error": error}
    if q_logged is not None:
        metrics["q_gain"] = ((q - q_logged) * mask).sum() / by.targets
    return loss, metrics


def gradient(
    config: PolicyConfig, policy: SequencePolicy, critics: Critics, window: Window, key: PRNG
) -> tuple[SequencePolicy, Metrics]:
    """Gradient of Eq. 26 by the policy, and metrics; summed over parts of the batch (``nn.parts``)."""
    q_logged = _smallest(critics, window, window.actions) if config.q_weight else None
    by = scales(window, q_logged)

    def of(part: tuple[Window, Array | None], key: PRNG) -> tuple[SequencePolicy, Metrics]:
        found: tuple[SequencePolicy, Metrics] = jax.grad(
            lambda p: loss_fn(config, p, critics, *part, key, by), has_aux=True
        )(policy)
        return found

    batch, context = window.present.shape
    sums: tuple[SequencePolicy, Metrics] = summed(
        of, (window, q_logged), key, number_of_parts(batch, 3 * context)
    )
    return sums


def update(config: PolicyConfig, state: State, batch: Window, key: PRNG) -> tuple[State, Metrics]:
    """One clipped Adam step on Eq. 26."""
    grads, metrics = gradient(config, state.policy, state.critics, batch, key)
    metrics["gradient_norm"] = optax.tree.norm(grads)
    steps, optimiser = _optimiser(config).update(grads, state.optimiser)
    policy = optax.apply_updates(state.policy, steps)
    acting = optax.incremental_update(policy, state.acting, 1.0 - config.average)
    return State(policy, acting, state.critics, optimiser, state.step + 1), metrics
