"""A set with imagined steps in it keeps what the logged one told of itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np

from ipd.data.episodes import Episodes, fit_normaliser
from ipd.data.probes import linear_quadratic
from ipd.data.sources import load
from ipd.presets import preset
from ipd.runs import augmented, enlarged
from ipd.runs.context import Run
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job
from ipd.types import Segment, Spec


def test_unstored_next_observations_and_names_are_kept(tmp_path: Path) -> None:
    rows = np.arange(40)
    episodes: Episodes = dataclasses.replace(
        linear_quadratic(2, 20, 0), terminated=rows == 19, truncated=rows == 39, unlogged_next=rows == 19,
        observation_names=("x", "v", "w"), action_names=("left", "right"),
    )  # fmt: skip
    run = Run(
        tmp_path, Job("d", None, (4,), preset("tiny")), None, lambda: episodes, episodes.digest,
        fit_normaliser(episodes), Spec(3, 2, 20), Progress(quiet=True),
    )  # fmt: skip
    steps, states = np.zeros((2, 5), np.float32), np.ones((2, 5, 3), np.float32)
    segments = Segment(
        states, np.zeros((2, 5, 2), np.float32), steps + 7, states, steps, steps,
        np.arange(5) < np.array([[5], [2]]),
    )  # fmt: skip
    with h5py.File(tmp_path / augmented.NAME, "w") as file:
        augmented.Writer(run, file, 4).add(
            np.array([3, 25]), np.arange(2), segments, steps[:, 0], steps[:, 0]
        )
    made = enlarged.write(run, 4, tmp_path / "more.hdf5")
    more = load(str(tmp_path / "more.hdf5"))
    assert made == (40, 7) and more.lengths.tolist() == [20, 20, 5, 2]
    assert more.unlogged_next is not None and np.flatnonzero(more.unlogged_next).tolist() == [19]
    assert more.observation_names == ("x", "v", "w") and more.action_names == ("left", "right")
    assert np.flatnonzero(more.terminated).tolist() == [19]
    assert np.flatnonzero(more.truncated).tolist() == [39, 44, 46]
    np.testing.assert_array_equal(more.rewards[40:], 7)
