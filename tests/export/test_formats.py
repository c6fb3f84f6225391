"""Every format acts as the controller that it was made from."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.export import write as writing
from ipd.export.portable import Portable
from ipd.runs.errors import RunFailed

from .conftest import NORMALISER, Exported, plain, sequence

FORMATS = ("onnx", "stablehlo", "safetensors")


def observations(steps: int = 50) -> np.ndarray:
    """In logged units, within the range of the data."""
    noise = np.random.default_rng(1).normal(size=(steps, 5)).clip(-4, 4).astype(np.float32)
    return NORMALISER.observation_mean + 2 * noise


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("time", ["episode", "window"])
def test_an_exported_sequence_policy_acts_as_the_run_does(format: str, time: str, exported: Exported) -> None:
    """Longer than the context and than the table of timesteps; then a second episode."""
    made = sequence(time)
    runner = exported(made, format)
    for _ in range(2):
        made.controller.reset()
        runner.reset()
        wanted = np.stack([made.controller.act(each) for each in observations()])
        told = np.stack([runner.act(each) for each in observations()])
        np.testing.assert_array_equal(told, wanted)
    assert np.ptp(wanted, axis=0).min() > 0.03  # they differ from step to step
    assert runner.contract["parity"]["largest_difference"] == 0


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_policy_without_memory_acts_as_the_run_does(format: str, exported: Exported) -> None:
    made = plain()
    runner = exported(made, format)
    wanted = np.stack([made.controller.act(each) for each in observations()])
    np.testing.assert_array_equal([runner.act(each) for each in observations()], wanted)


def test_one_layer_is_first_and_last(exported: Exported) -> None:
    made = sequence(layers=1)
    for format in ("onnx", "safetensors"):
        assert exported(made, format).contract["parity"]["largest_difference"] == 0


def test_stablehlo_is_read_by_jax_alone(exported: Exported, tmp_path: Path) -> None:
    """Actions and memory are bit for bit those of the function that was exported."""
    made = sequence()
    exported(made, "stablehlo")
    read = jax.export.deserialize(bytearray((tmp_path / "out-stablehlo" / "policy.stablehlo").read_bytes()))
    step = jax.jit(made.step)
    with jax.enable_x64(True):
        memory = other = {name: jnp.asarray(leaf) for name, leaf in made.blank.items()}
        for each in observations(6):
            action, memory = read.call(each, memory)
            wanted, other = step(each, other)
            np.testing.assert_array_equal(action, wanted)
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), memory, other))
    assert int(memory["time"]) == 6


def test_the_same_policy_is_the_same_file(exported: Exported, tmp_path: Path) -> None:
    from ipd.export.onnx_graph import model

    made = sequence()
    exported(made, "onnx")
    again = model(made.arrays, made.network, made.blank)
    assert (tmp_path / "out-onnx" / "policy.onnx").read_bytes() == again


@pytest.mark.parametrize("format", ["onnx", "safetensors"])
def test_a_file_that_acts_otherwise_is_not_written(format: str, exported: Exported, tmp_path: Path) -> None:
    made: Portable = sequence()
    made.arrays["head/bias"][0] += 1e-3
    with pytest.raises(RunFailed, match=r"acts 0\.00\d+ of half the action range off .*nothing was written"):
        exported(made, format)
    assert not list(tmp_path.iterdir())


def test_a_policy_that_gives_nan_is_not_written(exported: Exported, tmp_path: Path) -> None:
    made = sequence()
    made.arrays["head/bias"][0] = np.nan
    with pytest.raises(RunFailed, match="acts nan"):
        exported(made)
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_an_export_that_was_killed(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = tmp_path / "out-safetensors.partial"
    leftover.mkdir()
    (leftover / "policy.onnx").write_text("half")

    def killed(*_: object) -> float:
        assert leftover.exists() and not (tmp_path / "out-safetensors").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writing, "parity", killed)
        with pytest.raises(KeyboardInterrupt):
            exported(plain())
    assert not list(tmp_path.iterdir())
    exported(plain())
    names = sorted(path.name for path in (tmp_path / "out-safetensors").iterdir())
    assert names == ["contract.json", "policy.safetensors", "runner.py"]
