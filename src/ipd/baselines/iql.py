"""Implicit Q-learning (Kostrikov et al., 2022): the value stage of IPD on its own.

Losses: V by expectile regression on the smallest target Q, Q by the squared TD error on V, the policy
by exp(advantage)-weighted likelihood (`ipd.value.learn`, Eqs. 1-6 of the IPD paper). `--algo iql` sets
the plain square of the published method in place of the Huber loss, and no dropout. Departures from
the public code: observations are normalised, layers start as Equinox has them (there orthogonally);
everything else is its MuJoCo setting.
"""

from __future__ import annotations

from jaxtyping import Array, Float

from ipd.baselines.material import Constants, Material, on_device
from ipd.config import ValueConfig
from ipd.nn.mlp import PRNG
from ipd.types import Spec, Steps
from ipd.value.learn import State, draw, init, update
from ipd.value.multi_step import multi_step

__all__ = ["DATA_AXES", "State", "act", "begin", "draw", "init", "prepare", "update"]

DATA_AXES = None


def prepare(config: ValueConfig, material: Material) -> tuple[Steps, Constants]:
    """All logged steps; each with the rewards of ``multi_step`` of them."""
    steps = multi_step(material.steps, material.starts, config.multi_step, config.discount)
    return on_device(steps), {}


def begin(config: ValueConfig, spec: Spec, constants: Constants) -> tuple[()]:
    """Nothing to remember."""
    return ()


def act(
    config: ValueConfig,
    state: State,
    constants: Constants,
    memory: tuple[()],
    observation: Float[Array, "obs"],
    reward: Float[Array, ""],
    key: PRNG,
) -> tuple[Float[Array, "act"], tuple[()]]:
    """The mean action of the policy."""
    return state.policy.mean(observation), memory
