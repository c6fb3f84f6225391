"""The enriched data of the sequence policy: logged steps and imagined segments, with prompts and weights.

Everything here is computed once, before training; ``policy.learn`` only gathers windows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ipd.config import PolicyConfig
from ipd.maths.losses import advantage_weight
from ipd.maths.returns import reward_to_go
from ipd.types import Segment, Steps, ValueFn

QFn = Callable[[Float[Array, "batch obs"], Float[Array, "batch act"]], Float[Array, "batch"]]
MAX_WEIGHT = 100.0
CHUNK = 8_192


class Logged(NamedTuple):
    """Logged steps as windows see them. ``prompts`` and ``weights`` differ between seeds."""

    observations: Float[Array, "steps obs"]
    actions: Float[Array, "steps act"]
    timesteps: Int[Array, "steps"]
    episode_start: Int[Array, "steps"]
    """Row of the first step of the same episode."""
    prompts: Float[Array, "steps"]
    weights: Float[Array, "steps"]
    """Weight of the step's cloning loss; 0: context only."""
    total: Int[Array, ""]
    """Steps that windows end in, the first ones; what comes after them is context of imagined segments."""


class Imagined(NamedTuple):
    """Imagined segments, padded to the same number for every seed. All leaves differ between seeds."""

    source: Int[Array, "segments"]
    """Logged row that each segment starts from."""
    lengths: Int[Array, "segments"]
    observations: Float[Array, "segments time obs"]
    actions: Float[Array, "segments time act"]
    prompts: Float[Array, "segments time"]
    weights: Float[Array, "segments time"]
    total: Int[Array, ""]
    """Segments that are real, the first ones; the rest is padding and never drawn."""


class Data(NamedTuple):
    """Both, for one seed."""

    logged: Logged
    imagined: Imagined


DATA_AXES = Data(Logged(None, None, None, None, 0, 0, None), Imagined(0, 0, 0, 0, 0, 0, 0))  # type: ignore[arg-type]
"""Which leaves carry a seed axis, for vmap."""


def batched(fn: Callable[..., Array], *arrays: np.ndarray) -> Float[np.ndarray, "rows"]:
    """``fn`` over the rows of ``arrays`` in pieces of one fixed shape (one compilation)."""
    rows = len(arrays[0])
    size = min(CHUNK, rows)
    jitted = jax.jit(fn)
    parts = []
    for start in range(0, rows, size):
        part = [a[start : start + size] for a in arrays]
        short = size - len(part[0])
        part = [np.concatenate([p, np.zeros((short, *p.shape[1:]), p.dtype)]) if short else p for p in part]
        parts.append(np.asarray(jitted(*part))[: size - short])
    return np.concatenate(parts)


def logged_prompts(
    config: PolicyConfig, steps: Steps, last: Bool[np.ndarray, "steps"], value: ValueFn, discount: float
) -> tuple[Float[np.ndarray, "steps"], float]:
    """Training prompt of every logged step and std(V), by which prompts are divided in training and use.

    ``value``: V(s_t). ``hindsight``: discounted return-to-go with V behind a truncation. ``max``:
    the larger of the two.
    """
    values = batched(value, np.asarray(steps.observations))
    std = float(values.std()) + 1e-6
    if config.prompt == "value":
        return values / std, std
    behind = batched(value, np.asarray(steps.next_observations)) * (1.0 - np.asarray(steps.terminated))
    achieved = np.asarray(jax.jit(reward_to_go, static_argnums=3)(steps.rewards, last, behind, discount))
    chosen = achieved if config.prompt == "hindsight" else np.maximum(achieved, values)
    return chosen / std, std


def advantages(
    config: PolicyConfig,
    steps: Steps,
    last: Bool[np.ndarray, "rows"],
    value: ValueFn,
    q: QFn,
    discount: float,
) -> Float[np.ndarray, "rows"]:
    """Q - V, or with ``trace`` lambda the sum over k of (gamma lambda)^k (r + gamma V' - V) at k steps on.

    The sum (generalized advantage estimation, Schulman et al. 2016) ends with the stretch that ``last`` ends.
    It hears the rewards that followed, not the critic alone: of what Q promises, it keeps what came true.
    0 where no weight asks for them.
    """
    states, actions = np.asarray(steps.observations), np.asarray(steps.actions)
    if not config.advantage_weight:
        return np.zeros(len(states), np.float32)
    if not config.trace:
        return batched(lambda s, a: q(s, a) - value(s), states, actions)
    behind = batched(value, np.asarray(steps.next_observations)) * (1.0 - np.asarray(steps.terminated))
    errors = np.asarray(steps.rewards) + discount * behind - batched(value, states)
    summed = jax.jit(reward_to_go, static_argnums=3)
    return np.asarray(summed(errors, last, np.zeros_like(errors), discount * config.trace))


