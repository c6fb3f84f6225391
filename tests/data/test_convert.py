"""What is written is read back the same, by this package and by minari."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipd.data import columns as data_columns
from ipd.data.convert import convert
from ipd.data.episodes import DataError, Episodes
from ipd.data.sources import load

Arrays = dict[str, np.ndarray[Any, Any]]
Write = Callable[..., str]
TARGETS = ["copy.hdf5", "copy.parquet", "point/copy-v0"]


@pytest.fixture(params=["full", "named", "ended twice", "unlogged"])
def episodes(request: pytest.FixtureRequest, arrays: Arrays, write: Write) -> Episodes:
    """Sets with all that a conversion could lose."""
    if request.param == "ended twice":
        arrays["timeouts"][3] = True
    if request.param == "unlogged":
        del arrays["next_observations"]
    read = load(write(arrays), "Point-v0" if request.param == "full" else None)
    if request.param == "named":
        names = ("speed", "goal/0", "überhöhe"), ("left", "right")
        read = dataclasses.replace(read, observation_names=names[0], action_names=names[1])
    return read


def same(left: Episodes, right: Episodes) -> None:
    assert left.digest == right.digest
    for name in ("observation_names", "action_names", "task"):
        assert getattr(left, name) == getattr(right, name), name


@pytest.mark.parametrize("target", TARGETS)
def test_a_round_trip_loses_nothing(
    tmp_path: Path, episodes: Episodes, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_columns, "PIECE", 3)
    path = convert(episodes, tmp_path / target)
    same(load(str(path)), episodes)
    assert not list(tmp_path.rglob("*.partial"))
    for number, other in enumerate(TARGETS):  # and from there to every other kind
        same(load(str(convert(load(str(path)), tmp_path / str(number) / other))), episodes)


def test_minari_opens_what_is_written(
    tmp_path: Path, episodes: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    convert(episodes, tmp_path / "point" / "copy-v0")
    dataset = minari.load_dataset("point/copy-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (episodes.num_episodes, episodes.num_steps)
    for number, episode in enumerate(dataset.iterate_episodes()):
        chosen = episodes.select([number])
        np.testing.assert_array_equal(episode.observations[:-1], chosen.observations)
        np.testing.assert_array_equal(episode.observations[-1], chosen.next_observations[-1])
        np.testing.assert_array_equal(episode.actions, chosen.actions)
        np.testing.assert_array_equal(episode.rewards, chosen.rewards)
        np.testing.assert_array_equal(episode.terminations, chosen.terminated)
        np.testing.assert_array_equal(episode.truncations, chosen.truncated)
        assert dataset.action_space.contains(episode.actions[0])


@pytest.mark.filterwarnings("ignore")  # minari asks for more about the set than a test has to say
def test_what_minari_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    spaces = pytest.importorskip("gymnasium").spaces
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    random = np.random.default_rng(0)
    size = {"desired_goal": 2, "achieved_goal": 2, "observation": 3}
    seen = [{key: random.normal(size=(n + 1, k)) for key, k in size.items()} for n in (4, 3)]
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=number,
            observations=states,
            actions=random.uniform(-1, 1, (n, 2)).astype(np.float32),
            rewards=random.normal(size=n).tolist(),
            terminations=[False] * (n - 1) + [n == 4],
            truncations=[False] * (n - 1) + [n == 3],
        )
        for number, (n, states) in enumerate(zip((4, 3), seen, strict=True))
    ]
    minari.create_dataset_from_buffers(
        "goal/probe-v0",
        buffer=buffers,
        observation_space=spaces.Dict({key: spaces.Box(-np.inf, np.inf, (k,)) for key, k in size.items()}),
        action_space=spaces.Box(-1, 1, (2,), np.float32),
        algorithm_name="random",
        author="nobody",
        author_email="nobody@example.org",
        code_permalink="none",
    )
    read = load("minari:goal/probe-v0")
    assert read.starts.tolist() == [0, 4, 7] and read.observation_names[:3] == (
        *("achieved_goal/0", "achieved_goal/1", "desired_goal/0"),
    )
    assert np.flatnonzero(read.terminated).tolist() == [3] and np.flatnonzero(read.truncated).tolist() == [6]
    flat = np.concatenate([seen[1][key] for key in sorted(size)], axis=1).astype(np.float32)
    np.testing.assert_array_equal(read.observations[4:], flat[:-1])
    np.testing.assert_array_equal(read.next_observations[4:], flat[1:])


def test_times_survive_in_a_table(tmp_path: Path, arrays: Arrays, write: Write) -> None:
    times = np.arange(12) / 7
    episodes = dataclasses.replace(load(write(arrays)), times=times)
    read = load(str(convert(episodes, tmp_path / "copy.parquet")))
    np.testing.assert_array_equal(read.times, times)


def test_nothing_is_written_over_or_left_half(
    tmp_path: Path, arrays: Arrays, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = load(write(arrays))
    for name in ("there.hdf5", "there"):
        (tmp_path / name).mkdir() if name == "there" else (tmp_path / name).write_bytes(b"mine")
        with pytest.raises(DataError, match="exists"):
            convert(episodes, tmp_path / name)
    assert (tmp_path / "there.hdf5").read_bytes() == b"mine"
    with pytest.raises(DataError, match=r"\.csv"):
        convert(episodes, tmp_path / "copy.csv")

    def fail(rows: int) -> Any:
        yield slice(0, 1)
        raise OSError("disk full")

    monkeypatch.setattr("ipd.data.convert.pieces", fail)
    for target in ("copy.hdf5", "copy.parquet", "copy"):
        with pytest.raises(OSError, match="disk full"):
            convert(episodes, tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.hdf5", "there", "there.hdf5"]


def test_what_minari_or_a_table_cannot_hold_is_refused(tmp_path: Path, arrays: Arrays, write: Write) -> None:
    episodes = load(write(arrays))
    odd = episodes.next_observations.copy()
    odd[5] += 1
    with pytest.raises(DataError, match="row 5"):
        convert(dataclasses.replace(episodes, next_observations=odd), tmp_path / "copy")
    twice = dataclasses.replace(episodes, observation_names=("x", "x", "y"))
    with pytest.raises(DataError, match=r"'observation\.x'.*two dimensions"):
        convert(twice, tmp_path / "copy.parquet")
