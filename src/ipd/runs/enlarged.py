"""A dataset of logged and imagined steps, for learners that know nothing of this software."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from ipd.data.columns import pieces
from ipd.data.convert import HDF5, attributes
from ipd.runs import augmented, files
from ipd.runs.context import Run


class Enlarged(NamedTuple):
    """What was written."""

    logged: int
    """Steps."""
    imagined: int


def write(run: Run, seed: int, path: Path) -> Enlarged:
    """D4RL HDF5 at `path`: the logged episodes, and behind them the seed's imagined segments as episodes.

    A segment that ends without a termination is truncated: values bootstrap through its end. `imagined` (N,)
    tells which steps are. Logged units; rewards are the model's own. Written whole or not at all.
    """
    episodes, first = run.episodes, run.episodes.num_steps
    with (
        augmented.opened(run) as source,
        files.replacing(path) as partial,
        h5py.File(partial, "w") as out,
    ):
        group = source[f"seed-{seed}"]
        total = first + len(group["rewards"])
        attributes(dataclasses.replace(episodes, task=run.job.task), out)
        for key, field in HDF5.items():
            logged = getattr(episodes, field)
            if logged is None:  # every next observation is stored
                continue
            column = out.create_dataset(
                key, (total, *logged.shape[1:]), logged.dtype, chunks=(min(1_024, total), *logged.shape[1:]),
                compression="gzip", compression_opts=4, shuffle=True, track_times=False,
            )  # fmt: skip
            for piece in pieces(first):
                column[piece] = logged[piece]
            # what follows an imagined step is always known
            for piece in pieces(total - first) if key in group else ():
                column[first + piece.start : first + piece.stop] = group[key][piece]
        out.create_dataset("imagined", data=np.arange(total) >= first, compression="gzip", track_times=False)
    return Enlarged(first, total - first)
