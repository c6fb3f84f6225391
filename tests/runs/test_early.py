"""Policies tried while others train: the same episodes, in another thread, and none once nobody waits."""

from __future__ import annotations

import csv
import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from ipd.data.episodes import fit_normaliser
from ipd.data.probes import linear_quadratic
from ipd.evaluation import rollouts
from ipd.evaluation.tasks import Task
from ipd.evaluation.tasks import task as find_task
from ipd.presets import preset
from ipd.runs import files, judging
from ipd.runs.context import Run
from ipd.runs.errors import RunFailed
from ipd.runs.progress import Progress
from ipd.runs.rundir import Job
from ipd.runs.trials import FIRST_EPISODE_SEED, Contender, Early
from ipd.types import Spec


@pytest.fixture(scope="module")
def task() -> Task:
    return find_task("Hopper-v4")


def begun(folder: Path, task: Task | None) -> Run:
    episodes = linear_quadratic(2, 20, 0)
    run = Run(
        folder, Job("d", None, (0, 4), preset("tiny")), task, lambda: episodes, episodes.digest,
        fit_normaliser(episodes), Spec(11, 3, 1000), Progress(quiet=True),
    )  # fmt: skip
    run.keep_normaliser()
    return run


def contender(task: Task, asked: list[str], act: Callable[[], None] = lambda: None) -> Contender:
    class Watched(rollouts.ZeroController):
        def reset(self, rows: int) -> None:
            asked.append(threading.current_thread().name)

        def act(self, observations: Any, rewards: Any) -> Any:
            act()
            return super().act(observations, rewards)

    make: Any = lambda: Watched(task)  # noqa: E731
    return Contender("zero", 7, 2, make)


def test_episodes_are_those_of_a_later_trial(tmp_path: Path, task: Task) -> None:
    asked: list[str] = []
    with Early(begun(tmp_path, task)) as early:
        early.begin([contender(task, asked)])
        first, failed = early.results(contender(task, asked), task)
        again, _ = early.results(contender(task, asked), task)
    assert not failed.any()
    assert (
        len(asked) == 2 and asked[0].startswith("ipd-early") and asked[1] == threading.current_thread().name
    )
    plain = rollouts.rollout(task, rollouts.ZeroController(task), 2, FIRST_EPISODE_SEED, 2)
    for found in (first, again):
        np.testing.assert_array_equal(found.returns, plain.returns)
        np.testing.assert_array_equal(found.lengths, plain.lengths)


def test_nothing_is_begun_without_a_task_or_after_training(tmp_path: Path, task: Task) -> None:
    asked: list[str] = []
    with Early(begun(tmp_path, None)) as early:
        early.begin([contender(task, asked)])
    run = begun(tmp_path, task)
    files.write_json(run.stage_folder("policy") / "done.json", {})
    with Early(run) as early:
        early.begin([contender(task, asked)])
    assert not asked


def test_leaving_stops_what_runs_and_drops_what_waits(tmp_path: Path, task: Task) -> None:
    asked: list[str] = []
    running = threading.Event()
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="training failed"), Early(begun(tmp_path, task)) as early:

        def slowly() -> None:
            running.set()
            time.sleep(0.2)

        early.begin([contender(task, asked, slowly), contender(task, asked)._replace(step=8)])
        assert running.wait(60)
        raise RuntimeError("training failed")
    assert len(asked) == 1 and time.monotonic() - began < 30  # a whole episode would be slower


def test_what_goes_wrong_is_raised_where_it_is_asked_for(tmp_path: Path, task: Task) -> None:
    def fail() -> None:
        raise FloatingPointError("action not finite")

    with Early(begun(tmp_path, task)) as early, pytest.raises(FloatingPointError, match="not finite"):
        early.begin([contender(task, [], fail)])
        early.results(contender(task, []), task)


def broken(task: Task, after: int) -> Contender:
    """Gives the second seed no number after so many steps."""

    class Broken(rollouts.ZeroController):
        steps = 0

        def act(self, observations: Any, rewards: Any) -> Any:
            actions = super().act(observations, rewards)
            self.steps += 1
            actions[2:] = np.nan if self.steps > after else 0.0
            return actions

    make: Any = lambda: Broken(task)  # noqa: E731
    return Contender("broken", 7, 2, make)


def test_a_seed_whose_actions_are_not_finite_stands_still_and_the_other_ends(
    tmp_path: Path, task: Task
) -> None:
    run = begun(tmp_path, task)
    with Early(run) as early:
        found, failed = early.results(broken(task, 3), task)
    assert failed.tolist() == [False, True]
    plain = rollouts.rollout(task, rollouts.ZeroController(task), 2, FIRST_EPISODE_SEED, 2)
    np.testing.assert_array_equal(found.returns[0], plain.returns[0])
    # where the first one failed before, nobody is left
    run.store("value", "").fail({0: "metric value_loss is not finite at or before update 8"})
    with (
        Early(run) as early,
        pytest.raises(RunFailed, match=r"no seed is left: stage value.*; stage evaluate"),
    ):
        judging.evaluate(run, task, [broken(task, 3)], (), early)
    assert not (tmp_path / "evaluations.csv").exists()


