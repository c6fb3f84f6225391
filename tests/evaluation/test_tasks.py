"""Tasks: what is known of them, what is mended, what is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from ipd.evaluation import tasks
from ipd.evaluation.tasks import TaskError, task


@pytest.mark.parametrize(
    ("name", "id", "horizon", "observations", "actions", "running"),
    [
        ("hopper", "Hopper-v4", 1000, 11, 3, True),
        ("walker2d", "Walker2d-v4", 1000, 17, 6, True),
        ("halfcheetah", "HalfCheetah-v4", 1000, 17, 6, True),
        ("pen", "AdroitHandPen-v1", 100, 45, 24, False),
        ("hammer", "AdroitHandHammer-v1", 200, 46, 26, False),
        ("door", "AdroitHandDoor-v1", 200, 39, 28, False),
        ("Pendulum-v1", "Pendulum-v1", 200, 3, 1, False),
    ],
)
def test_sizes_and_bounds(
    name: str, id: str, horizon: int, observations: int, actions: int, running: bool
) -> None:
    found = task(name)
    assert (found.id, found.horizon) == (id, horizon)
    assert (found.observation_size, found.action_size) == (observations, actions)
    assert found.locomotion == found.settable == running
    assert found.action_low.shape == found.action_high.shape == (actions,)
    assert found.versions["gymnasium"] == gymnasium.__version__ and "mujoco" in found.versions
    assert found.observation_names[-1] == f"observation[{observations - 1}]"


def test_importing_needs_no_simulator() -> None:
    heavy = "{'gymnasium', 'mujoco', 'jax'}"
    code = f"import sys, ipd.evaluation.tasks; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_kitchen_is_flattened_with_names() -> None:
    found = task("FrankaKitchen-v1:kettle,microwave")
    # 59 of the robot and the objects; kettle (7) and microwave (1), as achieved and as desired.
    assert found.observation_size == 59 + 2 * (7 + 1) and found.horizon == 280
    env = found.make()
    try:
        env.reset(seed=0)
        flat, *_ = env.step(np.zeros(9, np.float32))
        base = env.unwrapped
        assert set(base.goal) == {"kettle", "microwave"}
        place = found.observation_names.index("desired_goal/kettle[0]")
        np.testing.assert_array_equal(flat[place : place + 7], base.goal["kettle"])
        assert found.observation_names[-1] == "observation[58]"
    finally:
        env.close()


class Unsorted(gymnasium.Env[Any, Any]):
    """A dictionary whose keys stand in an order of their own: Gymnasium sorts no keyword arguments."""

    def __init__(self, g: float = 1.0) -> None:
        del g
        one, two = gymnasium.spaces.Box(-1, 1, (1,)), gymnasium.spaces.Box(-1, 1, (2,))
        self.observation_space = gymnasium.spaces.Dict(place=one, goal=gymnasium.spaces.Dict(z=two, a=one))
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return {"place": [0.1], "goal": {"z": [0.2, 0.3], "a": [0.4]}}, {}


def test_dictionaries_are_flattened_by_sorted_keys() -> None:
    gymnasium.register("Unsorted-v0", Unsorted, max_episode_steps=9, kwargs={"g": 2.0})
    try:
        found = task("Unsorted-v0")
        assert found.observation_names == ("goal/a[0]", "goal/z[0]", "goal/z[1]", "place[0]")
        assert found.options == {"g": 2.0, "max_episode_steps": 9}
        np.testing.assert_allclose(found.make().reset(seed=0)[0], [0.4, 0.2, 0.3, 0.1])
    finally:
        del gymnasium.registry["Unsorted-v0"]


def test_a_dropped_pen_ends_the_episode() -> None:
    env = task("pen").make()
    try:
        env.reset(seed=1)
        rng = np.random.default_rng(0)
        for step in range(100):
            observation, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, 24))
            assert terminated == (observation[26] < 0.075)
            if terminated:
                assert env.unwrapped.data.xpos[env.unwrapped.obj_body_id][2] == observation[26]
                break
            assert truncated == (step == 99)
        assert terminated, "random actions drop the pen"
    finally:
        env.close()


@pytest.mark.parametrize(
    ("name", "palm", "target"),
    [("hammer", "S_grasp_site_id", "obj_body_id"), ("door", "grasp_site_id", "handle_site_id")],
)
def test_reaching_is_a_cost(name: str, palm: str, target: str) -> None:
    """The mended reward differs from the package's by twice the term, and is then a cost."""
    env = task(name).make()
    try:
        env.reset(seed=0)
        base = env.unwrapped
        given: list[float] = []
        original = base.step
        base.step = lambda action: _remember(given, original(action))
        for _ in range(3):
            _, reward, *_ = env.step(np.full(env.action_space.shape, 0.1, np.float32))
            there = base.data.xpos if target.endswith("body_id") else base.data.site_xpos
            gap = np.linalg.norm(base.data.site_xpos[getattr(base, palm)] - there[getattr(base, target)])
            assert gap > 0.01
            assert reward == pytest.approx(given[-1] - 0.2 * gap, abs=1e-12)
    finally:
        env.close()


def _remember(given: list[float], result: Any) -> Any:
    given.append(float(result[1]))
    return result


class _Endless(gymnasium.Env[Any, Any]):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))


class _Unbounded(_Endless):
    action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Nope-v1", "short names: hopper"),
        ("Pendulum", "latest versioned"),
        ("CartPole-v1", "actions are Discrete"),
        ("FrankaKitchen-v1:nope", "nope"),
        ("no_such_module:Foo-v1", "no_such_module"),
        ("", "no task ''"),
        ("IpdEndless-v0", "no time limit"),
        ("IpdUnbounded-v0", "not finite"),
    ],
)
def test_refusals_are_one_line(name: str, says: str) -> None:
    gymnasium.register("IpdEndless-v0", entry_point=_Endless, disable_env_checker=True)
    gymnasium.register("IpdUnbounded-v0", entry_point=_Unbounded, disable_env_checker=True)
    try:
        with pytest.raises(TaskError) as caught:
            task(name)
    finally:
        del gymnasium.registry["IpdEndless-v0"], gymnasium.registry["IpdUnbounded-v0"]
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "package"), [("hopper", "gymnasium"), ("pen", "gymnasium_robotics")])
def test_a_missing_extra_is_named(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for id in [id for id in gymnasium.registry if id.startswith("Adroit")]:
        monkeypatch.delitem(gymnasium.registry, id)
    with pytest.raises(TaskError, match=r"pip install 'ipd\[envs\]'"):
        task(name)


def test_aliases_lead_to_tasks_of_known_version() -> None:
    assert all("-v" in id for id in tasks.ALIASES.values())
