"""Stages alone: a world model and values for others, a dataset with imagined steps in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import ipd
from ipd.cli import main
from ipd.data.sources import load
from ipd.runs.errors import InputError

from .conftest import OPTIONS


def test_world_model_alone_speaks_logged_units(finished: Path, small: Path) -> None:
    world, logged = ipd.load_world(finished, seed=1), load(str(small))
    rows = np.arange(0, logged.num_steps, 7)
    said = world(logged.observations[rows], logged.actions[rows])
    assert said.next_observations.shape == (len(rows), 11) and said.terminated.dtype == bool
    error = np.abs(said.next_observations - logged.next_observations[rows]).mean(0)
    assert (error < np.abs(logged.observations - logged.observations.mean(0)).mean(0)).all()
    assert np.corrcoef(said.rewards, logged.rewards[rows])[0, 1] > 0.2
    np.testing.assert_array_equal(said.reliable, said.uncertainty < world.kappa)
    assert 0.5 < said.reliable.mean() <= 1.0
    with pytest.raises(InputError, match="no seed 7"):
        ipd.load_world(finished, seed=7)


def test_values_alone_speak_logged_units(finished: Path, small: Path) -> None:
    values, logged = ipd.load_values(finished), load(str(small))
    v, q = values.v(logged.observations[:9]), values.q(logged.observations[:9], logged.actions[:9])
    assert v.shape == q.shape == (9,) and np.isfinite(v).all() and values.discount == 0.99
    assert not np.array_equal(v, ipd.load_values(finished, refitted=True).v(logged.observations[:9]))


def test_parts_of_a_copied_run_work_without_its_data(finished: Path, small: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(finished, copy)
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace(str(small), "gone.hdf5"))
    logged = load(str(small))
    pairs = logged.observations[:50], logged.actions[:50]
    here, there = ipd.load_world(finished)(*pairs), ipd.load_world(copy)(*pairs)
    for left, right in zip(here, there, strict=True):
        np.testing.assert_array_equal(left, right)
    # the task's rule came along: an upright hopper stands, a fallen one does not
    fallen = np.where(np.arange(11) == 0, 0.1, pairs[0])
    assert not there.terminated.all() and ipd.load_world(copy)(fallen, pairs[1]).terminated.all()
    np.testing.assert_array_equal(ipd.load_values(copy).v(pairs[0]), ipd.load_values(finished).v(pairs[0]))
    assert np.isfinite(ipd.load_values(copy, refitted=True).q(*pairs)).all()
    assert np.isfinite(ipd.load(copy).act(pairs[0][0])).all()


def test_stage_alone_is_trained_and_taken_up_later(
    finished: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = ["train", "--data", str(small), "--out", str(out), *OPTIONS, "--reuse", str(finished)]
    assert main([*given, "--until", "world"]) == 0
    assert sorted(path.name for path in (out / "stages").iterdir()) == ["data", "world"]
    assert ipd.load_world(out).kappa == ipd.load_world(finished).kappa
    with pytest.raises(InputError, match="stage value is not finished"):
        ipd.load_values(out)
    assert main([*given, "--until", "augment"]) == 0
    assert not (out / "stages" / "cloning").exists() and (out / "augmented.hdf5").exists()
    assert main([*given, "--until", "policy"]) == 2
    assert "--until policy: no stage before the last" in capsys.readouterr().err


def test_enlarged_set_is_read_as_any_other(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, to = tmp_path / "run", tmp_path / "more.hdf5"
    given = ["augment", "--data", str(small), "--out", str(out), "--env", "Hopper-v4", "--preset", "tiny"]
    assert main([*given, "--to", str(to)]) == 0
    assert "imagined steps" in capsys.readouterr().out
    logged, more = load(str(small)), load(str(to))
    count = logged.num_steps
    assert more.task == "Hopper-v4" and not more.remarks and more.num_steps > count
    assert more.select(range(logged.num_episodes)).digest == logged.digest
    with h5py.File(to) as file, h5py.File(out / "augmented.hdf5") as imagined:
        assert (
            np.flatnonzero(file["imagined"][()])[0] == count
            and file["imagined"][()].sum() == more.num_steps - count
        )
        lengths = imagined["seed-0/provenance/length"][()]
        rows = imagined["seed-0/provenance/row"][()]
    # each segment is an episode that begins in the logged state it was imagined from
    assert more.lengths[logged.num_episodes :].tolist() == lengths.tolist()
    begins = more.observations[more.starts[logged.num_episodes : -1]]
    np.testing.assert_allclose(begins, logged.observations[rows], rtol=1e-4, atol=1e-4)
    assert main([*given, "--to", str(to)]) == 2 and "is there already" in capsys.readouterr().err
    assert main([*given, "--to", str(tmp_path / "more.csv")]) == 2