def test_a_seed_that_fails_in_one_policy_is_left_out_of_all(tmp_path: Path, task: Task) -> None:
    run = begun(tmp_path, task)
    contenders = [broken(task, 0), contender(task, [])]
    for _ in range(2):
        with Early(run) as early:
            judging.evaluate(run, task, contenders, (), early)
        assert list(run.failed) == [4]
        rows = csv.DictReader((tmp_path / "evaluations.csv").read_text().splitlines())
        kept = Counter((row["policy"], row["seed"]) for row in rows)
        assert kept == {("zero", "0"): 2, ("broken", "0"): 2}  # what failed once is no result anywhere
        (run.stage_folder("evaluate") / "done.json").unlink()  # killed before it was written


def test_a_failure_of_an_older_make_stops_no_seed(tmp_path: Path, task: Task) -> None:
    run, asked = begun(tmp_path, task), list[str]()
    run.store("policy", "older").fail({4: "tensor w is not finite at or before update 8"})
    with Early(run) as early:
        early.begin([contender(task, asked)])
        while not asked:
            time.sleep(0.001)
        run.store("policy", "newer").clean()  # what the policy's stage does when it begins
        judging.evaluate(run, task, [contender(task, [])], (), early)
    assert not run.failed and "zero,4," in (tmp_path / "evaluations.csv").read_text()


def test_what_is_made_again_alike_leaves_what_was_made_of_it(tmp_path: Path) -> None:
    run = begun(tmp_path, None)
    left = [
        run.stage_folder(stage) / name
        for stage in ("policy", "judge")
        for name in ("done.json", "summary.json")
    ]

    def augment(fingerprint: str) -> None:
        run.finish("augment", fingerprint, lambda: (tmp_path / "augmented.hdf5").touch() or {})

    augment("f")
    for path in left:
        files.write_json(path, {})
    (tmp_path / "augmented.hdf5").unlink()  # to save room, perhaps
    augment("f")
    assert all(path.exists() for path in left) and (tmp_path / "augmented.hdf5").exists()
    augment("g")
    assert [path.exists() for path in left] == [False, True, False, False]


def test_a_normaliser_is_mended_and_one_of_other_units_ends_what_is_there(
    tmp_path: Path,
) -> None:
    run = begun(tmp_path, None)
    path, done = tmp_path / "normaliser.json", run.stage_folder("value") / "done.json"
    files.write_json(done, {})
    for text in (None, "{"):
        if text is not None:
            path.write_text(text)
        run.keep_normaliser()
        assert files.read_object(path) == run.normaliser.to_dict() and done.exists()
    files.write_json(path, run.normaliser.to_dict() | {"reward_scale": 7.0})
    run.keep_normaliser()
    assert files.read_object(path) == run.normaliser.to_dict() and not done.exists()


def test_without_a_seed_no_stage_begins(tmp_path: Path, task: Task) -> None:
    run = begun(tmp_path, task)
    run.store("value", "").fail({0: "a"})
    run.store("world", "").fail({4: "b"})
    with pytest.raises(RunFailed, match="stage augment: no seed is left: stage value: a; stage world: b"):
        run.finish("augment", "f", dict)
    run.finish("cloning", "f", dict)


def test_a_task_that_answers_one_seed_with_no_number_stops_that_seed(tmp_path: Path, task: Task) -> None:
    class Answer(gymnasium.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, *rest = super().step(action)
            return (np.full_like(observation, np.nan) if action[0] == 0.5 else observation, *rest)

    class Odd(rollouts.ZeroController):
        def act(self, observations: Any, rewards: Any) -> Any:
            actions = super().act(observations, rewards)
            actions[:2, 0] = 0.5  # rows of the first seed
            return actions

    answering = dataclasses.replace(task, make=lambda: Answer(task.make()))
    make: Any = lambda: Odd(task)  # noqa: E731
    run = begun(tmp_path, task)
    with Early(run) as early:
        found, failed = early.results(Contender("odd", 7, 2, make), answering)
    assert failed.tolist() == [True, False]
    zero = rollouts.rollout(task, rollouts.ZeroController(task), 2, FIRST_EPISODE_SEED, 2)
    np.testing.assert_array_equal(found.returns[1], zero.returns[1])
    run.store("value", "").fail({4: "metric value_loss is not finite at or before update 8"})
    with Early(run) as early, pytest.raises(RunFailed, match=r"no seed is left: .*what odd does after 7"):
        judging.evaluate(run, answering, [Contender("odd", 7, 2, make)], (), early)


def test_stages_know_the_seeds_that_failed_in_what_they_are_made_of(tmp_path: Path, task: Task) -> None:
    run = begun(tmp_path, task)
    for stage in ("value", "world", "cloning", "augment", "refit", "policy", "mobile", "evaluate", "audit"):
        files.write_json(run.stage_folder(stage) / "done.json", {})
    text = "tensor w is not finite at or before update 8"
    run.store("value", "").fail({0: text})
    run.store("evaluate", "").fail({4: text})
    assert run.failed.keys() == {0, 4}
    expected = {"value": {0}, "world": set(), "cloning": set(), "augment": {0}, "refit": {0}, "policy": {0}}
    expected |= {"mobile": {0}, "evaluate": {0, 4}, "audit": {0}, "judge": {0}}
    assert {stage: run.stopped(stage).keys() for stage in expected} == expected
    (tmp_path / "evaluations.csv").touch()
    run.finish("value", "of another make", dict)
    left = {path.parent.name for path in tmp_path.glob("stages/*/done.json")}
    assert left == {"value", "world", "cloning"}
    assert not run.failed and not (tmp_path / "evaluations.csv").exists()
