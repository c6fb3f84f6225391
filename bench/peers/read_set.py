"""Read a D4RL HDF5 file with d3rlpy, as someone who never heard of `ipd` would, and learn from it a little.

    .venv-peers/bin/python bench/peers/read_set.py more.hdf5 --updates 3

Prints one line of JSON: what d3rlpy holds, and the last losses of its IQL. Needs h5py and d3rlpy alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import d3rlpy
import h5py
from d3rlpy.algos import IQLConfig
from d3rlpy.constants import ActionSpace
from d3rlpy.dataset import MDPDataset


def read(path: Path) -> MDPDataset:
    """The steps of a file as d3rlpy's own example of an `MDPDataset` takes them.

    d3rlpy refuses a step that both terminates and is cut; it takes a step's next observation from the row
    below, so the last step of a truncated episode is not drawn (`dataset` in d3rlpy_run.py keeps it).
    """
    with h5py.File(path) as file:
        terminals, timeouts = file["terminals"][()], file["timeouts"][()]
        return MDPDataset(
            observations=file["observations"][()],
            actions=file["actions"][()],
            rewards=file["rewards"][()],
            terminals=terminals.astype("float32"),
            timeouts=(timeouts & ~terminals).astype("float32"),
            action_space=ActionSpace.CONTINUOUS,
            action_size=file["actions"].shape[1],
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads, learns, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--updates", type=int, default=3)
    chosen = parser.parse_args(arguments)
    data = read(chosen.data)
    learner = IQLConfig(batch_size=64).create(device="cpu:0")
    learner.build_with_dataset(data)
    losses = [learner.update(data.sample_transition_batch(64)) for _ in range(chosen.updates)]
    told = {
        "version": d3rlpy.__version__,
        "episodes": data.size(),
        "transitions": data.transition_count,
        "lengths": [episode.size() for episode in data.episodes],
        "terminated": [bool(episode.terminated) for episode in data.episodes],
        "returns": [float(episode.rewards.sum()) for episode in data.episodes],
        "losses": {name: float(value) for name, value in losses[-1].items()} if losses else {},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
