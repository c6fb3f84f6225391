"""What a suite holds: the paper's data sets by their official file names, and the variants run on them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ipd.config import Algo
from ipd.data.hdf5 import array
from ipd.data.sources import MAKING, UNREADABLE
from ipd.presets import ABLATIONS
from ipd.runs.errors import InputError


class DataSet(NamedTuple):
    """One of D4RL's sets, and the living task that stands for the one it was recorded in."""

    name: str
    file: str
    """Official name of the file."""
    env: str | None
    """Gymnasium id; None where no living task has these observations."""
    steps: int
    """Rows of the official file."""


def _locomotion(name: str, env: str, steps: int) -> DataSet:
    robot, _, kind = name.partition("-")
    return DataSet(name, f"{robot}_{kind.replace('-', '_')}-v2.hdf5", env, steps)


SETS: dict[str, DataSet] = {
    found.name: found
    for found in (
        _locomotion("walker2d-medium", "Walker2d-v4", 1_000_000),
        _locomotion("walker2d-medium-replay", "Walker2d-v4", 302_000),
        _locomotion("hopper-medium", "Hopper-v4", 1_000_000),
        _locomotion("hopper-medium-replay", "Hopper-v4", 402_000),
        _locomotion("halfcheetah-medium", "HalfCheetah-v4", 1_000_000),
        _locomotion("halfcheetah-medium-replay", "HalfCheetah-v4", 202_000),
        DataSet("kitchen-complete", "mini_kitchen_microwave_kettle_light_slider-v0.hdf5", None, 3_680),
        DataSet("kitchen-partial", "kitchen_microwave_kettle_light_slider-v0.hdf5", None, 136_950),
        DataSet("hammer-human", "hammer-human-v1.hdf5", "AdroitHandHammer-v1", 11_310),
        DataSet("pen-cloned", "pen-cloned-v1.hdf5", "AdroitHandPen-v1", 500_000),
    )
}
"""The ten sets of the paper's Table 1. -v4 is the living task nearest to D4RL's: -v5 has other rewards."""


class Source(NamedTuple):
    """Where the data of a set come from on this machine."""

    path: str
    """As `ipd.data.sources.load` takes it."""
    origin: str
    """`D4RL`, or `regenerated`: a set of the same kind that was made anew."""
    remark: str | None = None
    """What a person should know of the file."""


def find(dataset: DataSet, root: Path | None) -> Source | None:
    """The official file in `root`, else a collected one under the set's plain name, else the bundled one.

    None where there is none. Only an official file of the right length that does not tell how it was
    collected is called D4RL.
    """
    for name in (dataset.file, f"{dataset.name}.hdf5"):
        path = None if root is None else root.resolve() / name
        if path is not None and path.is_file():
            official, remark = _inspect(path, dataset)
            return Source(str(path), "D4RL" if official else "regenerated", remark)
    bundled = importlib.resources.files("ipd.data") / "bundled" / f"{dataset.name}.hdf5"
    return Source(f"bundled:{dataset.name}", "regenerated") if bundled.is_file() else None


def _inspect(path: Path, dataset: DataSet) -> tuple[bool, str | None]:
    """Whether a file may be the official one, and a remark where it is not what its name says."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            steps, made = (
                array(file, "observations", str(path)).shape[0],
                any(name in file.attrs for name in MAKING),
            )
            recipe = str(file.attrs.get("recipe", ""))
    except UNREADABLE:
        return False, f"{path.name} cannot be read as a D4RL file"
    if recipe and not dataset.name.endswith(f"-{recipe}"):
        return False, f"{path.name} says that it was collected with recipe {recipe}"
    named, near = path.name == dataset.file, abs(steps - dataset.steps) <= 0.01 * dataset.steps
    told = f"{path.name} has {steps:,} steps, the official file {dataset.steps:,}"
    return named and near and not made, told if named and not (made or near) else None


class Variant(NamedTuple):
    """What is run on each set of a suite: an algorithm, or the method with something changed."""

    name: str
    """Its folder, and what `--algos` calls it."""
    algo: Algo = "ipd"
    ablations: tuple[str, ...] = ()
    """Names in `ipd.presets.ABLATIONS`."""
    overrides: Mapping[str, Any] = {}
    """Dotted field -> value."""


class Suite(NamedTuple):
    """Sets times variants. A variant stands behind those whose stages it takes over."""

    sets: tuple[str, ...]
    variants: tuple[Variant, ...]
    chosen: tuple[str, ...] = ()
    """Names of the variants that are run; nothing named is all."""

    def runs(self, variant: Variant) -> bool:
        """Whether a variant is run; the others only tell what it has in common with them."""
        return not self.chosen or variant.name in self.chosen

    def narrowed(self, tasks: tuple[str, ...], names: tuple[str, ...]) -> Suite:
        """Only these sets and variants, in the suite's order; nothing named is everything."""
        there = tuple(variant.name for variant in self.variants)
        return self._replace(
            sets=_chosen("--tasks", self.sets, tasks), chosen=_chosen("--algos", there, names)
        )


def _chosen(option: str, there: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    strangers = [name for name in wanted if name not in there]
    if strangers:
        raise InputError(f"{option} {strangers[0]}: not in this suite; there are: {', '.join(there)}")
    return tuple(name for name in there if not wanted or name in wanted)


RATIOS = (0.25, 0.5, 1.0, 2.0)
PROMPTS = (0.25, 0.5, 0.75, 1.0, 1.5)
_REPLAY = tuple(name for name in SETS if name.endswith("medium-replay"))

SUITES: dict[str, Suite] = {
    "table1": Suite(tuple(SETS), tuple(Variant(algo, algo) for algo in get_args(Algo))),
    "fig2": Suite(
        ("walker2d-medium-replay",),
        (
            *(Variant(f"mpc-{ratio:g}", overrides={"augment.augment_ratio": ratio}) for ratio in RATIOS),
            *(
                Variant(f"greedy-{ratio:g}", "ipd", ("greedy",), {"augment.augment_ratio": ratio})
                for ratio in RATIOS
            ),
            Variant("none", ablations=("no-augmentation",)),
        ),
    ),
    "fig3": Suite(
        ("halfcheetah-medium-replay",),
        (Variant("hindsight", ablations=("hindsight",), overrides={"evaluate.prompts": PROMPTS}),),
    ),
    "ablations": Suite(_REPLAY, (Variant("ipd"), *(Variant(name, ablations=(name,)) for name in ABLATIONS))),
}
"""`table1`: the paper's main table. `fig2`: imagined steps for each logged one, with MPC and greedily.
`fig3`: V against fixed returns as prompts. `ablations`: the method, and each part of it changed."""
