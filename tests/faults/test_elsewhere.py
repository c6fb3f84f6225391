"""A set with imagined steps in it, read by other libraries: Minari, and d3rlpy where it is at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest

from ipd.cli import main
from ipd.data.episodes import Episodes
from ipd.data.sources import load
from ipd.runs import augmented, enlarged
from ipd.runs.opened import open_run

from .conftest import unsign

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(os.environ.get("IPD_PEERS", ROOT / ".venv-peers")) / "bin" / "python"


class More(NamedTuple):
    """What `ipd augment` would write of the finished run, had every third segment ended in a fall."""

    path: Path
    read: Episodes
    lengths: np.ndarray
    """Of the imagined segments."""
    fell: np.ndarray


@pytest.fixture(scope="module")
def more(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> More:
    run = Path(shutil.copytree(finished, tmp_path_factory.mktemp("more") / "run"))
    with h5py.File(run / augmented.NAME, "a") as file:
        lengths = file["seed-1/provenance/length"][()]
        ends, fell = np.cumsum(lengths) - 1, np.arange(len(lengths)) % 3 == 0
        file["seed-1/terminals"][ends[fell]], file["seed-1/timeouts"][ends[fell]] = True, False
    unsign(run, "augment")
    path = run / "more.hdf5"
    enlarged.write(open_run(run, task=False, needs=("augment",)), 1, path)
    return More(path, load(str(path)), lengths, fell)


def test_minari_reads_an_enlarged_set(more: More, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    path, episodes, lengths, fell = more
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert main(["data", "convert", str(path), "--to", str(tmp_path / "hopper" / "more-v0")]) == 0
    dataset = minari.load_dataset("hopper/more-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (episodes.num_episodes, episodes.num_steps)
    read = list(dataset.iterate_episodes())
    np.testing.assert_array_equal(np.concatenate([each.rewards for each in read]), episodes.rewards)
    states = np.concatenate([each.observations[:-1] for each in read])
    following = np.concatenate([each.observations[1:] for each in read])
    np.testing.assert_array_equal(states, episodes.observations)
    np.testing.assert_array_equal(following, episodes.next_observations)
    segments = read[-len(lengths) :]
    assert [len(each.rewards) for each in segments] == lengths.tolist()
    for each, ended in zip(segments, fell, strict=True):
        assert not each.terminations[:-1].any() and not each.truncations[:-1].any()
        assert (each.terminations[-1], each.truncations[-1]) == (ended, not ended)


def test_d3rlpy_reads_an_enlarged_set_and_learns_from_it(more: More) -> None:
    if not PEERS.exists():
        pytest.skip(f"d3rlpy is not at hand: {PEERS} (bench/peers/README.md says how it gets there)")
    path, episodes, lengths, fell = more
    script = ROOT / "bench" / "peers" / "read_set.py"
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(PEERS), str(script), str(path), "--updates", "3"], capture_output=True, text=True, env=plain
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    ended = episodes.terminated[episodes.starts[1:] - 1]
    assert told["episodes"] == episodes.num_episodes and told["lengths"] == episodes.lengths.tolist()
    assert told["terminated"] == ended.tolist() and told["terminated"][-len(lengths) :] == fell.tolist()
    assert told["transitions"] == episodes.num_steps - int((~ended).sum())
    np.testing.assert_allclose(told["returns"], episodes.returns, rtol=1e-4, atol=1e-3)
    assert told["losses"] and all(np.isfinite(list(told["losses"].values())))
