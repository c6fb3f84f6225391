"""A set with imagined steps in it, read by other libraries: Minari, and d3rlpy where it is at hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from ipd.cli import main
from ipd.data.episodes import Episodes
from ipd.data.sources import load
from ipd.runs import augmented, enlarged
from ipd.runs.stages import open_run

ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(os.environ.get("IPD_PEERS", ROOT / ".venv-peers")) / "bin" / "python"


@pytest.fixture(scope="module")
def more(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Episodes]:
    """The file that `ipd augment` writes, of the finished run."""
    path = tmp_path_factory.mktemp("more") / "more.hdf5"
    enlarged.write(open_run(finished, task=False, needs=("augment",)), 1, path)
    return path, load(str(path))


def imagined_ends(finished: Path) -> tuple[np.ndarray, np.ndarray]:
    """Length of each imagined segment of seed 1, and whether it terminated."""
    with h5py.File(finished / augmented.NAME) as file:
        lengths = file["seed-1/provenance/length"][()]
        return lengths, file["seed-1/terminals"][()][np.cumsum(lengths) - 1]


def test_minari_reads_an_enlarged_set(
    more: tuple[Path, Episodes], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    path, episodes = more
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
    lengths, terminated = imagined_ends(finished)
    segments = read[-len(lengths) :]
    assert [len(each.rewards) for each in segments] == lengths.tolist()
    for each, ended in zip(segments, terminated, strict=True):
        assert not each.terminations[:-1].any() and not each.truncations[:-1].any()
        assert (each.terminations[-1], each.truncations[-1]) == (ended, not ended)


def test_d3rlpy_reads_an_enlarged_set_and_learns_from_it(more: tuple[Path, Episodes], finished: Path) -> None:
    if not PEERS.exists():
        pytest.skip(f"d3rlpy is not at hand: {PEERS} (bench/peers/README.md says how it gets there)")
    path, episodes = more
    script = ROOT / "bench" / "peers" / "read_set.py"
    plain = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(PEERS), str(script), str(path), "--updates", "3"], capture_output=True, text=True, env=plain
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    lengths, terminated = imagined_ends(finished)
    ended = episodes.terminated[episodes.starts[1:] - 1]
    assert told["episodes"] == episodes.num_episodes and told["lengths"] == episodes.lengths.tolist()
    assert told["terminated"] == ended.tolist() and told["terminated"][-len(lengths) :] == terminated.tolist()
    assert told["transitions"] == episodes.num_steps - int((~ended).sum())
    np.testing.assert_allclose(told["returns"], episodes.returns, rtol=1e-4, atol=1e-3)
    assert told["losses"] and all(np.isfinite(list(told["losses"].values())))
