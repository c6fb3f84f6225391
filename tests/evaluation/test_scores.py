"""Normalised scores and the file of episodes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipd.evaluation.scores import HEADER, Row, ScoreError, add_rows, normalized_score, read_rows, reference
from ipd.evaluation.tasks import task


def test_scores_of_the_reference_returns() -> None:
    assert normalized_score("hopper-medium-replay-v2", -20.272305) == 0.0
    assert normalized_score("Hopper-v4", 3234.3) == 100.0
    assert normalized_score(task("walker2d"), (1.629008 + 4592.3) / 2) == pytest.approx(50.0)
    assert normalized_score("pen", 3076.8331017826877) == pytest.approx(100.0)
    assert normalized_score("kitchen-partial-v0", 3.0) == 75.0
    assert normalized_score("kitchen", 1.0) == 25.0


@pytest.mark.parametrize("name", ["Hopper-v5", "Pendulum-v1", "FrankaKitchen-v1", "FrankaKitchen-v1:kettle"])
def test_no_reference_no_score(name: str) -> None:
    assert reference(name) is None and normalized_score(name, 1.0) is None


ROWS = [
    Row("ipd", 1, 200, 0, 1 / 3, 12, 4.25),
    Row("ipd", 0, 1000, 1, -2.5, 7, None),
    Row("cloning", 0, 200, 0, 1e-30, 3, 0.1),
    Row("ipd", 0, 200, 0, 5.0, 9, 1.5),
]


def test_rows_come_back_exactly_sorted_and_once(tmp_path: Path) -> None:
    file = tmp_path / "evaluations.csv"
    add_rows(file, ROWS[:2])
    add_rows(file, ROWS[1:])
    assert read_rows(file) == [ROWS[2], ROWS[3], ROWS[1], ROWS[0]]
    assert file.read_text().splitlines()[0] == ",".join(HEADER)
    once = file.read_bytes()
    add_rows(file, ROWS)
    assert file.read_bytes() == once
    add_rows(file, [ROWS[3]._replace(return_=6.0)])
    assert [row.return_ for row in read_rows(file) if row[:4] == ROWS[3][:4]] == [6.0]
    assert [path.name for path in tmp_path.iterdir()] == ["evaluations.csv"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "evaluations.csv"
    add_rows(file, ROWS[:2])
    before = file.read_bytes()

    def broken(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        add_rows(file, ROWS)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "says"), [("", "row 1"), ("a,b\n", "row 1"), (",".join(HEADER) + "\nipd,0,1,0,x,1,\n", "row 2")]
)
def test_a_broken_file_is_named_with_its_row(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "evaluations.csv"
    file.write_text(text)
    with pytest.raises(ScoreError, match=says):
        read_rows(file)
