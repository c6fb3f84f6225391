"""The command from end to end: recipes, the stop rule, resuming, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ipd.cli import main
from ipd.collect import recording, training
from ipd.collect.collecting import collect
from ipd.collect.sac import SACConfig
from ipd.collect.settings import Settings, settle
from ipd.data.sources import load
from ipd.evaluation.rollouts import Results
from ipd.evaluation.tasks import Task
from ipd.runs.checkpoint import CheckpointStore
from ipd.runs.errors import InputError, RunFailed

ENVS = 3
NEVER = 1e9


def settings(task: Task, recipe: str, **more: Any) -> Settings:
    common: dict[str, Any] = {"seed": 1, "environments": ENVS, "warmup": 15, "updates_per_step": 1 / 3}
    common |= {"evaluate_every": 30, "evaluation_episodes": 2, "expert_return": NEVER}
    sac = SACConfig(hidden=(4,), batch_size=5)
    return settle(task, recipe, **(common | {"sac": sac} | more))


def make(task: Task, wanted: Settings, out: Path) -> bool:
    return collect(task, wanted, out, checkpoint_seconds=0.0, quiet=True)


def attributes(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return dict(file.attrs)


@pytest.fixture
def improving(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Evaluations return 10, 20, 30 and so on; the list counts the episodes of each."""
    calls: list[int] = []

    def rollout(task: Task, controller: Any, episodes: int, seed: int) -> Results:
        calls.append(episodes)
        returns = 10.0 * len(calls) + np.linspace(-5, 5, episodes)
        return Results(returns[None], np.ones((1, episodes), np.int64))

    monkeypatch.setattr(training, "rollout", rollout)
    return calls


def test_replay_stops_at_the_first_evaluation_at_the_score(
    task: Task, tmp_path: Path, improving: list[int]
) -> None:
    out = tmp_path / "set.hdf5"
    assert make(task, settings(task, "medium-replay", score=20.0, training_steps=300), out)
    found, about = load(str(out)), attributes(out)
    assert found.num_steps == 60 == about["steps"] and improving == [2, 2]
    assert (about["medium_goal"], about["medium_step"], about["medium_return"]) == (20.0, 60, 20.0)
    assert about["medium_reached"]
    np.testing.assert_array_equal(about["training_curve"], [[30, 10], [60, 20]])
    assert about["task"] == found.task == "Line-v0" and about["recipe"] == "medium-replay"
    assert about["seed"] == 1 and about["maker"] == "ipd collect" and about["note"] == "regenerated, not D4RL"
    assert about["gymnasium"] == "none" and about["episodes"] == found.num_episodes
    assert not (tmp_path / "set.hdf5.part").exists()
    with h5py.File(out) as file:
        assert [file[key].dtype.str for key in file] == ["<f4"] * 4 + ["|b1"] * 2
        assert list(file) == [
            *("observations", "actions", "rewards", "next_observations", "terminals", "timeouts"),
        ]
    assert not found.remarks and (found.actions >= [1, -4]).all() and (found.actions <= [5, -2]).all()
    ends = found.starts[1:] - 1
    assert (found.terminated | found.truncated)[ends].all()
    assert (found.terminated | found.truncated).sum() == len(ends)


def test_replay_out_of_budget_is_written_and_says_so(task: Task, tmp_path: Path) -> None:
    out = tmp_path / "set.hdf5"
    assert make(task, settings(task, "medium-replay", training_steps=47), out)
    about = attributes(out)
    assert load(str(out)).num_steps == 45 and "medium_return" not in about
    assert about["medium_reached"].dtype == bool and not about["medium_reached"]


