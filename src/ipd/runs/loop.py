"""The only training loop. A learner is written for one seed; here all seeds train at once.

The random key of update k (counted from 1) of a seed is `fold_in(stage_key, k)`, where
`stage_key` belongs to the seed and the stage: a run that resumes needs no history of keys, and
how the updates are cut into chunks cannot change a bit of the result.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ipd.runs import devices, stopping
from ipd.runs.checkpoint import CheckpointStore, named_leaves
from ipd.runs.errors import RunFailed
from ipd.runs.feed import Ahead
from ipd.runs.metrics import MetricsLog
from ipd.runs.progress import Progress


class Learner(NamedTuple):
    """What the loop needs of a learner; the signatures are those of one seed."""

    draw: Callable[..., Any]
    """draw(config, data, key) -> batch"""
    update: Callable[..., Any]
    """update(config, state, batch, key) -> (state, metrics)"""
    validate: Callable[..., Any] | None = None
    """validate(config, state, data) -> (state, metrics), at multiples of `validate_every` and at the end"""
    finished: Callable[..., Any] | None = None
    """finished(config, state) -> bool; training ends early when it holds for all seeds"""
    batch_axis: int = 0
    """Of every leaf of a batch: the axis of its rows."""


class Schedule(NamedTuple):
    """When things happen, in updates. None of it changes what is learned, `validate_every` aside."""

    steps: int
    chunk: int
    """Updates in one call of the device; metrics are averaged over them."""
    validate_every: int | None = None
    snapshots: tuple[int, ...] = ()
    """Steps whose state is kept for good."""
    checkpoint_seconds: float = 30.0

    def next_stop(self, step: int) -> int:
        """The step at which the chunk that starts at `step` ends."""
        stops = [self.steps, _next_multiple(step, self.chunk), *(s for s in self.snapshots if s > step)]
        if self.validate_every:
            stops.append(_next_multiple(step, self.validate_every))
        return min(stops)

    def validates_at(self, step: int) -> bool:
        """Whether the held-out error is looked at after `step` updates."""
        return self.validate_every is not None and (step % self.validate_every == 0 or step == self.steps)


def _next_multiple(step: int, of: int) -> int:
    return (step // of + 1) * of


def train(
    stage: str,
    learner: Learner,
    config: Any,
    state: Any,
    data: Any,
    data_axes: Any,
    stage_keys: jax.Array,
    schedule: Schedule,
    store: CheckpointStore,
    log: MetricsLog,
    progress: Progress,
    kept: Callable[[int], None] | None = None,
    failed: Collection[int] = (),
) -> tuple[Any, int]:
    """Trains all seeds from `state`, or from the last checkpoint in `store`, to the end of `schedule`.

    `state` holds every seed, stacked on axis 0, and is given up (its buffers are re-used); on several
    devices seeds, or the batch of a single one, are spread over them (`runs.devices`);
    `data` is what `draw` takes, or a `Feed` of it where the data do not fit;
    `data_axes` says per leaf of it whether it has a seed axis (0) or is shared (None);
    `stage_keys` is one key a seed; `kept` is told of each snapshot once it is in `store`; seeds (rows) that
    `failed` stay as they are. Returns the state and the last step, which is in `store`.
    Raises `Stopped` once all is saved after a stop was asked for; at a non-finite metric or a NaN in the
    state `SeedsFailed`, or `RunFailed` where no other seed is left. The last good checkpoint stays.
    """
    # Python scalars make weakly typed leaves; a checkpoint has none, and both must be one program.
    state = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype) if eqx.is_array(leaf) else leaf, state)
    where = devices.layout(stage_keys.shape[0])
    alive = np.array([row not in failed for row in range(stage_keys.shape[0])])
    advance, validate = (_only(alive, f) for f in _compile(learner, config, state, data_axes, where))
    start = store.steps()[-1] if store.steps() else 0
    if start:
        state = store.load(start, like=state)
    log.resume(stage, start)
    arrays, static = eqx.partition(state, eqx.is_array)
    arrays, stage_keys = devices.place(where, arrays, stage_keys)
    names = list(named_leaves(arrays))
    step, saved_at = start, time.monotonic()
    progress.begin(stage, step, schedule.steps)
    place = functools.partial(devices.place_data, where, data_axes)
    with Ahead(data, start, schedule.steps, place) as ahead:
        until = start
        while step < schedule.steps and not _finished(learner, config, eqx.combine(arrays, static), alive):
            if step == until:
                window, until = ahead.take()
            stop = min(schedule.next_stop(step), until)
            arrays, metrics, is_nan = advance(
                arrays, window, stage_keys, np.int32(step), np.int32(stop - step)
            )
            step = stop
            if validate is not None and schedule.validates_at(step):
                arrays, more, is_nan = validate(arrays, window)
                metrics |= more
            values = {name: np.asarray(value) for name, value in metrics.items()}
            _refuse_non_finite(stage, step, values, names, np.asarray(is_nan), alive)
            log.append(stage, step, values, alive)
            progress.advance(step, values)
            due = time.monotonic() - saved_at >= schedule.checkpoint_seconds or stopping.asked()
            if due or step == schedule.steps or step in schedule.snapshots:
                log.sync()
                store.save(step, arrays, keep=schedule.snapshots)
                saved_at = time.monotonic()
                stopping.check()
                if kept is not None and step in schedule.snapshots:
                    kept(step)
    state = eqx.combine(arrays, static)
    if store.steps()[-1:] != [step]:
        log.sync()
        store.save(step, state, keep=schedule.snapshots)
    progress.end()
    return state, step


def _finished(learner: Learner, config: Any, state: Any, alive: NDArray[np.bool_]) -> bool:
    if learner.finished is None:
        return not alive.any()
    ended = np.asarray(eqx.filter_vmap(functools.partial(learner.finished, config))(state))
    return bool(np.all(ended | ~alive))


def _only(alive: NDArray[np.bool_], program: Any) -> Any:
    """`program` for the seeds that are alive; the state of the others stays as it was."""
    if program is None or alive.all():
        return program

    @jax.jit
    def call(arrays: Any, *rest: Any) -> tuple[Any, Any, Any]:
        new, metrics, is_nan = program(arrays, *rest)
        kept = jax.tree.map(lambda n, o: jnp.where(alive.reshape(-1, *[1] * (n.ndim - 1)), n, o), new, arrays)
        return kept, metrics, is_nan

    return call


def _compile(
    learner: Learner, config: Any, state: Any, data_axes: Any, where: devices.Layout | None = None
) -> tuple[Any, Any]:
    """The device's two programs: a chunk of updates, and a look at the held-out data (or None)."""
    _, static = eqx.partition(state, eqx.is_array)

    @jax.jit
    def update(arrays: Any, data: Any, key: jax.Array) -> tuple[Any, Any]:
        draw_key, update_key = jax.random.split(key)
        batch = devices.spread_batch(where, learner.draw(config, data, draw_key), learner.batch_axis)
        new, metrics = learner.update(config, eqx.combine(arrays, static), batch, update_key)
        return eqx.filter(new, eqx.is_array), metrics

    def seed_advance(arrays: Any, data: Any, key: jax.Array, first: Any, count: Any) -> tuple[Any, Any, Any]:
        # The count is dynamic so that chunks of any length are one program, compiled once.
        _, shapes = jax.eval_shape(update, arrays, data, key)
        totals = jax.tree.map(lambda s: jnp.zeros(s.shape, jnp.float32), shapes)

        def body(index: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            arrays, totals = carry
            arrays, metrics = update(arrays, data, jax.random.fold_in(key, first + index + 1))
            return arrays, jax.tree.map(jnp.add, totals, metrics)

        arrays, totals = jax.lax.fori_loop(0, count, body, (arrays, totals))
        return arrays, jax.tree.map(lambda total: total / count, totals), _nan_leaves(arrays)

    advance = jax.jit(
        jax.vmap(seed_advance, in_axes=(0, data_axes, 0, None, None)), donate_argnums=0, keep_unused=True
    )
    if learner.validate is None:
        return advance, None

    def seed_validate(arrays: Any, data: Any) -> tuple[Any, Any, Any]:
        assert learner.validate is not None
        new, metrics = learner.validate(config, eqx.combine(arrays, static), data)
        arrays = eqx.filter(new, eqx.is_array)
        return arrays, metrics, _nan_leaves(arrays)

    return advance, jax.jit(jax.vmap(seed_validate, in_axes=(0, data_axes)), donate_argnums=0)


def _nan_leaves(arrays: Any) -> jax.Array:
    """One bool a leaf. Infinity is allowed in a state: it starts the search for a smallest error."""

    def has_nan(leaf: jax.Array) -> jax.Array:
        return jnp.isnan(leaf).any() if jnp.issubdtype(leaf.dtype, jnp.inexact) else jnp.zeros((), bool)

    return jnp.stack([has_nan(leaf) for leaf in jax.tree.leaves(arrays)])


class SeedsFailed(Exception):
    """Some seeds (rows) came to something that is not finite; `what` says of each what and when."""

    def __init__(self, what: dict[int, str]) -> None:
        super().__init__(str(what))
        self.what = what


def _refuse_non_finite(
    stage: str, step: int, values: dict[str, NDArray[Any]], names: list[str], is_nan: NDArray[Any],
    alive: NDArray[np.bool_],
) -> None:  # fmt: skip
    bad = [(int(row), "metric " + name) for name, value in values.items()
           for row in np.argwhere(~np.isfinite(value.reshape(len(alive), -1)).all(axis=1))[:, 0]]  # fmt: skip
    bad += [(int(row), "tensor " + names[leaf]) for row, leaf in np.argwhere(is_nan)]
    what: dict[int, str] = {}
    for row, name in bad:
        if alive[row]:
            what.setdefault(row, f"{name} is not finite at or before update {step}")
    if len(what) == alive.sum() > 0:
        row, text = next(iter(what.items()))
        raise RunFailed(
            f"stage {stage}, seed number {row}: {text}; "
            f"the last good checkpoint is kept; a smaller --{'value' if stage == 'refit' else stage}."
            "learning-rate may help"
        )
    if what:
        raise SeedsFailed(what)
