"""The table of our runs and the peers': one way of trying them, and seeds that count the same."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from report.small_runs import write_small_run

SCRIPT = Path(__file__).parents[2] / "bench" / "peers" / "compare.py"
FLAT = {0: [10.0, 10.0], 1: [30.0, 30.0]}


@pytest.fixture
def compare() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_normalised_scores_are_a_mean_of_seeds(compare: dict[str, Any], tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "iql", {0: [10.0], 1: [30.0, 30.0, 30.0]}, "iql")
    assert "| 20.0 |" in compare["lines"](run)[0]


@pytest.mark.parametrize(
    ("scores", "steps", "reason"),
    [
        (FLAT, (200,), "iql: different updates: 100, 200"),
        ({0: [10.0], 1: [30.0]}, (100,), "different seeds or episodes: 0 .1 episodes., 1 .1 episodes.; 0"),
        ({0: [10.0, 10.0], 2: [30.0, 30.0]}, (100,), "different seeds or episodes"),
    ],
)  # fmt: skip
def test_rows_that_were_tried_differently_are_refused(
    compare: dict[str, Any],
    tmp_path: Path,
    scores: dict[int, list[float]],
    steps: tuple[int, ...],
    reason: str,
) -> None:
    ours = write_small_run(tmp_path / "ours", FLAT, "iql")
    longer = write_small_run(tmp_path / "longer", FLAT, "cql", steps=(900,))
    compare["main"]([str(ours), str(longer)])
    other = write_small_run(tmp_path / "other", scores, "d3rlpy_iql", steps=steps)
    with pytest.raises(SystemExit, match=reason):
        compare["main"]([str(ours), str(other)])