def test_replay_out_of_budget_goes_on_with_a_larger_one(
    task: Task, tmp_path: Path, improving: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out, part, whole = tmp_path / "set.hdf5", tmp_path / "set.hdf5.part", tmp_path / "whole.hdf5"
    enough = settings(task, "medium-replay", score=30.0, training_steps=300)
    short = dataclasses.replace(enough, training_steps=62)
    assert collect(task, short, out, checkpoint_seconds=0.0)
    told = f"medium_reached is false; a larger --training-steps goes on from {part}"
    assert told in capsys.readouterr().err
    assert not make(task, short, out) and part.exists(), "the same command again changes nothing"
    with pytest.raises(InputError, match="warmup: 15 -> 18"):
        make(task, dataclasses.replace(enough, warmup=18), out)
    with pytest.raises(InputError, match="training_steps: 62 -> 32"):
        make(task, dataclasses.replace(enough, training_steps=32), out)
    assert make(task, enough, out) and len(improving) == 3 and not part.exists()
    assert attributes(out)["medium_reached"] and attributes(out)["medium_step"] == 90
    improving.clear()
    assert make(task, enough, whole)
    assert out.read_bytes() == whole.read_bytes()
    with pytest.raises(InputError, match="training_steps: 300 -> 400"):
        make(task, dataclasses.replace(enough, training_steps=400), out)


def test_halves_are_acted_by_the_two_policies(
    task: Task, tmp_path: Path, improving: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set.hdf5"
    acted: list[np.ndarray[Any, Any]] = []
    sample = training.sample

    def spy(policy: Any, *rest: Any) -> Any:
        acted.append(np.asarray(policy.net.layers[0].weight))
        return sample(policy, *rest)

    monkeypatch.setattr("ipd.collect.collecting.sample", spy)
    wanted = settings(task, "medium-expert", score=10.0, expert_return=30.0, steps=61, training_steps=300)
    assert make(task, wanted, out)
    about = attributes(out)
    assert (about["medium_step"], about["expert_step"], about["expert_return"]) == (30, 90, 30.0)
    assert load(str(out)).num_steps == 61 and len(acted) == 10 + 11
    for first, last in ((0, 10), (10, 21)):
        assert all((one == acted[first]).all() for one in acted[first:last])
    assert (acted[0] != acted[10]).any()
    # The halves do not run into one another.
    assert load(str(out)).truncated[29]


def test_random_actions_fill_the_bounds(task: Task, tmp_path: Path) -> None:
    out = tmp_path / "set.hdf5"
    assert make(task, settings(task, "random", steps=200), out)
    actions = load(str(out)).actions
    assert len(actions) == 200
    np.testing.assert_allclose(actions.min(0), [1, -4], atol=0.1)
    np.testing.assert_allclose(actions.max(0), [5, -2], atol=0.1)
    np.testing.assert_allclose(actions.mean(0), [3, -3], atol=0.3)


class Killed(Exception):
    """Stands for kill -9: nothing below catches it."""


@pytest.mark.parametrize("where", ["before the log", "between log and state", "while acting"])
def test_killed_and_resumed_is_bitwise_the_same(
    task: Task, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(task, "medium", score=-NEVER, training_steps=120, steps=50, evaluate_every=60)
    whole, resumed = tmp_path / "whole.hdf5", tmp_path / "resumed.hdf5"
    assert make(task, wanted, whole)
    count = 0
    owner, name, last, kept = {
        "before the log": (training.Training, "_save", 13, 12),
        # At the evaluation that reaches the goal: its policy was saved, and the curve knows it.
        "between log and state": (CheckpointStore, "save", 19 + 2, 19),
        "while acting": (recording.Environments, "step", 20 + 8, 20),
    }[where]
    original = getattr(owner, name)

    def fail(*words: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == last:
            raise Killed
        return original(*words, **more)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, fail)
        make(task, wanted, resumed)
    assert not resumed.exists() and (tmp_path / "resumed.hdf5.part").exists()
    steps: list[int] = []
    step = recording.Environments.step

    def counted(*words: Any) -> None:
        steps.append(1)
        step(*words)

    monkeypatch.setattr(recording.Environments, "step", counted)
    assert make(task, wanted, resumed)
    assert len(steps) == 20 - kept + 17
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_raised_budget_goes_on(task: Task, tmp_path: Path, improving: list[int]) -> None:
    out, whole = tmp_path / "set.hdf5", tmp_path / "whole.hdf5"
    enough = settings(task, "expert", expert_return=30.0, steps=40, training_steps=300)
    short = dataclasses.replace(enough, training_steps=62)
    with pytest.raises(RunFailed, match=r"did not reach 30 in 60 steps, the best evaluation was 20\.0"):
        make(task, short, out)
    assert make(task, enough, out) and len(improving) == 3
    improving.clear()
    assert make(task, enough, whole)
    assert out.read_bytes() == whole.read_bytes()


def test_a_loss_that_is_not_finite_stops_the_run(
    task: Task, tmp_path: Path, improving: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "improve", lambda config, state, *rest: (state, np.float32(np.nan)))
    with pytest.raises(RunFailed, match=r"step 30; a smaller --sac\.learning-rate"):
        make(task, settings(task, "medium-replay", training_steps=60), tmp_path / "set.hdf5")


def test_what_is_there_is_kept(task: Task, tmp_path: Path) -> None:
    out = tmp_path / "set.hdf5"
    wanted = settings(task, "random", steps=30)
    assert make(task, wanted, out)
    before = out.read_bytes()
    (tmp_path / "set.hdf5.part").mkdir()  # killed after the file was made
    assert not make(task, wanted, out)
    assert not (tmp_path / "set.hdf5.part").exists()
    with pytest.raises(InputError, match="seed: 1 -> 2"):
        make(task, dataclasses.replace(wanted, seed=2), out)
    assert out.read_bytes() == before
    other = tmp_path / "other.hdf5"
    other.write_bytes(b"something")
    with pytest.raises(InputError, match="not made by ipd collect"):
        make(task, wanted, other)


def test_unfinished_work_of_other_settings_is_kept(task: Task, tmp_path: Path, improving: list[int]) -> None:
    out = tmp_path / "set.hdf5"
    wanted = settings(task, "expert", training_steps=30)
    with pytest.raises(RunFailed):
        make(task, wanted, out)
    with pytest.raises(InputError, match=r"set.hdf5.part: holds other settings \(warmup: 15 -> 18\)"):
        make(task, dataclasses.replace(wanted, warmup=18), out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--env", "CartPole-v1"], "a Box with one axis is needed"),
        (["--env", "Pendulum-v1"], "no D4RL reference return; state one with --expert-return"),
        (["--env", "hopper", "--recipe", "replay"], "there is no such recipe"),
        (["--env", "hopper", "--recipe", "random", "--score", "5"], "--score is the medium policy's"),
        (["--env", "hopper", "--steps", "5"], "medium-replay is as long as its training"),
        (
            ["--env", "hopper", "--recipe", "medium-expert", "--score", "1e5"],
            "above the expert return 3234.3",
        ),
        (["--env", "hopper", "--updates-per-step", "0"], "--updates-per-step 0.0: must be above 0"),
        (["--env", "hopper", "--out", "x.npz"], "must end in .hdf5"),
    ],
)
def test_refusals(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "--out", "x.hdf5", *words]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ipd collect: ") and told in last
    assert list(tmp_path.iterdir()) == []


def test_command_in_a_real_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "set.hdf5")
    words = ["collect", "--env", "hopper", "--recipe", "random", "--steps", "300", "--out", out]
    assert main(words) == main(words) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("written") and "already there" in told[1]
    assert main(["data", "check", out]) == 0
    found, about = load(out), attributes(Path(out))
    assert found.task == "Hopper-v4" and found.num_steps == 300 and {"mujoco", "gymnasium"} <= about.keys()


def test_third_of_the_reference_is_the_default_score() -> None:
    from ipd.evaluation.tasks import task

    assert settle(task("hopper"), "medium-replay").goals == (("medium", pytest.approx(3234.3 / 3)),)
    assert settle(task("hopper"), "medium", share=0.5, expert_return=100.0).goals == (("medium", 50.0),)
    for share in (0.0, -0.5, 1.5, float("nan")):
        with pytest.raises(InputError, match=r"--share \S+: must be above 0 and at most 1"):
            settle(task("hopper"), "medium", share=share)
    # a third of -150 would be harder than all of it
    with pytest.raises(InputError, match=r"the expert return -150 is not above 0.*give --score"):
        settle(task("hopper"), "medium", expert_return=-150.0)
    assert settle(task("hopper"), "medium-expert", score=-300.0, expert_return=-150.0).goals[0][1] == -300.0
    with pytest.raises(InputError, match="--score nan: must be a finite number"):
        settle(task("hopper"), "medium", score=float("nan"))
    with pytest.raises(InputError, match="--steps 1: medium-expert holds steps of 2 policies"):
        settle(task("hopper"), "medium-expert", steps=1)
