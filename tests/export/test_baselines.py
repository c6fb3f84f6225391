"""Every algorithm is exported: in all formats where its network is a known one, else as StableHLO."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.export.portable import Portable
from ipd.export.runner import Runner
from ipd.runs.algorithms import ALGORITHMS
from ipd.runs.errors import InputError

from .conftest import CONSTANTS, NORMALISER, SPEC, Exported, acting, baseline

FORMATS = ("onnx", "safetensors", "stablehlo")
STEPS = 12
"""Longer than the context of four, and than the table of nine timesteps."""


def steps() -> list[tuple[np.ndarray, np.float32]]:
    """Observations within the range of the data, and rewards; logged units."""
    random = np.random.default_rng(1)
    rows = NORMALISER.observation_mean + 2 * random.normal(size=(STEPS, 5)).clip(-4, 4).astype(np.float32)
    rewards = random.normal(size=STEPS).astype(np.float32)
    rewards[0] = 0
    return list(zip(rows, 5 * rewards, strict=True))


def told_by_run(made: Portable) -> np.ndarray:
    made.controller.reset()
    return np.stack([made.controller.act(row, reward) for row, reward in steps()])


def told_by(runner: Runner) -> np.ndarray:
    runner.reset()
    return np.stack([runner.act(row, reward) for row, reward in steps()])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_baseline_acts_as_the_run_does_in_every_format_that_can_hold_it(
    name: str, exported: Exported, tmp_path: Path
) -> None:
    made = baseline(name, layers=1)
    wanted = told_by_run(made)
    assert (np.ptp(wanted, axis=0) > 0.02).sum() > 1  # they differ from step to step
    for format in FORMATS:
        if made.network["kind"] == "unknown" and format != "stablehlo":
            with pytest.raises(InputError, match=f"no graph for policy {name}; take --format stablehlo"):
                exported(made, format)
            assert not (tmp_path / f"out-{format}").exists()
            continue
        runner = exported(made, format)
        for _ in range(2):
            np.testing.assert_array_equal(told_by(runner), wanted)


@pytest.mark.parametrize("name", ["dt", "reinformer"])
def test_times_of_a_window_are_exported_too(name: str, exported: Exported) -> None:
    made = baseline(name, time="window", layers=1, bounded=False)
    for format in ("onnx", "safetensors"):
        np.testing.assert_array_equal(told_by(exported(made, format)), told_by_run(made))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_an_algorithm_reads_is_what_the_table_says(name: str) -> None:
    """What `act` does not look at is no input of the function that it becomes."""
    algorithm, config, state, constants, _ = acting(name)
    memory = algorithm.module.begin(config, SPEC, constants)

    def act(memory: Any, observation: jax.Array, reward: jax.Array, key: jax.Array) -> jax.Array:
        chosen = algorithm.module.act(config, state, constants, memory, observation, reward, key)
        return cast(jax.Array, chosen[0])

    inputs = (memory, jnp.zeros(5), jnp.zeros(()), jax.random.PRNGKey(0))
    kept = jax.export.export(jax.jit(act))(*inputs).module_kept_var_idx
    first = len(jax.tree.leaves(memory)) + 1
    read = {first: "reward", first + 1: "key"}
    assert tuple(read[at] for at in sorted(kept) if at in read) == algorithm.reads


def test_the_contract_tells_what_is_asked_for(exported: Exported) -> None:
    contract = exported(baseline("dt"), "safetensors").contract
    assert contract["target_return"] == pytest.approx(0.8 * 3 / 0.1)  # target * return scale / reward scale
    assert contract["constants"]["return_scale"] == CONSTANTS["return_scale"]
    assert contract["memory"]["prompts"]["first"] == pytest.approx(0.8)
    assert contract["context"] == 4


def test_a_return_that_is_counted_down_needs_every_reward(exported: Exported) -> None:
    runner = exported(baseline("dt"), on_bad_observation="hold")
    (row, _), *_ = steps()
    nothing = np.full(5, np.nan)
    assert runner.needs_reward
    runner.act(row)  # nothing was earned before
    with pytest.raises(ValueError, match="reward of the step before"):
        runner.act(row)
    with pytest.raises(ValueError, match="reward is nan"):
        runner.act(row, np.nan)
    for reward in (1.0, 2.0):
        runner.act(nothing, reward)
    held = runner.act(row, 4.0)
    runner.reset()
    runner.act(row)
    np.testing.assert_array_equal(runner.act(row, 7.0), held)  # held steps count
    runner.reset()
    runner.act(row)
    assert not np.array_equal(runner.act(row, 4.0), held)


def test_a_refused_observation_takes_no_reward(exported: Exported) -> None:
    runner = exported(baseline("dt"))
    (row, _), *_ = steps()
    runner.act(row)
    wanted = runner.act(row, 3.0)
    runner.reset()
    runner.act(row)
    with pytest.raises(ValueError, match="accepted are"):
        runner.act(np.full(5, np.inf), 3.0)
    np.testing.assert_array_equal(runner.act(row, 3.0), wanted)


def test_other_policies_need_no_reward(exported: Exported) -> None:
    runner = exported(baseline("reinformer"))
    (row, _), *_ = steps()
    assert not runner.needs_reward
    first = runner.act(row)
    runner.reset()
    np.testing.assert_array_equal(runner.act(row, 5.0), first)
