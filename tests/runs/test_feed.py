"""Windows of shuffled blocks: each row once a round, read in order and ahead, resumed to the bit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ipd.runs import loop
from ipd.runs.feed import Ahead, Feed, Shuffled

from .test_loop import KEYS, SCHEDULE, data, files, run, run_killed, toy


@pytest.mark.parametrize("rows", [40, 43])
def test_every_row_comes_once_a_round_in_another_order(rows: int) -> None:
    blocks = Shuffled(rows, block=4, blocks=5, seed=1)  # 10 or 11 blocks a round
    drawn = np.concatenate([blocks.at(window) for window in range(22)]).reshape(-1, 4)
    np.testing.assert_array_equal(drawn, drawn[:, :1] + np.arange(4))  # blocks of neighbours
    count = -(-rows // 4)
    rounds = [drawn[i * count : (i + 1) * count, 0] for i in range(110 // count)]
    first = np.minimum(4 * np.arange(count), rows - 4)
    assert all(sorted(one) == first.tolist() for one in rounds)
    assert len({tuple(one) for one in rounds}) == len(rounds)
    assert not np.array_equal(blocks.at(0), blocks._replace(seed=2).at(0))


def test_what_fits_is_whole_and_in_order() -> None:
    blocks = Shuffled(17, block=4, blocks=5, seed=1)
    assert blocks.whole and blocks.at(3).tolist() == list(range(17)) and blocks.starts(3).tolist() == [0]


def test_windows_are_read_ahead_in_another_thread_and_only_as_far_as_needed() -> None:
    asked: list[tuple[int, bool]] = []
    ready = threading.Event()

    def window(number: int) -> int:
        asked.append((number, threading.current_thread() is threading.main_thread()))
        if number == 3:
            ready.set()
        return 10 * number

    with Ahead(Feed(window, updates=5), 12, 25) as ahead:  # update 13 is in the third window
        assert ahead.take() == (20, 15)
        assert ready.wait(10)  # the next is read before it is asked for
        assert ahead.take() == (30, 20)
        assert ahead.take() == (40, 25)
    assert asked == [(2, False), (3, False), (4, False)]


def test_what_goes_wrong_in_reading_is_raised_where_it_is_taken() -> None:
    def window(number: int) -> int:
        raise OSError("disk gone")

    with Ahead(Feed(window, 5), 0, 10) as ahead, pytest.raises(OSError, match="disk gone"):
        ahead.take()


def windows() -> Feed:
    """Six rows at a time of the toy's data; the wrapped last window begins anew."""
    arrays, _ = data()

    def window(number: int) -> Any:
        rows = (6 * number + np.arange(6)) % 17
        return {"x": np.asarray(arrays["x"])[rows], "y": np.asarray(arrays["y"])[:, rows]}

    return Feed(window, updates=9)


def test_loop_takes_each_update_from_its_window(tmp_path: Path) -> None:
    state, _ = run(tmp_path, schedule=loop.Schedule(steps=23, chunk=4), arrays=windows())
    for row in (0, 1):
        one = toy.init(row)
        for k in range(1, 24):
            whole = windows().window((k - 1) // 9)
            mine = {"x": whole["x"], "y": whole["y"][row]}
            draw_key, update_key = jax.random.split(jax.random.fold_in(KEYS[row], k))
            one, _ = toy.update(toy.Config(), one, toy.draw(None, mine, draw_key), update_key)
        np.testing.assert_allclose(state.weight[row], one.weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kill_after", [7, 9, 10])
def test_resume_is_bitwise_the_same(tmp_path: Path, kill_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "whole", arrays=windows())
    run_killed(tmp_path / "killed", kill_after, monkeypatch, arrays=windows())
    run(tmp_path / "killed", arrays=windows())
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_chunks_change_nothing_and_all_windows_are_one_program(tmp_path: Path) -> None:
    toy.traces["update"] = 0
    fine, _ = run(tmp_path / "a", schedule=SCHEDULE._replace(chunk=1), arrays=windows())
    assert toy.traces["update"] == 1
    coarse, _ = run(tmp_path / "b", schedule=SCHEDULE._replace(chunk=50), arrays=windows())
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), fine, coarse)))
