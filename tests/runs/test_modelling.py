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


def test_what_is_said_of_a_model_does_not_hang_on_how_far_a_run_imagines(tmp_path: Path) -> None:
    """Such runs share the stage, so that its summary would be that of whichever came first."""
    episodes, small = linear_quadratic(3, 30, 0), WorldConfig(hidden=(5,), num_members=2)
    told = []
    for steps in (2, 12):
        augment = dataclasses.replace(preset("tiny").augment, imagine_steps=steps)
        config = dataclasses.replace(preset("tiny"), world=small, augment=augment)
        job = Job("data.hdf5", None, (0,), config)
        run = Run(
            tmp_path, job, None, lambda: episodes, episodes.digest, fit_normaliser(episodes),
            Spec(episodes.observation_size, episodes.action_size, 30), Progress(quiet=True),
        )  # fmt: skip
        split = modelling.split_episodes(run)
        made = learn.init(small, run.spec, split.scale, split.learn_termination, run.keys("world")[0])
        told.append(modelling._world_summary(run, split, made.best))
    assert told[0] == told[1]
    assert told[0]["depth"] == list(range(1, 11))
