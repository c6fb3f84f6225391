"""The tasks a policy can be tried in, described without keeping one open.

Nothing here imports gymnasium before a task is asked for: reading a run, training and the command
line's help work without the ``envs`` extra.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

INSTALL = "pip install 'ipd[envs]'"
ALIASES = {
    "hopper": "Hopper-v4",
    "walker2d": "Walker2d-v4",
    "halfcheetah": "HalfCheetah-v4",
    "pen": "AdroitHandPen-v1",
    "hammer": "AdroitHandHammer-v1",
    "door": "AdroitHandDoor-v1",
    "relocate": "AdroitHandRelocate-v1",
    "kitchen": "FrankaKitchen-v1:microwave,kettle,light switch,slide cabinet",
}
"""Short names. Version 4 is the living task nearest to the simulator of D4RL's v2 files."""

_LOCOMOTION = re.compile(r"(Hopper|Walker2d|HalfCheetah)-v[45]")
_KITCHEN = "FrankaKitchen-v1:"
_ROBOTICS = ("Adroit", "Franka")
_PEN_HORIZON = 100
# Where palm and object stand in the observation; relocate gives only their difference.
_REACH = {
    "AdroitHandHammer-v1": (slice(33, 36), slice(36, 39)),
    "AdroitHandDoor-v1": (slice(29, 32), slice(32, 35)),
    "AdroitHandRelocate-v1": (slice(30, 33), None),
}


class TaskError(Exception):
    """A task cannot be had; one line that says what would mend it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What the rest of the package needs to know of a task. Units are the task's own."""

    id: str
    """Gymnasium id; for the kitchen followed by ``:`` and the things to do, separated by commas."""
    make: Callable[..., Any]
    """A fresh gymnasium environment with flat observations; the caller closes it. ``make(render=True)``
    can draw itself: ``render()`` gives (height, width, 3) bytes."""
    horizon: int
    """Steps after which an episode is truncated."""
    observation_size: int
    action_size: int
    action_low: NDArray[np.float32]
    """(act,), finite."""
    action_high: NDArray[np.float32]
    """(act,), finite."""
    options: dict[str, Any]
    """What it is made with, in JSON's types: arguments, ``max_episode_steps``, ``wrappers`` (not ours)."""
    observation_names: tuple[str, ...]
    """One for each dimension, such as ``observation[3]`` or ``desired_goal/kettle[0]``."""
    versions: dict[str, str]
    """Of gymnasium and mujoco (and gymnasium-robotics where used): returns change with them."""
    settable: bool
    """The simulator can be put into an observed state: observation = qpos without x, and qvel."""
    locomotion: bool
    """Rewards are scaled by the spread of the returns in the data (D4RL's running tasks)."""
    clip_actions: bool
    """The task does not limit actions by itself."""


def task(name: str) -> Task:
    """Describe a task by alias (``ALIASES``) or Gymnasium id; any task of Box spaces will do.

    Raises ``TaskError`` where the id is unknown, an extra is missing, a space is not a box (or a
    dictionary of boxes, for observations), action bounds are infinite or there is no time limit.
    """
    id = ALIASES.get(name.lower(), name)

    def make(render: bool = False) -> Any:
        return _make(id, {"render_mode": "rgb_array"} if render else {})

    env = make()
    try:
        horizon, low, high, names = _describe(id, env)
        options = _options(env.spec)
    finally:
        env.close()
    running = _LOCOMOTION.fullmatch(id) is not None
    return Task(
        id=id,
        make=make,
        horizon=horizon,
        observation_size=len(names),
        action_size=low.size,
        action_low=low,
        action_high=high,
        options=options,
        observation_names=names,
        versions=_versions(robotics=id.startswith(_ROBOTICS)),
        settable=running,
        locomotion=running,
        clip_actions=not (running or id.startswith(_ROBOTICS)),
    )


