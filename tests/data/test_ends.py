"""Flags, labels and next observations that contradict each other: the label counts, and it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipd.data import columns as data_columns
from ipd.data.checks import check
from ipd.data.convert import convert
from ipd.data.episodes import Episodes
from ipd.data.findings import Finding
from ipd.data.probes import linear_quadratic
from ipd.data.sources import load

Arrays = dict[str, np.ndarray[Any, Any]]
Write = Callable[..., str]
LENGTHS = np.array([4, 3, 5])


@pytest.fixture
def labelled(arrays: Arrays) -> Arrays:
    """Lengths instead of timeouts; the flag of the first episode's end is up one row too early."""
    del arrays["timeouts"]
    return arrays | {"lengths": LENGTHS, "terminals": np.isin(np.arange(12), [2, 3])}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_columns, "PIECE", 3)


def warnings(episodes: Episodes) -> list[Finding]:
    assert all(finding.severity == "warning" for finding in episodes.doubts)
    assert set(episodes.doubts) <= set(check(episodes))
    return list(episodes.doubts)


def test_rows_whose_terminal_stays_up_are_left_out(labelled: Arrays, write: Write) -> None:
    read = load(write(labelled))
    rows = np.delete(np.arange(12), 3)
    assert read.starts.tolist() == [0, 3, 6, 11] and np.flatnonzero(read.terminated).tolist() == [2]
    for key in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(getattr(read, key), labelled[key][rows])
    (told,) = warnings(read)
    assert told.where == "terminals, row 3" and told.message.startswith("1 rows")


@pytest.mark.parametrize("final", [False, True])
def test_what_follows_the_terminal_is_the_row_left_out(labelled: Arrays, write: Write, final: bool) -> None:
    stored = labelled.pop("next_observations")
    if final:
        labelled["final_observations"] = stored[[3, 6, 11]] + 100
    read = load(write(labelled))
    rows = np.delete(np.arange(12), 3) if final else np.delete(np.arange(12), [3, 6, 11])
    expected = stored.copy()
    expected[[6, 11]] += 100
    np.testing.assert_array_equal(read.next_observations, expected[rows])
    assert np.flatnonzero(read.terminated).tolist() == [2] and read.truncated.sum() == 2
    assert final or (read.unlogged_next is not None and not read.unlogged_next.any())


def test_a_clock_need_not_go_on_behind_what_is_left_out(tmp_path: Path) -> None:
    lines = ["obs_x,act_u,reward,fell_over,episode,time"]
    lines += [f"{row},0.{row},1,{int(row % 5 > 2)},{row // 5},{row % 5}" for row in range(10)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines).replace("fell_over", "terminated"))
    read = load(str(path))
    assert read.lengths.tolist() == [4, 4] and read.returns.tolist() == [4, 4]
    assert read.times is not None and read.times.tolist() == [0, 1, 2, 3] * 2
    assert warnings(read)[0].where == "terminated, row 4"


def test_an_episode_that_goes_on_behind_its_terminal_is_told(labelled: Arrays, write: Write) -> None:
    labelled["terminals"] = np.isin(np.arange(12), [8])
    read = load(write(labelled))
    assert read.starts.tolist() == [0, 4, 7, 9, 12] and read.num_steps == 12
    (told,) = warnings(read)
    assert told.where == "terminals, row 9" and "1 episodes go on" in told.message


def test_terminals_in_a_row_without_labels_are_told(arrays: Arrays, write: Write) -> None:
    arrays["terminals"] = np.isin(np.arange(12), [3, 9, 10, 11])
    arrays["timeouts"][11] = False
    read = load(write(arrays))
    assert read.num_episodes == 5
    (told,) = warnings(read)
    assert told.where == "terminals, row 10" and "2 terminals directly follow" in told.message
    arrays["terminals"] = np.isin(np.arange(12), [3, 10, 11])
    assert not load(write(arrays)).doubts  # a single one may well be


@pytest.fixture
def jittery() -> Arrays:
    """3 episodes of 11 steps; what was seen after an action is not what the next row holds."""
    whole = linear_quadratic(3, 11, seed=0)
    noise = 0.01 * np.random.default_rng(0).normal(size=whole.observations.shape).astype(np.float32)
    made = {key: getattr(whole, key) for key in ("observations", "actions", "rewards")}
    return made | {
        "next_observations": whole.next_observations + noise,
        "terminals": np.zeros(33, np.bool_),
        "lengths": np.full(3, 11),
    }


def test_a_next_observation_measured_apart_does_not_end_a_labelled_episode(
    jittery: Arrays, write: Write, tmp_path: Path
) -> None:
    read = load(write(jittery))
    assert read.lengths.tolist() == [11, 11, 11]
    np.testing.assert_array_equal(read.next_observations, jittery["next_observations"])
    (told,) = warnings(read)
    assert told.where == "next_observations, row 0" and "in 30 steps" in told.message
    for name in ("copy.hdf5", "copy.parquet"):
        assert load(str(convert(read, tmp_path / name))).digest == read.digest


def test_rounding_between_rows_is_a_remark(jittery: Arrays, write: Write) -> None:
    following = linear_quadratic(3, 11, seed=0).next_observations
    read = load(write(jittery | {"next_observations": following * np.float32(1 + 1e-6)}))
    assert read.num_episodes == 3 and not read.doubts
    assert len(read.remarks) == 1 and "not the next row's observation" in read.remarks[0]


def test_without_labels_it_ends_episodes_and_is_told(jittery: Arrays, write: Write) -> None:
    del jittery["lengths"]
    read = load(write(jittery))
    assert read.num_episodes == 33 and not read.remarks
    (told,) = warnings(read)
    assert "33 of 33 episode ends" in told.message and "median length is 1" in told.message
    assert dataclasses.replace(read, doubts=()).digest == read.digest


def test_one_recording_without_a_mark_is_no_mistake(arrays: Arrays, write: Write) -> None:
    one = {key: array[:4] for key, array in arrays.items()} | {"terminals": np.zeros(4, np.bool_)}
    read = load(write(one))
    assert read.num_episodes == 1 and not read.doubts and "1 of 1" in read.remarks[0]
