"""`ipd data check` and `ipd data describe`: what they print and the code they end with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ipd.cli import data, main
from ipd.data import sources
from ipd.data.columns import column
from ipd.data.probes import linear_quadratic
from ipd.evaluation import tasks
from ipd.runs import stages
from ipd.runs.progress import Progress

BUNDLED = "bundled:hopper-medium-replay"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """D4RL file of the linear probe: 5 episodes of 7 steps."""
    episodes = linear_quadratic(5, 7, seed=0)
    file_path = tmp_path / "point.hdf5"
    with h5py.File(file_path, "w") as file:
        for key in ("observations", "actions", "rewards", "next_observations"):
            file[key] = getattr(episodes, key)
        file["terminals"], file["timeouts"] = episodes.terminated, episodes.truncated
    return str(file_path)


def put(path: str, key: str, where: Any, value: float) -> None:
    with h5py.File(path, "a") as file:
        file[key][where] = value


def test_check_of_sound_data_says_so(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(path, "terminals", 34, 1)
    put(path, "timeouts", 34, 0)
    assert data.check(path) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{path}: 5 episodes, 35 steps, 3 observation and 2 action dimensions, task unknown",
        "nothing found wrong",
    ]
    assert err == ""


def test_check_prints_one_finding_a_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(path, "rewards", slice(None), 1)
    assert data.check(path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[:2] for line in lines[1:]] == [["warning", " rewards"], ["note", " terminals"]]


@pytest.mark.parametrize("command", [data.check, data.describe])
def test_unusable_data_end_with_2_and_one_line(
    command: Any, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(path, "rewards", 9, np.nan)
    assert command(path) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"ipd data: {path}, key 'rewards', row 9: ")


def test_a_task_of_other_sizes_ends_with_2(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    assert data.check(path, "Pendulum-v1") == 2
    assert "'actions': 2 dimensions, but task Pendulum-v1 has 1" in capsys.readouterr().err
    assert data.check(path, "NoSuchTask-v0") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("ipd data: no task 'NoSuchTask-v0'")


def test_options_of_the_recording_are_held_against_the_task(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with h5py.File(path, "a") as file:
        actions = file["actions"][:, :1]
        del file["actions"]
        file["actions"], file.attrs["task"] = actions, "Pendulum-v1"
    for options, told in (({"g": 2.0, "max_episode_steps": 200}, True), ({"max_episode_steps": 200}, False)):
        word = sources.Recorded("Pendulum-v1", options)
        monkeypatch.setattr(sources, "recorded", lambda source, word=word: word)
        monkeypatch.setattr(stages, "recorded", lambda source, word=word: word)
        assert data.check(path) == 0
        said = "recorded in Pendulum-v1 with g=2.0, tried in it with no g"
        assert (said in capsys.readouterr().out) == told
        doubts = stages._doubts(sources.load(path), tasks.task("Pendulum-v1"), Progress(quiet=True))
        assert (said in str(doubts)) == told


def test_actions_beyond_the_task_end_with_2(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mujoco")
    with h5py.File(path, "a") as file:
        for key, size in (("observations", 4), ("next_observations", 4), ("actions", 1)):
            values = np.random.default_rng(0).normal(size=(35, size))
            del file[key]
            file[key] = values if size == 4 else np.clip(values, -3, 3)
        file["actions"][20] = 3.5
    assert data.check(path, "InvertedPendulum-v4") == 2
    assert (
        "key 'actions', row 20: dimension 0 is 3.5, outside the task's bounds [-3, 3]"
        in capsys.readouterr().err
    )


def test_description_of_the_bundled_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert data.describe(BUNDLED) == 0
    out = capsys.readouterr().out
    assert "999 episodes, 115,200 steps, 11 observation and 3 action dimensions, task Hopper-v4" in out
    assert "best tenth of the episodes: mean return 994" in out
    assert "990 episodes terminated, 9 truncated" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["return", "276", "319", "5.03"] in [row[:4] for row in rows]
    assert sum(row[:1] == ["10"] for row in rows) == 1  # the last observation dimension
    assert "\x1b" not in out  # not a terminal: plain text


def test_reading_and_checking_need_no_jax(path: str) -> None:
    code = (
        f"import sys; from ipd.cli import main; assert main(['data', 'check', {path!r}]) == 0;"
        f"assert main(['data', 'describe', {path!r}]) == 0; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_command_line_reaches_both(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    assert main(["data", "describe", path]) == 0
    assert "best tenth of the episodes" in capsys.readouterr().out
    assert main(["data", "check", path, "--env", "Pendulum-v1"]) == 2
    assert "task Pendulum-v1 has" in capsys.readouterr().err
    for words in (["data", "chekc", path], ["data", "check"]):
        assert main(words) == 2
        assert capsys.readouterr().err.startswith("ipd data: ")


def test_narrow_and_ascii_terminals_get_what_they_can_show(path: str) -> None:
    code = f"import ipd.cli.data as d; raise SystemExit(d.describe({path!r}))"
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert done.stdout.isascii() and b"observations" in done.stdout


def test_a_table_shows_its_columns_and_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = linear_quadratic(5, 7, seed=0)
    path = tmp_path / "log.csv"
    names = "obs_x,obs_y,obs_z,act_left,act_right,reward,run,ended"
    rows = np.concatenate(
        [
            *(episodes.observations, episodes.actions, episodes.rewards[:, None]),
            *(episodes.episode_index[:, None], episodes.terminated[:, None]),
        ],
        axis=1,
    )
    np.savetxt(path, rows, delimiter=",", header=names, comments="")
    assert main(["data", "check", str(path)]) == 2
    assert "key 'terminated': is missing" in capsys.readouterr().err
    given = tmp_path / "map.yaml"
    given.write_text(
        "observations: [obs_x, obs_y]\nactions: [act_left, act_right]\nreward: reward\nepisode: run\n"
    )
    for what in ("check", "describe"):
        assert main(["data", what, str(path), "--columns", str(given)]) == 0
        out = capsys.readouterr().out
        assert "  observations: obs_x, obs_y\n" in out and "  unused: obs_z, ended\n" in out
    assert "\nact_left " in out
    copy = tmp_path / "copy.parquet"
    pytest.importorskip("pyarrow")
    assert main(["data", "convert", str(path), "--columns", str(given), "--to", str(copy)]) == 0
    written = capsys.readouterr().out.splitlines()[-1]
    assert main(["data", "describe", str(copy)]) == 0
    assert f"digest {written.rpartition(' ')[2]}\n" in capsys.readouterr().out


def test_convert_refuses_in_one_line(path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "convert", path]) == 2
    assert main(["data", "check", path, "--to", "x.hdf5"]) == 2
    assert main(["data", "convert", path, "--to", path]) == 2
    assert main(["data", "convert", path, "--to", str(tmp_path / "x.zip")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 4 and "--to" in err and "exists" in err and ".zip" in err


def test_a_large_set_is_read_by_way_of_the_disk_and_judged_the_same(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data.check(path) == data.describe(path) == 0
    told = capsys.readouterr().out
    monkeypatch.setattr(data, "LARGE", 10)
    made: list[Any] = []
    monkeypatch.setattr("ipd.data.assembly.column", lambda *given: made.append(given[-1]) or column(*given))
    assert data.check(path) == data.describe(path) == 0
    assert capsys.readouterr().out == told
    assert made and all(disk is not None for disk in made)


@pytest.mark.parametrize("command", ["check", "describe", "convert"])
def test_what_a_reader_doubts_is_always_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    path = tmp_path / "log.csv"
    rows = [f"{row},0.{row},{row},{int(row % 5 > 2)},{row // 5}" for row in range(10)]
    path.write_text("\n".join(["obs_x,act_u,reward,terminated,episode", *rows]))
    more = [str(tmp_path / "log.hdf5")] if command == "convert" else []
    assert getattr(data, command)(str(path), *more) == 0
    assert "warning: terminated, row 4: 2 rows behind" in capsys.readouterr().out
