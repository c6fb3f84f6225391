"""Where episodes end, and what follows their last steps, in every form a file comes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ipd.data.episodes import DataError, Episodes
from ipd.data.sources import load

Arrays = dict[str, np.ndarray[Any, Any]]
Write = Callable[..., str]
STARTS = [0, 4, 7, 12]


def same(left: Episodes, right: Episodes) -> bool:
    return left.digest == right.digest


@pytest.mark.parametrize("name", ["data.hdf5", "data.h5", "data.npz"])
def test_full_file_reads_as_it_was_written(arrays: Arrays, write: Write, name: str) -> None:
    episodes = load(write(arrays, name))
    assert episodes.starts.tolist() == STARTS
    for key in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(getattr(episodes, key), arrays[key])
        assert getattr(episodes, key).dtype == np.float32
    assert np.flatnonzero(episodes.terminated).tolist() == [3]
    assert np.flatnonzero(episodes.truncated).tolist() == [6, 11]
    assert episodes.unlogged_next is None and episodes.remarks == ()


@pytest.mark.parametrize("missing", [["timeouts"], ["timeouts", "terminals"]])
def test_unmarked_ends_are_seen_where_the_next_observation_does_not_follow(
    arrays: Arrays, write: Write, missing: list[str]
) -> None:
    full = load(write(arrays))
    for key in missing:
        arrays[key] = np.zeros(12, np.bool_)
    episodes = load(write(arrays))
    assert episodes.starts.tolist() == STARTS
    terminals = [3] if "terminals" not in missing else []
    assert np.flatnonzero(episodes.terminated).tolist() == terminals
    assert np.flatnonzero(episodes.truncated).tolist() == sorted({3, 6, 11} - set(terminals))
    said = [*episodes.remarks, *(doubt.message for doubt in episodes.doubts)]
    assert f"{len(missing) + 1} of 3 episode ends" in said[0]
    assert len(episodes.doubts) == (1 if "terminals" in missing else 0)  # a mistake where most are not marked
    if missing == ["timeouts"]:
        del arrays["timeouts"]
        assert same(full, episodes) and same(full, load(write(arrays)))


def test_terminal_and_timeout_at_once_are_both_kept(arrays: Arrays, write: Write) -> None:
    arrays["timeouts"][3] = True
    episodes = load(write(arrays))
    assert episodes.terminated[3] and episodes.truncated[3] and episodes.starts.tolist() == STARTS


@pytest.mark.parametrize("name", ["data.hdf5", "data.npz"])
def test_without_next_observations_none_is_taken_from_the_next_episode(
    arrays: Arrays, write: Write, name: str
) -> None:
    stored = arrays.pop("next_observations")
    episodes = load(write(arrays, name))
    # The truncated second and third episode lose their last rows, 6 and 11.
    kept = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    np.testing.assert_array_equal(episodes.observations, arrays["observations"][kept])
    np.testing.assert_array_equal(episodes.rewards, arrays["rewards"][kept])
    assert episodes.starts.tolist() == [0, 4, 6, 10]
    assert np.flatnonzero(episodes.terminated).tolist() == [3]
    assert np.flatnonzero(episodes.truncated).tolist() == [5, 9]
    # Only what follows the terminal is unknown, and says so.
    assert episodes.unlogged_next is not None
    assert np.flatnonzero(episodes.unlogged_next).tolist() == [3]
    np.testing.assert_array_equal(episodes.next_observations[3], arrays["observations"][3])
    np.testing.assert_array_equal(np.delete(episodes.next_observations, 3, 0), np.delete(stored[kept], 3, 0))
    assert "2 truncated episodes lose their last step" in episodes.remarks[0]
    assert episodes.select([1, 0]).unlogged_next.tolist() == [False] * 5 + [True]  # type: ignore[union-attr]


def test_without_next_observations_one_step_episodes_vanish_only_if_truncated(
    arrays: Arrays, write: Write
) -> None:
    del arrays["next_observations"]
    arrays["terminals"][4] = True  # one terminated step, row 4; then one truncated step, row 5
    arrays["timeouts"][5] = True
    arrays["timeouts"][6] = False
    episodes = load(write(arrays))
    assert episodes.starts.tolist() == [0, 4, 5, 10]
    np.testing.assert_array_equal(episodes.rewards, arrays["rewards"][[0, 1, 2, 3, 4, 6, 7, 8, 9, 10]])
    assert np.flatnonzero(episodes.terminated).tolist() == [3, 4]
    assert np.flatnonzero(episodes.truncated).tolist() == [9]


def test_final_observations_restore_every_step(arrays: Arrays, write: Write) -> None:
    full = load(write(arrays))
    arrays["final_observations"] = arrays.pop("next_observations")[[3, 6, 11]]
    assert same(full, load(write(arrays)))


def test_lengths_stand_in_for_end_flags(arrays: Arrays, write: Write) -> None:
    full = load(write(arrays))
    del arrays["timeouts"]
    arrays["lengths"] = np.array([4, 3, 5])
    assert same(full, load(write(arrays, "data.npz"))) and load(write(arrays)).remarks == ()
    del arrays["terminals"], arrays["next_observations"]
    episodes = load(write(arrays, "data.npz"))
    assert episodes.starts.tolist() == [0, 3, 5, 9] and not episodes.terminated.any()
    assert np.flatnonzero(episodes.truncated).tolist() == [2, 4, 8]


def test_other_number_types_and_other_keys_do_not_matter(arrays: Arrays, write: Write) -> None:
    full = load(write(arrays))
    wide = {key: array.astype(np.float64) for key, array in arrays.items()}
    wide["infos"] = np.zeros((2, 2))
    assert same(full, load(write(wide))) and same(full, load(write(wide, "data.npz")))


def test_task_is_the_files_own_word_unless_given(arrays: Arrays, write: Write) -> None:
    path = write(arrays)
    assert load(path).task is None and load(path, "Other-v0").task == "Other-v0"
    with h5py.File(path, "a") as file:
        file.attrs["task"] = "Hopper-v4"
    assert load(path).task == "Hopper-v4" and load(path, "Other-v0").task == "Other-v0"


def test_bundled_set_is_the_whole_hopper_replay_in_six_megabytes() -> None:
    episodes = load("bundled:hopper-medium-replay")
    assert (episodes.num_steps, episodes.num_episodes, episodes.task) == (115_200, 999, "Hopper-v4")
    assert (episodes.observation_size, episodes.action_size) == (11, 3)
    assert episodes.terminated.sum() == 990 and episodes.truncated.sum() == 9
    assert round(episodes.returns.mean()) == 276 and round(episodes.returns.max()) == 2765
    assert episodes.unlogged_next is None and episodes.remarks == ()
    # Hopper ends when it is too low or leans too far, and nowhere else: the last next observations are real.
    height, angle = np.abs(episodes.next_observations[:, :2]).T
    fallen = (height <= 0.7) | (angle >= 0.2)
    assert (fallen == episodes.terminated).mean() > 0.999
    import ipd.data

    folder = Path(ipd.data.__file__).parent / "bundled"
    assert (folder / "hopper-medium-replay.hdf5").stat().st_size <= 6_000_000
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 33_000_000


def test_bundled_set_equals_the_full_file(shared_data: Path) -> None:
    full = load(str(shared_data / "hopper-medium-replay.hdf5"))
    assert same(full, load("bundled:hopper-medium-replay")) and full.task is None


@pytest.mark.parametrize(
    ("name", "steps", "episodes", "terminated"),
    [
        ("hopper-medium.hdf5", 200_000, 500, 491),
        ("pen-noisy.hdf5", 37_616, 400, 101),
        ("door-human.npz", 6_704, 25, 0),
    ],
)
def test_shared_files_read_whole(
    shared_data: Path, name: str, steps: int, episodes: int, terminated: int
) -> None:
    read = load(str(shared_data / name))
    assert (read.num_steps, read.num_episodes, read.terminated.sum()) == (steps, episodes, terminated)


def test_unknown_bundled_set_names_those_there_are() -> None:
    with pytest.raises(DataError, match="bundled:hopper-medium-replay"):
        load("bundled:other")
