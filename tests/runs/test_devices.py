"""Seeds, or the batch of one seed, over several devices: the same numbers as on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, np.ndarray]]:
    """What on_four_devices.py learns on one device and on four, each in a process of its own."""
    found = {}
    for count in (1, 4):
        path = tmp_path_factory.mktemp("devices") / f"{count}.npz"
        flags = f"--xla_force_host_platform_device_count={count} {os.environ['XLA_FLAGS']}"
        script = Path(__file__).with_name("on_four_devices.py")
        subprocess.run([sys.executable, script, path], check=True, env={**os.environ, "XLA_FLAGS": flags})
        with np.load(path, allow_pickle=False) as file:
            found[count] = dict(file)
    return found


def test_what_can_be_divided_is_spread(trained: dict[int, dict[str, np.ndarray]]) -> None:
    told = {seeds: str(trained[4][f"{seeds}-layout"]) for seeds in (1, 4, 6, 3)}
    assert told == {1: "batch 4", 4: "seeds 4", 6: "seeds 3", 3: "seeds 3"}
    assert {str(trained[1][f"{seeds}-layout"]) for seeds in (1, 4, 6, 3)} == {"none"}


@pytest.mark.parametrize("seeds", [1, 6])
def test_four_devices_learn_what_one_does(trained: dict[int, dict[str, np.ndarray]], seeds: int) -> None:
    names = [name for name in trained[1] if name.startswith(f"{seeds}-") and "layout" not in name]
    assert len(names) > 10
    for name in names:
        np.testing.assert_allclose(trained[4][name], trained[1][name], rtol=1e-3, atol=1e-5)
