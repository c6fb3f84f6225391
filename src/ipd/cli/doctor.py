"""`ipd doctor`: what is installed, what is missing, whether a task steps."""

from __future__ import annotations

import dataclasses
import os
from importlib.util import find_spec

from ipd.cli.options import parse, say

EXTRAS = {"envs": ("gymnasium", "gymnasium_robotics", "mujoco"), "cluster": ("ray",)}


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Print versions, devices and extras, and step a task."""

    env: str = "Hopper-v4"
    """The task to step."""


def main(argv: list[str]) -> int:
    """Parses, prints; returns 0, or 1 where the task does not step."""
    options = parse(Doctor, argv, "doctor")
    import jax

    from ipd.runs.rundir import versions

    say("  ".join(f"{name} {version}" for name, version in versions().items()))
    say(f"devices: {', '.join(str(device) for device in jax.devices())}; cores: {os.cpu_count()}")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        say(
            f"extra {extra}: "
            + (f"no {', '.join(missing)}; pip install 'ipd[{extra}]'" if missing else "there")
        )
    return 0 if _steps(options.env) else 1


def _steps(name: str) -> bool:
    from ipd.evaluation.rollouts import ZeroController, rollout
    from ipd.evaluation.tasks import TaskError, task

    try:
        found = task(name)
        result = rollout(found, ZeroController(found), episodes=1, seed=0)
    except (TaskError, FloatingPointError) as error:
        say(f"task {name}: {error}")
        return False
    earned, steps = result.returns[0, 0], result.lengths[0, 0]
    say(f"task {name}: steps; doing nothing earns {earned:.1f} in {steps} steps")
    return True