def cloning_weights(
    config: PolicyConfig, found: Float[np.ndarray, "rows"], logged: Float[np.ndarray, "steps"]
) -> Float[np.ndarray, "rows"]:
    """1 for every row (Eq. 26), or min(exp(advantage_weight A), cap) for the advantages ``found``.

    With ``trace`` they are measured in standard deviations from the mean of the ``logged`` ones: sums over
    many steps have another size than Q - V, in every task a different one.
    """
    if config.trace:
        found = (found - logged.mean()) / (logged.std() + 1e-6)
    return np.asarray(advantage_weight(jnp.asarray(found), config.advantage_weight, MAX_WEIGHT))


def replaced_rows(
    segments: Segment, source: Int[np.ndarray, "segments"], steps: int
) -> Bool[np.ndarray, "steps"]:
    """Logged rows that some segment replanned."""
    rows = source[:, None] + np.arange(segments.valid.shape[1])
    hit = np.zeros(steps, bool)
    hit[rows[np.asarray(segments.valid)]] = True
    return hit


def enrich(
    config: PolicyConfig,
    steps: Steps,
    starts: Int[np.ndarray, "bounds"],
    segments: Segment | None,
    source: Int[np.ndarray, "segments"],
    value: ValueFn,
    q: QFn,
    discount: float,
) -> tuple[Data, float]:
    """Windows' raw material for one seed, NumPy, and std(V). ``segments`` hold valid steps first."""
    lengths = np.diff(starts)
    last = np.zeros(len(steps.rewards), bool)
    last[np.asarray(starts[1:]) - 1] = True
    prompts, std = logged_prompts(config, steps, last, value, discount)
    found = advantages(config, steps, last, value, q, discount)
    weights = cloning_weights(config, found, found)
    episode_start = np.repeat(starts[:-1], lengths)
    if segments is None or not len(source):
        time = 1 if segments is None else segments.valid.shape[1]  # as other seeds may have
        segments, source = _no_segments(steps, time), np.zeros(1, np.int64)
        count = 0
    else:
        count = len(source)
        if config.replace:
            weights = np.where(replaced_rows(segments, source, len(weights)), 0.0, weights)
    shape = segments.valid.shape
    dreamt = Steps(*(_rows(getattr(segments, name)) for name in Steps._fields))
    # an imagined step has no hindsight of its own: its prompt is V, as in use
    imagined_prompts = batched(value, np.asarray(dreamt.observations)).reshape(shape) / std
    valid = np.asarray(segments.valid)
    ends = valid & ~np.pad(valid[:, 1:], ((0, 0), (0, 1)))
    dreamt_found = advantages(config, dreamt, ends.reshape(-1), value, q, discount)
    imagined_weights = cloning_weights(config, dreamt_found, found).reshape(shape) * valid
    logged: tuple[Any, ...] = (
        np.asarray(steps.observations),
        np.asarray(steps.actions),
        (np.arange(len(weights)) - episode_start).astype(np.int32),
        episode_start.astype(np.int32),
        prompts.astype(np.float32),
        weights.astype(np.float32),
        np.int32(len(weights)),
    )
    imagined: tuple[Any, ...] = (
        source.astype(np.int32),
        valid.sum(axis=1).astype(np.int32),
        np.asarray(segments.observations),
        np.asarray(segments.actions),
        imagined_prompts.astype(np.float32),
        imagined_weights.astype(np.float32),
        np.int32(count),
    )
    return Data(Logged(*logged), Imagined(*imagined)), std


def _rows(leaf: Any) -> Any:
    """Segments one after another, one row a step, NumPy."""
    return np.asarray(leaf).reshape(-1, *leaf.shape[2:])


def _no_segments(steps: Steps, time: int) -> Segment:
    observations = jnp.zeros((1, time, steps.observations.shape[1]))
    actions = jnp.zeros((1, time, steps.actions.shape[1]))
    zeros = jnp.zeros((1, time))
    return Segment(observations, actions, zeros, observations, zeros, zeros, jnp.zeros((1, time), bool))


def stack_seeds(parts: list[Data]) -> Data:
    """Seeds on a new first axis where ``DATA_AXES`` says so, NumPy; segments padded to the largest number."""
    most = max(part.imagined.source.shape[0] for part in parts)

    def padded(leaf: Any) -> Any:
        leaf = np.asarray(leaf)
        return np.pad(leaf, [(0, most - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)]) if leaf.ndim else leaf

    def stacked(*leaves: Any) -> Any:
        return np.stack(leaves) if leaves[1:] else np.asarray(leaves[0])[None]  # one seed alone needs no copy

    own: dict[str, Any] = {
        name: stacked(*(getattr(part.logged, name) for part in parts)) for name in ("prompts", "weights")
    }
    imagined = [jax.tree.map(padded, part.imagined) for part in parts]
    return Data(parts[0].logged._replace(**own), jax.tree.map(stacked, *imagined))
