"""A finished world stage is read from its own files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ipd.config import WorldConfig
from ipd.data.episodes import fit_normaliser
from ipd.data.probes import linear_quadratic
from ipd.presets import preset
from ipd.runs import files, modelling
from ipd.runs.context import Run
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job
from ipd.types import Spec
from ipd.world import learn
from ipd.world.ensemble import ChangeScale


@pytest.mark.parametrize("head", [True, False])
def test_ensemble_comes_back_without_data_with_the_head_it_has(tmp_path: Path, head: bool) -> None:
    def gone() -> None:
        raise AssertionError("the data were asked for")

    small = WorldConfig(hidden=(7,), num_members=2)
    job = Job("gone.hdf5", "Hopper-v4", (3, 5), dataclasses.replace(preset("tiny"), world=small))
    normaliser = fit_normaliser(linear_quadratic(2, 20, 0))
    run = Run(tmp_path, job, None, gone, "d", normaliser, Spec(3, 2, 20), Progress(quiet=True))  # type: ignore[arg-type]
    scale = ChangeScale(jnp.arange(3.0), jnp.arange(1.0, 4.0))
    made = jax.vmap(lambda key: learn.init(small, run.spec, scale, head, key))(run.keys("world"))
    run.store("world", "f").save(9, made)
    files.write_json(tmp_path / "stages" / "world" / "done.json", {"fingerprint": "f"})
    read = modelling.ensembles(run)
    assert (read.termination is not None) == head
    for left, right in zip(jax.tree.leaves(read), jax.tree.leaves(made.best), strict=True):
        np.testing.assert_array_equal(left, right)
    assert modelling.rule_of(run) is not None
    learned = dataclasses.replace(small, termination="learned")
    other = dataclasses.replace(job, config=dataclasses.replace(job.config, world=learned))
    assert modelling.rule_of(dataclasses.replace(run, job=other)) is None
