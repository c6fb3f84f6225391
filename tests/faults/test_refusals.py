"""Wrong input through the real command line: exit 2, one line with file and key, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipd.cli import main
from ipd.runs.errors import InputError

from .conftest import write

Arrays = dict[str, Any]


def arrays() -> Arrays:
    """60 steps in 3 episodes, of Hopper's sizes."""
    generator = np.random.default_rng(0)
    ends = np.arange(60) % 20 == 19
    states = generator.normal(size=(61, 11)).astype(np.float32)
    return {
        "observations": states[:-1].copy(),
        "actions": generator.uniform(-1, 1, (60, 3)).astype(np.float32),
        "rewards": np.ones(60, np.float32),
        "next_observations": states[1:].copy(),
        "terminals": np.zeros(60, bool),
        "timeouts": ends,
    }


def put(key: str, where: Any, value: float) -> Callable[[Arrays], None]:
    def change(given: Arrays) -> None:
        given[key][where] = value

    return change


def cut(rows: int) -> Callable[[Arrays], None]:
    def change(given: Arrays) -> None:
        given.update({key: array[:rows] for key, array in given.items()})

    return change


def narrow(given: Arrays) -> None:
    given["actions"] = given["actions"][:, :2]


def flat(given: Arrays) -> None:
    given["observations"] = given["observations"].reshape(-1)


CASES: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "missing key": (lambda given: given.pop("actions"), "actions"),
    "wrong shape": (flat, "observations"),
    "NaN": (put("observations", (7, 3), np.nan), "row 7"),
    "Inf": (put("rewards", 11, np.inf), "row 11"),
    "outside the bounds": (put("actions", (5, 1), 1.5), "row 5"),
    "zero episodes": (cut(0), "zero"),
    "too short": (lambda given: given["timeouts"].fill(True), "window"),
    "other sizes": (narrow, "actions"),
    "one episode": (cut(20), "one episode"),
}


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of stderr of a command that must end with 2."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err.strip().splitlines()[-1]


@pytest.mark.parametrize("case", CASES)
def test_bad_data(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, expected = CASES[case]
    given, path, out = arrays(), tmp_path / "data.hdf5", tmp_path / "run"
    change(given)
    write(path, given)
    line = refused(
        ["train", "--data", str(path), "--env", "hopper", "--preset", "tiny", "--out", str(out)], capsys
    )
    assert "data.hdf5" in line and expected in line
    assert not out.exists()


def test_truncated_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "data.hdf5", tmp_path / "run"
    write(path, arrays())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = refused(
        ["train", "--data", str(path), "--env", "hopper", "--preset", "tiny", "--out", str(out)], capsys
    )
    assert "data.hdf5" in line and not out.exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--preset", "huge"], "unknown preset 'huge'; there are: paper"),
        (["--preset", "tiny+nothing"], "unknown ablation 'nothing'"),
        (["--preset", "tiny", "--value.step", "3"], "--value.step"),
        (["--preset", "tiny", "--value.steps", "x"], "--value.steps"),
        (["--preset", "tiny", "--value.steps", "0"], "--value.steps 0: must be at least 1"),
        (["--preset", "tiny", "--policy.heads", "3"], "--policy.width 16"),
        (["--preset", "tiny", "--augment.uncertainty-penalty", "-1"], "uncertainty_penalty -1: must be"),
        (["--preset", "tiny", "--augment.uncertainty-penalty", "nan"], "uncertainty_penalty nan: must be"),
        (["--preset", "tiny", "--seeds", "0"], "--seeds"),
        (["--preset", "tiny", "--env", "Hopper-v99"], "Hopper-v99"),
        (["--preset", "tiny", "--data", "nowhere.hdf5"], "nowhere.hdf5"),
    ],
)
def test_bad_command(
    more: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    given = ["train", "--data", "bundled:hopper-medium-replay", "--out", str(out), "--env", "hopper", *more]
    assert expected in refused(given, capsys)
    assert not out.exists()


def test_unknown_command_and_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no command 'trian'" in refused(["trian"], capsys)
    for command in ("evaluate", "audit", "report"):
        assert str(tmp_path / "nothing") in refused([command, str(tmp_path / "nothing")], capsys)


def test_folder_that_is_no_run_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    given = ["train", "--data", "bundled:hopper-medium-replay", "--out", str(tmp_path), "--preset", "tiny"]
    assert "thesis.tex" in refused(given, capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="huge"):
        main(["train", "--data", "x", "--out", str(tmp_path / "run"), "--preset", "huge", "--debug"])


def test_hdf5_of_the_tests_is_sound(tmp_path: Path) -> None:
    """Else every refusal above could be for another reason."""
    write(tmp_path / "data.hdf5", arrays())
    from ipd.data.sources import load

    assert load(str(tmp_path / "data.hdf5"), "Hopper-v4").num_episodes == 3
