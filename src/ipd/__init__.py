"""Imaginary Planning Distillation: a policy better than the data it learned from.

From data to actions:

    import ipd
    ipd.train("bundled:hopper-medium-replay", "runs/hopper", env="Hopper-v4", config="demo")
    policy = ipd.load("runs/hopper")
    policy.reset()
    action = policy.act(observation)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ipd.runs.stages import load, train

__all__ = ["load", "train"]


def __getattr__(name: str) -> Any:
    """`load` and `train` on first use, so that `import ipd` does not import JAX (PEP 562)."""
    if name in __all__:
        from ipd.runs import stages

        return getattr(stages, name)
    raise AttributeError(f"module 'ipd' has no attribute '{name}'")
