"""LeRobot's and Minari's folders."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from ipd.data import columns as data_columns
from ipd.data.columns import Storage
from ipd.data.episodes import DataError, Episodes
from ipd.data.sources import Recorded, load, recorded

Arrays = dict[str, np.ndarray[Any, Any]]
Write = Callable[..., str]
LENGTHS = (4, 3, 5)
STARTS = (0, 4, 7, 12)


def refused(source: str, key: str | None, says: str) -> None:
    with pytest.raises(DataError) as caught:
        load(source)
    text = str(caught.value)
    assert caught.value.key == key and says in text and "; " in text and "\n" not in text, text


@pytest.fixture
def full(arrays: Arrays, write: Write) -> Episodes:
    return load(write(arrays))


def lerobot(folder: Path, arrays: Arrays, version: str, **without: bool) -> Path:
    """The three episodes as LeRobot stores them: v2.1 in a file each, v3 in two files."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    episode = np.repeat([0, 1, 2], LENGTHS)
    table = {
        "observation.state": arrays["observations"][:, :2].tolist(),
        "observation.height": arrays["observations"][:, 2:].tolist(),
        "action": arrays["actions"].tolist(),
        "next.reward": arrays["rewards"],
        "next.done": arrays["terminals"],
        "episode_index": episode,
        "timestamp": np.concatenate([np.arange(length) / 10 for length in LENGTHS]).astype(np.float32),
    }
    table = {name: values for name, values in table.items() if name not in without}
    whole = pa.table(table)
    cuts = STARTS if version.startswith("v2") else (0, 4, 12)
    chunk = folder / "data" / "chunk-000"
    chunk.mkdir(parents=True)
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        name = f"episode_{number:06}" if version.startswith("v2") else f"file-{number:03}"
        pq.write_table(whole.slice(start, stop - start), chunk / f"{name}.parquet")
    features = {
        "observation.state": {"dtype": "float32", "shape": [2], "names": {"motors": ["speed", "angle"]}},
        "observation.height": {"dtype": "float32", "shape": [1], "names": None},
        "observation.images.top": {"dtype": "video", "shape": [3, 96, 96], "names": ["c", "h", "w"]},
        "action": {"dtype": "float32", "shape": [2], "names": ["left", "right"]},
    }
    (folder / "meta").mkdir()
    info = {"codebase_version": version, "total_frames": 12, "features": features}
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_reads_as_the_array_file_without_next_observations(
    tmp_path: Path, arrays: Arrays, write: Write, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = load(str(lerobot(tmp_path / "set", arrays, version)))
    del arrays["next_observations"]
    assert read.digest == load(write(arrays)).digest
    assert read.observation_names == ("state/speed", "state/angle", "height/0")
    assert read.action_names == ("left", "right") and read.times is not None
    assert read.columns is not None and read.columns["reward"] == "next.reward"
    assert any("observation.images.top" in remark for remark in read.remarks)
    (told,) = read.doubts
    assert told.severity == "warning" and told.where == "next.done" and "1 of 3 episodes" in told.message
    monkeypatch.setattr(data_columns, "PIECE", 3)
    assert load(str(tmp_path / "set"), storage=Storage(tmp_path, 5)).digest == read.digest


def test_lerobot_without_a_reward_is_refused_unless_a_map_names_one(tmp_path: Path, arrays: Arrays) -> None:
    folder = lerobot(tmp_path / "set", arrays, "v3.0", **{"next.reward": True})
    refused(str(folder), "next.reward", "--columns")
    columns = {
        "observations": ["observation.state"],
        "actions": ["action"],
        "reward": "timestamp",
        "episode": "episode_index",
    }
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(columns))
    read = load(str(folder), columns=tmp_path / "map.yaml")
    assert read.observation_names == ("speed", "angle") and not read.terminated.any()
    assert read.starts.tolist() == [0, 3, 5, 9] and not read.doubts


