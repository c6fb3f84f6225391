"""Trains two learners on as many devices as there are and prints their weights: see test_devices.py."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ipd.config import ValueConfig
from ipd.runs import devices, loop
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.metrics import MetricsLog
from ipd.runs.progress import Progress
from ipd.types import Spec, Steps
from ipd.value import learn

CONFIG = ValueConfig(steps=12, batch_size=16, hidden=(16, 16))


def steps() -> Steps:
    random = np.random.default_rng(0)
    seen = random.normal(size=(60, 5)).astype(np.float32)
    leaves = (seen, seen[:, :2], seen[:, 0], seen + 1.0, np.zeros(60, np.float32))
    return Steps(*map(jnp.asarray, leaves))


def train(seeds: int) -> list[np.ndarray]:
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    state = jax.jit(jax.vmap(partial(learn.init, CONFIG, Spec(5, 2, 50))))(keys)
    with tempfile.TemporaryDirectory() as folder:
        state, _ = loop.train(
            "value", loop.Learner(learn.draw, learn.update), CONFIG, state, steps(), None, keys,
            loop.Schedule(steps=12, chunk=5), CheckpointStore(Path(folder) / "stage", "f"),
            MetricsLog(Path(folder) / "metrics.jsonl", tuple(range(seeds))), Progress(quiet=True),
        )  # fmt: skip
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.critics, state.value, state.policy))]


if __name__ == "__main__":
    found = {}
    for seeds in (1, 4, 6, 3):
        where = devices.layout(seeds)
        found[f"{seeds}-layout"] = np.array("none" if where is None else f"{where.axis} {where.mesh.size}")
    for seeds in (1, 6):
        found |= {f"{seeds}-{number}": leaf for number, leaf in enumerate(train(seeds))}
    np.savez(sys.argv[1], **found)
