"""The command line: quick help without heavy imports, every field reachable, doctor, presets."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest

from ipd.cli import COMMANDS, main
from ipd.config import Config
from ipd.presets import ABLATIONS, PRESETS, preset, problems, with_task
from ipd.runs import stages
from ipd.runs.rundir import Job

HEAVY = ("jax", "equinox", "gymnasium", "tyro", "numpy", "h5py")


@pytest.mark.parametrize("statement", ["from ipd.cli import main; main(['--help'])", "import ipd"])
def test_help_and_import_are_light(statement: str) -> None:
    check = f"{statement}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    assert all(f"\n  {name} " in told for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"usage: ipd {command}" in capsys.readouterr().out


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job that `ipd train` would run."""
    jobs: list[Job] = []

    def execute(out: Path, job: Job, **more: Any) -> Path:
        jobs.append(job)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "execute", execute)
    assert main(["train", "--data", "x.hdf5", "--out", "run", *words]) == 1
    return jobs[0]


def test_any_field_is_reachable(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--value.steps", "7", "--value.hidden", "3", "5", "--policy.replace", "--world.loss", "literal"]
    job = parsed([*words, "--preset", "cpu+greedy", "--env", "hopper", "--seeds", "3"], monkeypatch)
    config = job.config
    assert config.value.steps == 7 and config.value.hidden == (3, 5)
    assert config.policy.replace and config.world.loss == "literal"
    assert config.augment.num_plans == 1 and config.preset == "cpu+greedy"
    assert config.world.steps == preset("cpu").world.steps
    assert job.seeds == (0, 1, 2) and job.task == "hopper"
    assert "the same command goes on" in capsys.readouterr().err


def test_a_task_that_the_data_name_adjusts_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "log.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["task"] = "HalfCheetah-v4"
    words = ["--preset", "paper", "--data", str(path)]
    named = parsed(words, monkeypatch).config
    assert named == parsed([*words, "--env", "HalfCheetah-v4"], monkeypatch).config
    assert named.policy.q_weight == 5.0 != preset("paper").policy.q_weight
    assert parsed([*words, "--env", "Hopper-v4"], monkeypatch).config.policy.q_weight == 1.0


def test_presets_are_fit_and_named() -> None:
    for name in [*PRESETS, *(f"paper+{ablation}" for ablation in ABLATIONS)]:
        config = preset(name)
        assert problems(config) == [] and config.preset == name
    assert dataclasses.replace(preset("paper"), preset="paper") == Config()
    assert preset("literal").world.loss == "literal"
    endless = dataclasses.replace(Config(), value=dataclasses.replace(Config().value, discount=1.0))
    assert problems(endless) == ["--value.discount 1: must be below 1, else values have no end"]


@pytest.mark.parametrize("first", ["-1", "2147483648"])
def test_seeds_that_are_none_are_refused_before_anything_is_made(
    first: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "--data", "bundled:hopper-medium-replay", "--out", str(out), "--preset", "tiny"]
    assert main([*words, "--first-seed", first]) == 2
    assert f"seeds {first}: must lie in [0, 2**31)" in capsys.readouterr().err and not out.exists()


def test_tasks_adjust_a_preset_and_an_ablation_has_the_last_word() -> None:
    assert with_task("paper", "Hopper-v4", "d/hopper-medium.hdf5").policy.q_weight == 1.0
    assert with_task("paper", "Hopper-v4", "d/hopper-medium-replay.hdf5").policy.q_weight == 3.0
    assert with_task("paper", None, "bundled:hopper-medium-replay").policy.q_weight == 3.0
    assert with_task("paper+no-q-term", "Hopper-v4").policy.q_weight == 0.0
    pen = with_task("paper", "AdroitHandPen-v1")
    assert (pen.value.inverse_temperature, pen.policy.dropout, pen.policy.q_weight) == (0.5, 0.1, 0.1)
    assert with_task("paper", "Walker2d-v4", "hopper/walker2d.npz").policy.q_weight == 2.0
    with pytest.raises(KeyError, match="unknown preset 'big'"):
        preset("big")


def test_doctor_steps_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "jax " in told and "task Hopper-v4: steps" in told
    assert main(["doctor", "--env", "Nothing-v0"]) == 1


def test_data_commands_reach_their_functions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "bundled:hopper-medium-replay"]) == 0
    assert main(["data", "describe", "nowhere.hdf5"]) == 2
    assert "nowhere.hdf5" in capsys.readouterr().err.strip().splitlines()[-1]
