"""The baselines by name: which module learns, under which settings, from which stages."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from ipd.baselines import cloning, cql, dd, dt, edt, iql, mobile, qdt, qt, rebrac, reinformer


class Algorithm(NamedTuple):
    """A row of `--algo`; the contract of its module is in docs/architecture.md."""

    module: ModuleType
    stage: str
    """Name of its stage in a run, and of the section of the config that it reads."""
    needs: tuple[str, ...] = ()
    """Stages that it learns from: `value`, `world`."""
    parts: tuple[str, ...] = ()
    """Files of the package, beside the module's own, on which its result depends."""
    reads: tuple[str, ...] = ()
    """What its `act` looks at beside memory and observation: `reward`, `key`."""


_SEQUENCE = ("baselines/sequences.py", "data/windows.py")
_ACTOR_CRITIC = ("baselines/actor_critic.py",)

ALGORITHMS: dict[str, Algorithm] = {
    "bc": Algorithm(cloning, "cloning"),
    "iql": Algorithm(iql, "value"),
    "cql": Algorithm(cql, "cql", parts=_ACTOR_CRITIC),
    "rebrac": Algorithm(rebrac, "rebrac", parts=_ACTOR_CRITIC),
    "mobile": Algorithm(mobile, "mobile", ("world",), _ACTOR_CRITIC),
    "dt": Algorithm(dt, "dt", parts=_SEQUENCE, reads=("reward",)),
    "qdt": Algorithm(qdt, "qdt", ("value",), (*_SEQUENCE, "baselines/dt.py"), ("reward",)),
    "edt": Algorithm(edt, "edt", parts=_SEQUENCE, reads=("key",)),
    "reinformer": Algorithm(reinformer, "reinformer", parts=_SEQUENCE),
    "qt": Algorithm(qt, "qt", parts=_SEQUENCE, reads=("reward", "key")),
    "dd": Algorithm(dd, "dd", parts=("nn/unet.py", "maths/diffusion.py"), reads=("key",)),
}
"""Every `--algo` but `ipd`, which is the whole pipeline."""


def code_of(algorithm: Algorithm) -> tuple[str, ...]:
    """Files on which the algorithm's result depends, as `ipd.runs.made_of.CODE` names them."""
    own = "/".join(algorithm.module.__name__.split(".")[1:]) + ".py"
    world = ("world",) if "world" in algorithm.needs else ()
    return (own, "baselines/material.py", *algorithm.parts, *world)
