"""The package's public face: names, completion, what is printed of its objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.conftest import finished, shared, small

import ipd

__all__ = ["finished", "shared", "small"]


def test_names_are_completed_before_they_are_used() -> None:
    code = "import ipd; print(*dir(ipd))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ipd.__all__) <= set(done.stdout.split())
    for name in ipd.__all__:
        assert getattr(ipd, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = ipd.lode  # type: ignore[attr-defined]


def test_objects_print_as_one_line_and_refuse_other_shapes(finished: Path) -> None:
    flags = np.zeros(6, bool)
    episodes = ipd.Episodes.from_arrays(
        np.zeros((6, 3)), np.zeros((6, 2)), np.zeros(6), flags, np.arange(6) == 5
    )
    assert repr(episodes).startswith("<Episodes of arrays: 1 episodes, 5 steps, 3 observation")
    policy = ipd.load(finished, seed=1)
    world, values = ipd.load_world(finished), ipd.load_values(finished)
    for each in (policy, world, values, episodes):
        assert len(repr(each).splitlines()) == 1 and len(repr(each)) < 200
    assert "11 observation and 3 action" in repr(world) and f"{world.kappa:.4g}" in repr(world)
    states, actions = np.zeros((4, 11), np.float32), np.zeros((4, 3), np.float32)
    with pytest.raises(ValueError, match=r"observations of shape \(7,\), expected \(11,\)"):
        policy.act(np.zeros(7, np.float32))
    policy.reset(4)
    with pytest.raises(ValueError, match=r"expected \(4, 11\); reset"):
        policy.act(states[:3])
    with pytest.raises(ValueError, match=r"actions of shape \(4, 2\), expected \(rows, 3\)"):
        world(states, actions[:, :2])
    with pytest.raises(ValueError, match=r"observations of shape \(4, 10\), expected \(rows, 11\)"):
        values.v(states[:, :10])


def test_an_unknown_preset_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ipd.InputError, match="config: unknown preset 'big'"):
        ipd.train("bundled:hopper-medium-replay", tmp_path / "run", config="big")
