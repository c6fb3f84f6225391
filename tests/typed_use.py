"""How a user's program sees the types of `ipd`: checked by mypy (`make check`), never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np

import ipd
from ipd.policy.act import Controller
from ipd.runs.parts import Imagined, Values, World


def use(folder: Path) -> None:
    """Every name of the package's face."""
    states, actions = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)
    flags = np.zeros(4, bool)
    episodes = ipd.Episodes.from_arrays(states, actions, [0.0] * 4, flags, ~flags, task="Point-v0")
    assert_type(episodes, ipd.Episodes)
    assert_type(episodes.num_steps, int)
    assert_type(ipd.train("data.hdf5", folder, env="Hopper-v4", config="cpu", seeds=3), Path)
    policy = ipd.load(folder, seed=1)
    assert_type(policy, Controller)
    policy.reset()
    policy.act(states[0]).mean()
    world, values = ipd.load_world(folder), ipd.load_values(str(folder), refitted=True)
    assert_type(world, World)
    assert_type(values, Values)
    assert_type(world(states, actions), Imagined)
    values.v(states).mean()
    try:
        ipd.train("data.hdf5", folder, columns="map.yaml")
    except (ipd.DataError, ipd.InputError) as error:
        print(error)
