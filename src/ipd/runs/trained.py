"""What all learning stages share: training in the loop, and reading back what was trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax

from ipd.runs import loop
from ipd.runs.context import Run
from ipd.runs.errors import InputError
from ipd.runs.memory import give_back

Kept = Callable[[int, Callable[[], Any]], None]
"""Told of a snapshot: its step, and what reads its state."""


class Trained(NamedTuple):
    """A finished stage."""

    fingerprint: str
    step: int
    state: Any


def train(
    run: Run,
    stage: str,
    fingerprint: str,
    learner: loop.Learner,
    config: Any,
    init: Callable[[jax.Array], Any],
    data: Any,
    axes: Any = None,
    schedule: loop.Schedule | None = None,
    kept: Kept | None = None,
) -> Any:
    """Trains a stage for all seeds, or goes on where its checkpoints say; returns the final state."""
    keys = run.keys(stage)
    schedule = schedule or run.schedule(config.steps)
    store = run.store(stage, fingerprint)
    # What runs once is not worth optimising: random numbers take several times as long to compile at level 3.
    begin = jax.jit(init, compiler_options={"xla_backend_optimization_level": 1})
    shapes = eqx.filter_eval_shape(init, keys)

    def tell(step: int) -> None:
        if kept is not None:
            kept(step, partial(store.load, step, like=shapes))

    while True:
        failed = {run.seeds.index(seed) for seed in run.stopped(stage)}
        fresh = begin(keys)
        give_back()  # what preparing the data took
        try:
            state, _ = loop.train(
                stage, learner, config, fresh, data, axes, keys, schedule, store, run.log, run.progress,
                tell, failed,
            )  # fmt: skip
            return state
        except loop.SeedsFailed as error:
            run.stop(stage, fingerprint, {run.seeds[row]: what for row, what in error.what.items()})


def finished(run: Run, stage: str, fingerprint: str, init: Callable[[jax.Array], Any]) -> Trained:
    """A finished stage from its last checkpoint; `init` only tells shapes."""
    store = run.store(stage, fingerprint)
    if not store.steps():
        raise InputError(
            f"{store.folder}: has no checkpoint, though it is finished; run the same `ipd train` again"
        )
    step = store.steps()[-1]
    return Trained(fingerprint, step, store.load(step, like=eqx.filter_eval_shape(init, run.keys(stage))))


def snapshot(run: Run, trained: Trained, stage: str, step: int) -> Any:
    """The state of a stage at an earlier step that was kept."""
    return run.store(stage, trained.fingerprint).load(step, like=trained.state)