def _make(id: str, options: dict[str, Any]) -> Any:
    gymnasium = _import("gymnasium", id)
    base, things = id, ""
    if id.startswith(_KITCHEN):
        base, things = _KITCHEN[:-1], id.removeprefix(_KITCHEN)
        options["tasks_to_complete"] = [thing.strip() for thing in things.split(",")]
    if base == ALIASES["pen"]:
        options["max_episode_steps"] = _PEN_HORIZON
    if base not in gymnasium.registry:
        optional = () if base.startswith(_ROBOTICS) else (TaskError,)
        # Robotics prints a notice about the reward sign that is mended below.
        with contextlib.suppress(*optional), contextlib.redirect_stderr(io.StringIO()):
            gymnasium.register_envs(_import("gymnasium_robotics", id))
    try:
        with _quiet():
            env = gymnasium.make(base, disable_env_checker=True, **options)
    except gymnasium.error.DependencyNotInstalled as problem:
        raise TaskError(f"task {id!r} lacks a package ({_line(problem)}); try {INSTALL}") from problem
    except (gymnasium.error.Error, ImportError, ValueError, UserWarning) as problem:
        raise TaskError(f"no task {id!r} ({_line(problem)}); short names: {', '.join(ALIASES)}") from problem
    if isinstance(env.observation_space, gymnasium.spaces.Dict):
        env = _flatten(id, env)
    if base == ALIASES["pen"]:
        env = _wrappers().PenDropEnds(env)
    if base in _REACH:
        env = _wrappers().ReachIsPenalty(env, *_REACH[base])
    return env


def _describe(id: str, env: Any) -> tuple[int, NDArray[np.float32], NDArray[np.float32], tuple[str, ...]]:
    observation, action = env.observation_space, env.action_space
    for what, space in (("observation", observation), ("action", action)):
        if type(space).__name__ != "Box" or len(space.shape) != 1:
            raise TaskError(f"task {id!r}: {what}s are {space}; a Box with one axis is needed")
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        raise TaskError(f"task {id!r}: action bounds are not finite; wrap it in gymnasium's RescaleAction")
    if env.spec is None or env.spec.max_episode_steps is None:
        raise TaskError(f"task {id!r} has no time limit; register it with max_episode_steps")
    low, high = action.low.astype(np.float32), action.high.astype(np.float32)
    low.flags.writeable = high.flags.writeable = False
    flattened = type(env.unwrapped.observation_space).__name__ == "Dict"
    source = env.unwrapped.observation_space if flattened else observation
    return int(env.spec.max_episode_steps), low, high, tuple(_names(source))


def _flatten(id: str, env: Any) -> Any:
    gymnasium = _import("gymnasium", id)
    leaves = [leaf for _, leaf in _leaves("", env.observation_space)]
    if not all(isinstance(leaf, gymnasium.spaces.Box) for leaf in leaves):
        env.close()
        raise TaskError(f"task {id!r}: observations hold something other than boxes")
    return _wrappers().SortedFlat(env)


def _leaves(prefix: str, space: Any) -> Iterator[tuple[str, Any]]:
    """Sorted by key, as data of dictionaries are read; a space may have any order."""
    if type(space).__name__ == "Dict":
        for key, inner in sorted(space.spaces.items()):
            yield from _leaves(f"{prefix}/{key}" if prefix else key, inner)
    else:
        yield prefix or "observation", space


def _names(space: Any) -> Iterator[str]:
    for name, leaf in _leaves("", space):
        yield from (f"{name}[{index}]" for index in range(int(np.prod(leaf.shape))))


def _options(spec: Any) -> dict[str, Any]:
    named = [each.name for each in spec.additional_wrappers if not each.entry_point.startswith("ipd.")]
    found = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    found |= {"max_episode_steps": spec.max_episode_steps} | ({"wrappers": named} if named else {})
    return dict(json.loads(json.dumps(found, default=str)))


def _versions(*, robotics: bool) -> dict[str, str]:
    names = ["gymnasium", "mujoco"] + (["gymnasium-robotics"] if robotics else [])
    found = {}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):  # mujoco is not needed by every Box task
            found[name] = metadata.version(name)
    return found


def _import(name: str, id: str) -> Any:
    try:
        return import_module(name)
    except ImportError as problem:
        raise TaskError(f"task {id!r} needs {name} ({_line(problem)}); {INSTALL}") from problem


def _wrappers() -> Any:
    return import_module("ipd.evaluation.wrappers")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the one notice that version 4 is not the newest: it is chosen because it is not.

    A task without a version is refused: which one it means changes with the installed package.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*instead of the unversioned", UserWarning)
        warnings.filterwarnings("ignore", r".*is out of date\. You should consider", DeprecationWarning)
        yield


def _line(problem: BaseException) -> str:
    """What an exception says, on one line without colours."""
    text = str(problem.args[0]) if problem.args else type(problem).__name__
    return re.sub(r"\x1b\[\d+m", "", text).splitlines()[0]
