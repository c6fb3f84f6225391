"""Small policies with random weights, exported without a run; and the finished run of tests/faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults.conftest import cache_of_tests, finished, shared, small
from plain_numpy import filled

from ipd.config import PolicyConfig
from ipd.data.episodes import Normaliser
from ipd.export.portable import Portable, of_gaussian, of_sequence
from ipd.export.runner import Runner
from ipd.export.write import Limits, contract_of, write
from ipd.policy.act import Controller, Driver, act, begin
from ipd.policy.model import SequencePolicy
from ipd.types import Spec
from ipd.value.networks import Critics, GaussianPolicy, Value

__all__ = ["cache_of_tests", "finished", "shared", "small"]

SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=9)
NORMALISER = Normaliser(
    np.arange(5, dtype=np.float32),
    np.full(5, 2.0, np.float32),
    np.array([-1.0, -2.0, 0.0], np.float32),
    np.array([3.0, 2.0, 0.5], np.float32),
    np.float32(0.1),
)
SEEN = (NORMALISER.observation_mean - 10, NORMALISER.observation_mean + 10)


def sequence(time: Any = "episode", layers: int = 2) -> Portable:
    """IPD's policy, two heads, a context of four steps, episodes of nine."""
    config = PolicyConfig(layers=layers, heads=2, width=8, context_len=4, dropout=0.0, time=time)

    def make(key: jax.Array) -> Driver:
        policy, value = SequencePolicy(config, SPEC, key), Value(5, (7, 6), key)
        return Driver(policy, value, Critics(5, 3, (7,), 2, key), jnp.asarray(1.0))

    driver = filled(make, 0)._replace(prompt_scale=jnp.asarray(0.7))
    drivers, blank = jax.tree.map(lambda leaf: leaf[None], (driver, begin(4, SPEC)))
    return of_sequence(driver, 4, NORMALISER, Controller(partial(act), drivers, blank, 1, NORMALISER))


def gaussian() -> Portable:
    """A policy without memory."""
    policy = filled(lambda key: GaussianPolicy(5, 3, (7, 6), key), 0)
    stacked = jax.tree.map(lambda leaf: leaf[None], policy)
    step = lambda policy, memory, o, r, k: (policy.mean(o), memory)  # noqa: E731
    return of_gaussian("bc", policy, NORMALISER, Controller(step, stacked, (), 1, NORMALISER))


Exported = Callable[..., Runner]


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    """Exports a policy and opens it; the names are those of `contract_of` and `Limits`."""

    def make(made: Portable, format: str = "safetensors", **more: Any) -> Runner:
        limits = Limits(*(more.pop(name, ()) for name in Limits._fields)).resolved(NORMALISER)
        folder = tmp_path / f"out-{format}"
        write(folder, format, made, contract_of(made, {}, SEEN, limits, **more))
        return Runner(folder)

    return make
