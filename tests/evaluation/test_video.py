"""Filming without a screen: a way to draw is found or refused, never waited for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ipd.evaluation import video
from ipd.evaluation.rollouts import ZeroController
from ipd.evaluation.tasks import TaskError
from ipd.evaluation.tasks import task as find_task


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def test_the_first_that_draws_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "PROBE", "import os, sys; sys.exit(os.environ['MUJOCO_GL'] != 'osmesa')")
    assert video.choose_backend() == "osmesa" == os.environ["MUJOCO_GL"]
    monkeypatch.setattr(video, "PROBE", "")
    monkeypatch.setenv("MUJOCO_GL", "disable")
    assert video.choose_backend() == "egl"
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert video.choose_backend() == "glfw"  # as the user wants it, where it works


def test_where_nothing_draws_it_is_said_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disable")
    monkeypatch.setattr(video, "PROBE", "raise SystemExit('no display')")
    with pytest.raises(TaskError, match=r"egl: no display; osmesa: no display.*libosmesa6"):
        video.choose_backend()
    monkeypatch.setattr(video, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(video, "PROBE_SECONDS", 0.2)
    with pytest.raises(TaskError, match="no answer"):
        video.choose_backend()


def test_film_of_an_episode(tmp_path: Path) -> None:
    task = find_task("Hopper-v4")
    drawn = np.zeros((4, 4, 3), np.uint8)

    class Fake:
        def __init__(self) -> None:
            self.real = task.make()

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def render(self) -> np.ndarray:
            drawn[:] += 1
            return drawn.copy()

    import dataclasses

    faked = dataclasses.replace(task, make=lambda render=False: Fake())
    env = task.make()
    env.reset(seed=3)
    steps = 1
    while not any(env.step(np.zeros(3))[2:4]):
        steps += 1
    env.close()
    every_third = list(video.frames(faked, ZeroController(task), 3, every=3))
    assert len(every_third) == -(-steps // 3) + 1  # and what the episode ended in
    with video.writer(tmp_path / "film.gif", 20.0) as film:
        for picture in every_third:
            film.append_data(picture)
    import imageio

    assert len(imageio.mimread(tmp_path / "film.gif", memtest=False)) == len(every_third)
    assert video.frames_per_second(task) == 125