def test_lerobot_whose_every_recording_is_done_at_its_end(tmp_path: Path, arrays: Arrays) -> None:
    arrays["terminals"] = np.isin(np.arange(12), np.cumsum(LENGTHS) - 1)
    folder = lerobot(tmp_path / "set", arrays, "v2.1")
    (told,) = load(str(folder)).doubts
    assert "in every episode" in told.message and "--columns" in told.cure
    given = {"observations": ["observation.state"], "actions": ["action"], "reward": "next.reward"}
    given |= {"episode": "episode_index"}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(given))
    read = load(str(folder), columns=tmp_path / "map.yaml")
    assert not read.doubts and read.num_episodes == 3 and not read.terminated.any()
    (tmp_path / "map.yaml").write_text(yaml.safe_dump({**given, "terminated": "next.done"}))
    assert not load(str(folder), columns=tmp_path / "map.yaml").doubts  # as its user says
    arrays["terminals"][:] = False
    assert not load(str(lerobot(tmp_path / "endless", arrays, "v2.1"))).doubts


def test_lerobot_that_is_not_whole(tmp_path: Path, arrays: Arrays) -> None:
    folder = lerobot(tmp_path / "set", arrays, "v2.1")
    (folder / "data" / "chunk-000" / "episode_000001.parquet").unlink()
    assert any("9 steps are here" in remark for remark in load(str(folder)).remarks)
    info = json.loads((folder / "meta" / "info.json").read_text())
    (folder / "meta" / "info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    refused(str(folder), "codebase_version", "v1.6")
    (folder / "meta" / "info.json").write_text(json.dumps(info)[:50])
    refused(str(folder), None, "damaged")
    for path in folder.glob("data/*/*"):
        path.unlink()
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    refused(str(folder), None, "data/chunk-*")


def minari(root: Path, arrays: Arrays, name: str = "point/probe-v0") -> Path:
    """The three episodes with the first two dimensions under `state` and the third under `a/goal`."""
    folder = root / name
    (folder / "data").mkdir(parents=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for number, (start, stop) in enumerate(itertools.pairwise(STARTS)):
            seen = [arrays["observations"][start:stop], arrays["next_observations"][stop - 1 : stop]]
            states = np.concatenate(seen)
            group = file.create_group(f"episode_{number}")
            group["observations/state"] = states[:, :2].astype(np.float64)
            group["observations/a/goal"] = states[:, 2:]
            group["actions"], group["rewards"] = arrays["actions"][start:stop], arrays["rewards"][start:stop]
            group["terminations"] = arrays["terminals"][start:stop]
            group["truncations"] = arrays["timeouts"][start:stop]
    metadata = {"data_format": "hdf5", "env_spec": json.dumps({"id": "Point-v0"})}
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    return folder


def test_minari_reads_whole_with_sorted_keys(
    tmp_path: Path, arrays: Arrays, full: Episodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = minari(tmp_path, arrays)
    read = load(str(folder))
    assert read.observation_names == ("a/goal/0", "state/0", "state/1") and read.action_names == ()
    np.testing.assert_array_equal(read.observations[:, [1, 2, 0]], full.observations)
    np.testing.assert_array_equal(read.next_observations[:, [1, 2, 0]], full.next_observations)
    for key in ("actions", "rewards", "terminated", "truncated", "starts"):
        np.testing.assert_array_equal(getattr(read, key), getattr(full, key))
    assert read.task == "Point-v0" and read.unlogged_next is None and read.remarks == ()
    monkeypatch.setattr(data_columns, "PIECE", 3)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert load("minari:point/probe-v0", storage=Storage(tmp_path, 5)).digest == read.digest
    refused("minari:point/other-v0", None, "minari download point/other-v0")
    refused("minari:../x", None, "minari download")


def test_episodes_of_minari_are_in_the_order_of_their_numbers(tmp_path: Path, arrays: Arrays) -> None:
    folder = minari(tmp_path, arrays)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file.move("episode_0", "episode_10")
    assert load(str(folder)).starts.tolist() == [0, 3, 8, 12]


def test_minari_that_cannot_be_used(tmp_path: Path, arrays: Arrays) -> None:
    def broken(name: str, key: str | None, says: str, change: Callable[[h5py.Group], None]) -> None:
        folder = minari(tmp_path, arrays, name)
        with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
            change(file["episode_1"] if says != "discrete" else file["episode_0"])
        refused(str(folder), key, says)

    def shorten(group: h5py.Group) -> None:
        rows = group["observations/state"][:-1]
        del group["observations/state"]
        group["observations/state"] = rows

    def discrete(group: h5py.Group) -> None:
        del group["actions"]
        group["actions"] = np.arange(4)

    def without_steps(group: h5py.Group) -> None:
        del group["rewards"]
        group["rewards"] = np.zeros(0)

    def reward_short(group: h5py.Group) -> None:
        del group["terminations"]
        group["terminations"] = np.zeros(2, np.bool_)

    broken("a", "episode_1/observations/state", "one observation more than steps", shorten)
    broken("b", "actions", "discrete", discrete)
    broken("c", "episode_1", "no step", without_steps)
    broken("d", "episode_1/terminations", "expected (3,)", reward_short)
    folder = minari(tmp_path, arrays, "e")
    (folder / "data" / "metadata.json").write_text('{"data_format": "arrow"}')
    refused(str(folder), None, "arrow")
    (folder / "data" / "main_data.hdf5").write_bytes(b"")
    (folder / "data" / "metadata.json").write_text('{"data_format": "hdf5"}')
    refused(str(folder), None, "damaged")


def test_minari_whose_arrays_are_elsewhere_or_in_a_maze(tmp_path: Path, arrays: Arrays) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["x"] = arrays["rewards"][4:7]
    path = minari(tmp_path, arrays) / "data" / "main_data.hdf5"
    with h5py.File(path, "a") as file:
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/x")
    refused(str(path.parent), "episode_1/rewards", "link to elsewhere")
    with h5py.File(path, "a") as file:
        del file["episode_1/rewards"]
        file.create_dataset("episode_1/rewards", (3,), "f4", external=[(str(tmp_path / "other.hdf5"), 0, 12)])
    refused(str(path.parent), "episode_1/rewards", "another file")
    with h5py.File(path, "a") as file:
        del file["episode_1/rewards"]
        file["episode_1/rewards"] = arrays["rewards"][4:7]
        load(str(path.parent))
        group = file["episode_0/observations"]
        for _ in range(40):  # 2^40 ways to the end
            below = group.create_group("b")
            group["c"] = group = below
    refused(str(path.parent), "observations", "groups inside each other")
    (path.parent / "metadata.json").write_text("[1]")
    refused(str(path.parent), None, "damaged")


def test_the_task_of_minari_is_told_with_its_options(tmp_path: Path, arrays: Arrays) -> None:
    folder = minari(tmp_path, arrays)
    path = folder / "data" / "metadata.json"

    def spec(**changed: Any) -> Recorded:
        told = {"id": "Probe-v0", "max_episode_steps": 60, "kwargs": {}, "additional_wrappers": []} | changed
        path.write_text(json.dumps(json.loads(path.read_text()) | {"env_spec": json.dumps(told)}))
        assert load(str(folder)).task == recorded(str(folder)).task
        return recorded(str(folder))

    told = spec(kwargs={"g": 2.0, "render_mode": "human"}, additional_wrappers=[{"name": "W"}])
    assert told == ("Probe-v0", {"g": 2.0, "max_episode_steps": 60, "wrappers": ["W"]})
    kitchen = spec(id="FrankaKitchen-v1", kwargs={"tasks_to_complete": ["kettle", "microwave"]})
    assert kitchen.task == "FrankaKitchen-v1:kettle,microwave"
    path.write_text("{")
    assert recorded(str(folder)) == recorded("minari:../x") == recorded("") == (None, {})


def test_a_damaged_word_of_minari_spoils_no_steps(tmp_path: Path, arrays: Arrays) -> None:
    folder = minari(tmp_path, arrays)
    path = folder / "data" / "metadata.json"
    for spec in ([], {"id": "Probe-v0", "kwargs": 7}, {"id": "Probe-v0", "additional_wrappers": [{}]}):
        path.write_text(json.dumps({"data_format": "hdf5", "env_spec": json.dumps(spec)}))
        assert load(str(folder)).num_episodes == 3 and recorded(str(folder)) == (None, {})


def test_a_set_names_no_module_to_import(tmp_path: Path, arrays: Arrays, write: Write) -> None:
    source = write(arrays)
    with h5py.File(source, "a") as file:
        file.attrs["task"] = "this:That-v0"
    refused(source, "task", "would import a module")
    assert load(source, "this:That-v0").task == "this:That-v0"
