"""Small policies with random weights, exported without a run; and the finished run of tests/faults."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from faults.conftest import finished, shared, small
from plain_numpy import filled

from ipd.config import Config, PolicyConfig
from ipd.data.episodes import Normaliser
from ipd.export.portable import Acting, Portable, of_baseline, of_sequence
from ipd.export.runner import Runner
from ipd.export.write import Limits, contract_of, write
from ipd.policy.act import Controller, Driver, act, begin
from ipd.policy.model import SequencePolicy
from ipd.runs.algorithms import ALGORITHMS
from ipd.types import Spec
from ipd.value.networks import Critics, Value

__all__ = ["finished", "shared", "small"]

SPEC = Spec(observation_size=5, action_size=3, max_episode_steps=9)
NORMALISER = Normaliser(
    np.arange(5, dtype=np.float32),
    np.full(5, 2.0, np.float32),
    np.array([-1.0, -2.0, 0.0], np.float32),
    np.array([3.0, 2.0, 0.5], np.float32),
    np.float32(0.1),
)
TINY = {
    "hidden": (7, 6),
    "context_len": 4,
    "layers": 2,
    "heads": 2,
    "width": 8,
    "num_bins": 5,
    "top_share": 0.5,
    "candidates": 6,
    "horizon": 4,
    "multipliers": (1, 2),
    "inverse_hidden": (7,),
    "diffusion_steps": 4,
    "sampling_steps": 2,
}
"""Settings of baselines that make a small network; each has some of them."""
CONSTANTS = {"return_scale": 3.0, "target": 0.8, "reward_scale": 0.1, "rise": 0.05, "low": [-4.0] * 5,
             "high": [4.0] * 5}  # fmt: skip
"""What any baseline may have been told of the data."""
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


def acting(name: str, **settings: Any) -> Acting:
    """An algorithm of `ipd.runs.algorithms` without training, a context of four steps."""
    algorithm = ALGORITHMS[name]
    config = getattr(Config(), algorithm.stage)
    own = {field.name for field in dataclasses.fields(config)}
    config = dataclasses.replace(config, **{k: v for k, v in {**TINY, **settings}.items() if k in own})
    state = filled(lambda key: algorithm.module.init(config, SPEC, key), 0)
    told = {key: jnp.asarray(each, jnp.float32) for key, each in CONSTANTS.items()}
    return Acting(algorithm, config, state, told, SPEC)


def baseline(name: str, **settings: Any) -> Portable:
    """The same, ready to be exported."""
    made = acting(name, **settings)
    module = made.algorithm.module
    blank = module.begin(made.config, SPEC, made.constants)
    actor, blank = jax.tree.map(lambda leaf: leaf[None], ((made.state, made.constants), blank))
    step = lambda actor, *seen: module.act(made.config, *actor, *seen)  # noqa: E731
    return of_baseline(name, made, NORMALISER, Controller(step, actor, blank, 1, NORMALISER))


def plain() -> Portable:
    """A policy without memory."""
    return baseline("bc")


Exported = Callable[..., Runner]


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    """Exports a policy and opens it; the names are those of `contract_of` and `Limits`."""

    def make(made: Portable, format: str = "safetensors", **more: Any) -> Runner:
        limits = Limits(*(more.pop(name, ()) for name in Limits._fields)).resolved(NORMALISER)
        folder = tmp_path / f"out-{format}"
        write(folder, format, made, contract_of(made, {}, more.pop("seen", SEEN), limits, **more))
        return Runner(folder)

    return make
