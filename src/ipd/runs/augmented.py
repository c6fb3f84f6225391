"""augmented.hdf5: written batch by batch, so that memory does not grow with the segments; read whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from ipd.data.columns import column, pieces
from ipd.data.hdf5 import require_own
from ipd.runs import files
from ipd.runs.context import Run
from ipd.runs.errors import InputError
from ipd.types import Segment, Steps

NAME = "augmented.hdf5"
STEP_KEYS = ("observations", "actions", "rewards", "next_observations")
CHUNK = 1_024
"""Rows that are packed together."""


class Writer:
    """One seed's group: D4RL keys in logged units, one row a valid step; `provenance`, one row a segment."""

    def __init__(self, run: Run, file: Any, seed: int):
        self._run, self._group = run, file.create_group(f"seed-{seed}")
        observation, action = (run.spec.observation_size,), (run.spec.action_size,)
        shapes = {"observations": observation, "actions": action, "next_observations": observation}
        steps = dict.fromkeys((*STEP_KEYS, "uncertainty"), np.float32) | {"terminals": bool, "timeouts": bool}
        values = ("mean_uncertainty", "max_uncertainty", "imagined_return", "real_return")
        whole = ("row", "episode", "step", "length", "place")
        told = dict.fromkeys(whole, np.int64) | dict.fromkeys(values, np.float32)
        for name, kind in (steps | {f"provenance/{name}": kind for name, kind in told.items()}).items():
            shape = shapes.get(name, ())
            self._group.create_dataset(
                name, (0, *shape), kind, maxshape=(None, *shape), chunks=(CHUNK, *shape), compression="gzip",
                compression_opts=4, shuffle=True, track_times=False,
            )  # fmt: skip

    def add(
        self,
        rows: NDArray[np.int64],
        places: NDArray[np.int64],
        segments: Segment,
        imagined: NDArray[np.float32],
        real: NDArray[np.float32],
    ) -> None:
        """Segments in learner's units, each of one step at least, and what was expected of their rows.

        `places` are those of the rows among the chosen ones, on which the noise of their plans depends.
        """
        if not len(rows):
            return
        run, normaliser = self._run, self._run.normaliser
        valid = np.asarray(segments.valid)
        flat = {name: np.asarray(getattr(segments, name))[valid]
                for name in (*STEP_KEYS, "terminated", "uncertainty")}  # fmt: skip
        lengths = valid.sum(axis=1)
        first = np.cumsum(lengths) - lengths
        terminals = flat["terminated"] > 0.5
        ends = np.zeros(len(terminals), bool)
        ends[np.cumsum(lengths) - 1] = True
        std, mean = normaliser.observation_std, normaliser.observation_mean
        self._append({
            "observations": flat["observations"] * std + mean,
            "actions": normaliser.raw_actions(flat["actions"]),
            "rewards": flat["rewards"] / normaliser.reward_scale,
            "next_observations": flat["next_observations"] * std + mean,
            "terminals": terminals,
            "timeouts": ends & ~terminals,
            "uncertainty": flat["uncertainty"],
            "provenance/row": rows,
            "provenance/episode": run.episodes.episode_index[rows],
            "provenance/step": run.episodes.timesteps[rows],
            "provenance/length": lengths,
            "provenance/place": places,
            "provenance/mean_uncertainty": np.add.reduceat(flat["uncertainty"], first) / lengths,
            "provenance/max_uncertainty": np.maximum.reduceat(flat["uncertainty"], first),
            "provenance/imagined_return": imagined,
            "provenance/real_return": real,
        })  # fmt: skip

    def _append(self, columns: dict[str, NDArray[Any]]) -> None:
        for name, values in columns.items():
            dataset = self._group[name]
            dataset.resize(len(dataset) + len(values), axis=0)
            dataset[-len(values) :] = values


@contextmanager
def opened(run: Run) -> Iterator[Any]:
    """The file, to be read. Raises `InputError` or DataError where it is not what `augment` left."""
    path = run.folder / NAME
    run.verify(path, "augment")
    cure = f"restore it, or delete {run.stage_folder('augment')} and run the same `ipd train` again"
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); {cure}") from error
    with file, files.understood(path):
        require_own(file, str(path))
        yield file


class Imagined(NamedTuple):
    """One seed's imagined steps in learner's units, NumPy, one segment after another."""

    steps: Steps
    uncertainty: NDArray[np.float32]
    starts: NDArray[np.int64]
    """Row of each segment's first step, then the number of rows."""
    source: NDArray[np.int64]
    """Logged row that each segment starts from."""


def read_steps(run: Run, seed: int) -> Imagined:
    """What one seed imagined; on disk where the run's data are.

    The file keeps the model's own rewards; here the scaled ones are less ``uncertainty_penalty`` times U
    (as in MOPO, Yu et al. 2020): what the model is unsure of should not look better than what was
    logged. U has the unit of ``world.uncertainty``, so each kind asks for a penalty of its own.
    """
    penalty, normaliser = run.config.augment.uncertainty_penalty, run.normaliser
    scaled = {"observations": normaliser.observations, "next_observations": normaliser.observations,
              "actions": normaliser.actions, "rewards": normaliser.rewards}  # fmt: skip
    with opened(run) as file:
        group = file[f"seed-{seed}"]
        found = {name: column(group[name].shape, np.float32, run.disk) for name in scaled}
        for name, scale in scaled.items():
            for piece in pieces(len(found[name])):
                found[name][piece] = scale(group[name][piece])
        terminated, uncertainty = group["terminals"][()].astype(np.float32), group["uncertainty"][()]
        source, lengths = group["provenance/row"][()], group["provenance/length"][()]
    found["rewards"] -= penalty * uncertainty
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return Imagined(Steps(**found, terminated=terminated), uncertainty, starts, source)  # type: ignore[arg-type]


def read_segments(run: Run, seed: int) -> tuple[Segment, NDArray[np.int64]]:
    """The same as segments, padded, and the rows they start from."""
    found, time = read_steps(run, seed), run.config.augment.imagine_steps
    valid = np.arange(time) < np.diff(found.starts)[:, None]

    def padded(flat: NDArray[Any]) -> NDArray[Any]:
        full = column((*valid.shape, *flat.shape[1:]), np.float32, run.disk)
        for piece in pieces(len(full)):
            full[piece][valid[piece]] = flat[found.starts[piece.start] : found.starts[piece.stop]]
        return full

    steps: Any = map(padded, found.steps)  # type: ignore[arg-type]
    return Segment(*steps, uncertainty=padded(found.uncertainty), valid=valid), found.source  # type: ignore[arg-type, misc]


def read_gaps(run: Run, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows that one seed's segments start from, and imagined minus real return of each."""
    with opened(run) as file:
        told = file[f"seed-{seed}/provenance"]
        return told["row"][()], told["imagined_return"][()] - told["real_return"][()]
