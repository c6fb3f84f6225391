"""What is not finite outside of training stops its seed alone: kappa, returns, imagined steps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from ipd.cli import main
from ipd.runs import imagination, modelling

from .conftest import OPTIONS


def not_finite(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tree)


@pytest.fixture
def again(finished: Path, small: Path, tmp_path: Path) -> Callable[..., Path]:
    """Stages of the finished run are made once more, as far as the last of those named."""

    def run(*stages: str) -> Path:
        out = Path(shutil.copytree(finished, tmp_path / "finished-run"))
        for stage in stages:
            shutil.rmtree(out / "stages" / stage)
        assert main(["train", "--data", str(small), "--out", str(out), *OPTIONS, "--until", stages[-1]]) == 1
        return out

    return run


def test_a_kappa_that_is_no_number_stops_its_seed(
    again: Callable[..., Path],
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, calls = modelling.threshold, []

    def second(*given: Any) -> Any:
        calls.append(given)
        return plain(*given) if len(calls) == 1 else jnp.float32(jnp.nan)

    monkeypatch.setattr(modelling, "threshold", second)
    out = again("world", "augment", "refit")
    said = capsys.readouterr().err
    assert "world: seed 1 is stopped: tensor kappa is not finite on the held-out episodes" in said
    assert "all other seeds are done" in said.splitlines()[-1]
    mine, before = (json.loads((run / "stages/world/summary.json").read_text()) for run in (out, finished))
    assert mine["seeds"][0] == before["seeds"][0] and mine["seeds"][1]["kappa"] is None


@pytest.mark.parametrize("what", ["values", "segments"])
def test_imagining_what_is_no_number_stops_its_seed(
    what: str,
    again: Callable[..., Path],
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dreamer, imagine = imagination.dreamer_of, imagination._imagine
    rows: list[int] = []

    def dreaming(run: Any, values: Any, world: Any, row: int) -> Any:
        rows.append(row)
        made = dreamer(run, values, world, row)
        return made._replace(values=not_finite(made.values)) if (what, row) == ("values", 1) else made

    def imagining(*given: Any) -> Any:
        made = imagine(*given)
        rewards = made.rewards.at[3, 0].set(jnp.inf)
        return made._replace(rewards=rewards) if (what, rows[-1]) == ("segments", 1) else made

    monkeypatch.setattr(imagination, "dreamer_of", dreaming)
    monkeypatch.setattr(imagination, "_imagine", imagining)
    out = again("augment", "refit")
    said = capsys.readouterr().err
    tensor = {"values": "gap is not finite at logged step", "segments": "rewards imagined from step"}[what]
    assert f"augment: seed 1 is stopped: tensor {tensor}" in said
    assert "imagined nothing" not in said  # stopped is what it is
    with h5py.File(out / "augmented.hdf5") as mine, h5py.File(finished / "augmented.hdf5") as before:
        names: list[str] = []
        before["seed-0"].visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        for name in names:
            np.testing.assert_array_equal(mine["seed-0"][name][()], before["seed-0"][name][()])
        assert len(mine["seed-0/rewards"]) and not len(mine["seed-1/rewards"])
    mine, before = (
        safetensors.numpy.load_file(run / "stages/refit/step-300.safetensors") for run in (out, finished)
    )
    for name, array in before.items():
        np.testing.assert_array_equal(mine[name][0], array[0], err_msg=name)
