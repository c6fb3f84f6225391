"""Imaginary Planning Distillation: a policy better than the data it learned from.

From data to actions:

    import ipd
    ipd.train("bundled:hopper-medium-replay", "runs/hopper", env="Hopper-v4", config="demo")
    policy = ipd.load("runs/hopper")
    policy.reset()
    action = policy.act(observation)  # where `policy.needs_reward`: act(observation, reward)

`load_world` and `load_values` give stages alone, `Episodes.from_arrays` takes data from memory. What is wrong
with data is a `DataError`, with anything else that was asked for an `InputError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipd.data.episodes import DataError, Episodes
    from ipd.runs.errors import InputError
    from ipd.runs.opened import load
    from ipd.runs.parts import load_values, load_world
    from ipd.runs.stages import train

__all__ = ["DataError", "Episodes", "InputError", "load", "load_values", "load_world", "train"]
_HOMES = {"Episodes": "ipd.data.episodes", "DataError": "ipd.data.episodes",
          "InputError": "ipd.runs.errors", "load_values": "ipd.runs.parts", "load_world": "ipd.runs.parts",
          "load": "ipd.runs.opened", "train": "ipd.runs.stages"}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Each name on first use, so that `import ipd` does not import JAX (PEP 562)."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ipd' has no attribute '{name}'")


def __dir__() -> list[str]:
    """For completion: names that were not used yet are there too."""
    return sorted({*globals(), *__all__})
