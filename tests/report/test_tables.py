"""The final table: worked means and intervals, last against best, refusals, and the printed forms."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from ipd.report import read, tables
from ipd.report.read import Evaluation

HEADER = "policy,seed,step,episode,return,length,normalized\n"


def evaluation(policy: str, seed: int, step: int, ret: float, normalized: float = 0.0) -> Evaluation:
    return Evaluation(policy, seed, step, 0, ret, 1, normalized)


def test_table_has_the_data_first_and_the_policies_in_a_readers_order(synthetic_run: Path) -> None:
    rows = tables.final_table(synthetic_run)
    assert [row.policy for row in rows] == [
        "data_mean",
        "data_best_decile",
        "cloning",
        "quasi_optimal",
        "ipd",
    ]
    assert [row.seeds for row in rows] == [0, 0, 3, 3, 3]
    assert [row.episodes for row in rows] == [400, 40, 60, 60, 60]
    data = json.loads((synthetic_run / "stages/data/summary.json").read_text())
    assert rows[0].mean == data["return"]["mean"] and rows[1].mean == data["return"]["best_decile"]
    for row in rows:
        assert row.low < row.mean < row.high
        # D4RL's reference values of Hopper, which the table has to find from the evaluations alone.
        assert row.normalized == pytest.approx(100 * (row.mean + 20.272305) / (3234.3 + 20.272305), abs=1e-3)


def test_every_seed_counts_the_same_however_many_episodes_it_has() -> None:
    samples = {0: np.array([0.0, 0.0, 0.0]), 1: np.array([6.0])}
    assert tables.mean_of_seeds(samples) == 3.0


def test_interval_resamples_seeds_and_episodes() -> None:
    """Two seeds at 0 and 10 without any spread: a resample holds both 0s, both 10s, or one of each."""
    low, high = tables.interval({0: np.zeros(20), 1: np.full(20, 10.0)})
    assert (low, high) == (0.0, 10.0)
    assert tables.interval({0: np.full(20, 7.0)}) == (7.0, 7.0)
    # One seed: the bootstrap of a mean is about mean +- 1.96 std / sqrt(n).
    values = np.random.default_rng(1).normal(50, 4, 400)
    low, high = tables.interval({0: values})
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.05) and high == pytest.approx(
        values.mean() + error, abs=0.05
    )


def test_one_episode_has_no_interval() -> None:
    assert np.isnan(tables.interval({0: np.array([5.0])})).all()
    assert tables.span(*tables.interval({0: np.array([5.0])})) == "–"


def test_difference_has_the_sign_of_ours() -> None:
    ours, theirs = {0: np.full(5, 9.0), 1: np.full(5, 9.0)}, {0: np.full(4, 2.0)}
    assert tables.difference(ours, theirs) == (7.0, 7.0, 7.0)
    assert tables.difference(theirs, ours) == (-7.0, -7.0, -7.0)


def test_last_and_best_are_apart() -> None:
    rows = [
        evaluation("ipd", seed, step, ret)
        for seed, step, ret in ((0, 10, 5), (0, 20, 3), (1, 10, 1), (1, 20, 4))
    ]
    assert tables.mean_of_seeds(tables.last(rows, "ipd")) == 3.5
    assert tables.best(rows, "ipd") == {0: (10, 5.0), 1: (20, 4.0)}
    first = tables.by_seed(rows)[0]
    assert (first["step"], first["mean"], first["best_step"], first["best_mean"]) == (20, 3.0, 10, 5.0)


def test_a_task_without_reference_values_has_no_normalised_score() -> None:
    rows = [evaluation("ipd", 0, 1, 5.0, float("nan")), evaluation("ipd", 0, 1, 7.0, float("nan"))]
    assert np.isnan(tables.normalisation(rows)).all()
    assert tables.cells(tables.Row("ipd", 6.0, 5.0, 7.0, float("nan"), 1, 2))[3] == "–"


def test_an_unknown_policy_is_shown_by_its_name() -> None:
    rows = [evaluation("ipd", 0, 1, 5.0), evaluation("mystery", 0, 1, 7.0)]
    assert tables.policies(rows) == ["mystery", "ipd"]
    assert tables.Row("mystery", 7, 7, 7, 7, 1, 1).label == "mystery"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (2147.7, "2,148"), (12.34, "12.3"), (0.98765, "0.988"), (-3.0, "−3.00"), (40.0, "40")),
        *((400, "400"), (-4, "−4"), (2e-7, "2.00·10⁻⁷"), (float("nan"), "–"), (float("inf"), "–")),
    ],
)
def test_numbers_for_a_reader(value: float, text: str) -> None:
    assert tables.number(value) == text


def test_terminal_table_is_aligned(synthetic_run: Path) -> None:
    rows = tables.final_table(synthetic_run)
    lines = tables.format_table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].startswith("policy") and set(lines[1]) == {"-", " "}
    assert [line.split("  ")[0] for line in lines[2:]] == [row.label for row in rows]


def test_markdown_and_csv_hold_the_same_rows(synthetic_run: Path) -> None:
    rows = tables.final_table(synthetic_run)
    lines = tables.markdown_table([rows[0], rows[1]._replace(policy="a|b")]).splitlines()
    assert len(lines) == 4 and lines[3].startswith("| a\\|b |")
    parsed = list(csv.DictReader(io.StringIO(tables.csv_table(rows))))
    assert [entry["policy"] for entry in parsed] == [row.policy for row in rows]
    assert float(parsed[-1]["mean"]) == pytest.approx(rows[-1].mean, rel=1e-5)


def test_a_run_without_evaluations_has_the_data_rows_only(synthetic_run: Path) -> None:
    (synthetic_run / "evaluations.csv").unlink()
    rows = tables.final_table(synthetic_run)
    assert [row.policy for row in rows] == ["data_mean", "data_best_decile"]
    assert "–" in tables.format_table(rows)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(read.ReportError, match="not a run directory"):
        tables.final_table(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "evaluations.csv",
            HEADER + "ipd,0,1,0,5.0,3,1.0\nipd,0,1,0,high,3,1.0\n",
            "evaluations.csv: line 3",
        ),
        ("evaluations.csv", "policy,seed\nipd,0\n", "evaluations.csv: line 2"),
        (
            "metrics.jsonl",
            '{"stage": "value"}\n{"stage": "value", "step": 1, "seed": 0}\n',
            "metrics.jsonl: line 1",
        ),
        ("stages/world/summary.json", "{", "summary.json: not JSON"),
        ("stages/world/summary.json", "[1]", "holds a list"),
    ],
)
def test_damage_is_named_by_file_and_line(synthetic_run: Path, name: str, text: str, message: str) -> None:
    (synthetic_run / name).write_text(text)
    with pytest.raises(read.ReportError, match=message):
        tables.final_table(synthetic_run)


def test_a_line_still_being_written_is_left_out(synthetic_run: Path) -> None:
    path = synthetic_run / "metrics.jsonl"
    before = read.load(synthetic_run).metrics
    path.write_text(path.read_text() + '{"stage": "policy", "st')
    after = read.load(synthetic_run).metrics
    assert {stage: list(found) for stage, found in after.items()} == {
        s: list(found) for s, found in before.items()
    }
    steps, values = after["value"]["value_loss"][1]
    assert len(steps) == len(values) == 80 and steps[0] == 500
