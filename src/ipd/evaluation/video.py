"""Pictures of a policy at work, on machines without a screen."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipd.evaluation.rollouts import Controller
from ipd.evaluation.tasks import Task, TaskError

BACKENDS = ("egl", "osmesa")
"""What MuJoCo draws with where there is no screen: on a GPU, or in software."""
PROBE = "import mujoco; context = mujoco.GLContext(16, 16); context.make_current(); context.free()"
PROBE_SECONDS = 60
INSTALL = "install libegl1 (with a GPU's driver) or libosmesa6"


def choose_backend() -> str:
    """Sets MUJOCO_GL to the first of ``BACKENDS`` that draws, or keeps what the user set, if it does.

    Each is tried in a process of its own, which may fail or hang without harm. To be called before MuJoCo is
    imported. Raises TaskError where none draws.
    """
    said = []
    for backend in filter(None, [os.environ.get("MUJOCO_GL", "").replace("disable", ""), *BACKENDS]):
        environment = os.environ | {"MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
        try:
            done = subprocess.run(
                [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True,
                timeout=PROBE_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            said.append(f"{backend}: no answer within {PROBE_SECONDS} s")
            continue
        if done.returncode == 0:
            os.environ["MUJOCO_GL"] = os.environ["PYOPENGL_PLATFORM"] = backend
            return backend
        lines = done.stderr.strip().splitlines()
        said.append(f"{backend}: {lines[-1] if lines else f'ended with {done.returncode}'}")
    raise TaskError(f"nothing draws without a screen ({'; '.join(said)}); {INSTALL}")


def frames(task: Task, controller: Controller, seed: int, every: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Every so many steps of one episode, (height, width, 3); one row of the controller acts."""
    env = task.make(render=True)
    try:
        observation, _ = env.reset(seed=seed)
        controller.reset(1)
        reward = 0.0
        for step in range(task.horizon):
            if step % every == 0:
                yield env.render()
            rows = np.asarray(observation, np.float32)[None]
            action = np.asarray(controller.act(rows, np.asarray([reward], np.float32)))[0]
            if task.clip_actions:
                action = np.clip(action, task.action_low, task.action_high)
            observation, reward, ended, cut, _ = env.step(action)
            if ended or cut:
                break
        yield env.render()
    finally:
        env.close()


def frames_per_second(task: Task) -> int:
    """Of a recording of every step, so that it runs as fast as the task."""
    env = task.make()
    try:
        return int(env.metadata.get("render_fps", 30))
    finally:
        env.close()


def writer(path: Path, fps: float) -> Any:
    """An imageio writer for `.gif`, or `.mp4` where ffmpeg is to be had. Raises TaskError where it is not."""
    import imageio

    if path.suffix == ".gif":
        return imageio.get_writer(path, mode="I", duration=1000 / fps, loop=0)
    # JAX warns of the fork by which ffmpeg starts; the new program takes its place at once
    warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
    try:
        return imageio.get_writer(path, format="FFMPEG", fps=fps, macro_block_size=1)
    except (ImportError, OSError, ValueError) as error:
        why = " ".join(str(error).split())[:80]
        raise TaskError(f".mp4 needs ffmpeg ({why}); pip install 'ipd[render]', or write a .gif") from error
