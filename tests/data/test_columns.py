"""Columns on disk: ordinary arrays, without a name, that are let go of piece by piece."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from ipd.data import columns
from ipd.data.columns import Storage, column, moments, pieces, release

STATUS = Path("/proc/self/status")


@pytest.mark.parametrize("on_disk", [False, True])
def test_column_begins_as_zeros_and_keeps_what_is_written(tmp_path: Path, on_disk: bool) -> None:
    made = column((5, 3), np.float32, tmp_path if on_disk else None)
    assert made.shape == (5, 3) and made.dtype == np.float32 and not made.any()
    made[:] = np.arange(15).reshape(5, 3)
    release()
    np.testing.assert_array_equal(made[1:3], [[3, 4, 5], [6, 7, 8]])
    assert not list(tmp_path.iterdir())
    assert column((0, 3), np.float32, tmp_path).shape == (0, 3)


def test_a_full_disk_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    code = errno.EOPNOTSUPP  # some disks can reserve nothing
    assert not column((5, 3), np.float32, tmp_path).any()
    code = errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):  # a page without a place would be a SIGBUS
        column((5, 3), np.float32, tmp_path)


def test_large_sets_are_kept_on_disk(tmp_path: Path) -> None:
    storage = Storage(tmp_path, 10)
    assert storage.of(10) is None and storage.of(11) == tmp_path


def test_pieces_are_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "PIECE", 4)
    assert [(p.start, p.stop) for p in pieces(10)] == [(0, 4), (4, 8), (8, 10)]
    assert not list(pieces(0))


@pytest.mark.parametrize("rows", [None, np.array([1, 2, 5, 9])])
def test_moments_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch, rows: np.ndarray | None) -> None:
    monkeypatch.setattr(columns, "PIECE", 3)
    random = np.random.default_rng(0)
    values, less = (random.normal(size=(11, 4)).astype(np.float32) for _ in range(2))
    every = slice(None) if rows is None else rows
    for minus in (None, less):
        said = moments(values, minus, rows)
        change = (values if minus is None else values.astype(np.float64) - minus)[every]
        np.testing.assert_allclose(said[0], change.mean(0, dtype=np.float64), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(said[1], change.std(0, dtype=np.float64), rtol=1e-12)


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from /proc")
def test_a_pass_over_a_column_takes_no_more_memory_than_a_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "PIECE", 2**16)

    def mapped() -> int:
        told = dict(line.split(":") for line in STATUS.read_text().splitlines())
        return sum(int(told[name].split()[0]) for name in ("RssFile", "RssShmem")) // 1024

    made, before, most = column((2**20, 32), np.float32, tmp_path), mapped(), 0  # 128 MiB in pieces of 8
    for piece in pieces(len(made)):
        made[piece] = 1
        most = max(most, mapped() - before)
    assert most < 32
    assert made[2**20 - 1, 31] == 1
