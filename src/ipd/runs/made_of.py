"""What each stage of a run is made of: other stages, and source files of the package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import ipd

STAGES = ("value", "world", "cloning", "augment", "refit", "policy", "evaluate", "audit")
"""Those of the method, in the order in which they run; the position is part of every random key."""

_MATHS = ("maths/losses.py", "maths/gaussians.py", "maths/returns.py", "nn/mlp.py", "nn/norm.py",
          "nn/parts.py", "nn/transformer.py")  # fmt: skip
_LEARNING = ("types.py", *_MATHS, "data/columns.py", "data/episodes.py", "value", "runs/loop.py",
             "runs/devices.py", "runs/feed.py", "runs/streaming.py", "runs/trained.py")  # fmt: skip
_BASELINE = (*_LEARNING, "runs/learning.py")
_IMAGINING = ("data/windows.py", "planning", "world", "runs/imagination.py", "runs/augmented.py")
CODE: dict[str, tuple[str, ...]] = {
    "value": _BASELINE,
    "world": (*_LEARNING, "world", "runs/modelling.py", "evaluation/world_quality.py"),
    "cloning": _BASELINE,
    "augment": (*_LEARNING, *_IMAGINING),
    "refit": (*_LEARNING, "runs/learning.py", "runs/augmented.py"),
    "policy": (*_LEARNING, "data/windows.py", "policy", "runs/learning.py", "runs/augmented.py"),
    "evaluate": (*_MATHS, "policy", "value", "evaluation", "runs/judging.py",
                 "runs/trials.py"),
    "view": (*_LEARNING, *_IMAGINING, "runs/examples.py"),
    "audit": (*_LEARNING, *_IMAGINING, "evaluation/truth.py", "runs/judging.py"),
    "judge": (*_LEARNING, "data/windows.py", "policy", "world", "evaluation", "runs/judging.py",
              "runs/judged.py", "runs/off_policy.py"),
}  # fmt: skip
"""Files of the package, or folders, on which a stage's result depends; a change there repeats the stage."""

_DREAMT = ("value", "world", "augment")
FEEDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("value", "world", "cloning"), ()), "augment": ("value", "world"), "view": _DREAMT,
    "refit": _DREAMT, "policy": (*_DREAMT, "refit"), "audit": _DREAMT,
}  # fmt: skip
"""Stage -> those that it is made of. A baseline is made of values or world model where its run has them;
returns and judgements are made of all that learned."""
LEAVES = ("view", "evaluate", "audit", "judge")
"""Stages that no other is made of."""

JUDGING = ("evaluate", "audit")

OUTPUTS = {"augment": ("augmented.hdf5",), "evaluate": ("evaluations.csv",)}
"""What a stage leaves outside its own folder."""
MADE_IN = "normaliser.json"
"""The units that every stage's numbers are in; done.json tells its digest, and those of what a stage left."""


def feeds(stage: str, there: Sequence[str]) -> list[str]:
    """Those of the stages that are there of which `stage` is made."""
    every = [name for name in there if name not in LEAVES and name != "data"]
    if stage in FEEDS:
        return [name for name in every if name in FEEDS[stage]]
    return every if stage in LEAVES else [name for name in every if name in ("value", "world")]


@cache
def sources() -> dict[str, bytes]:
    """The package's source files at the time of the first call: path below the package -> content."""
    root = Path(ipd.__file__).parent
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.py"))}


def code_digest(stage: str, more: tuple[str, ...] = ()) -> str:
    """Of the source files that `CODE` names for `stage` (a baseline: for learning), and of `more`."""
    total = hashlib.sha256()
    for name in (*CODE.get(stage, _BASELINE), *more):
        for path, content in sources().items():
            if path == name or path.startswith(f"{name}/"):
                total.update(path.encode() + b"\0" + content)
    return total.hexdigest()[:16]
