"""Pack a dataset into the bundled form: the same episodes, bit for bit, in half the bytes.

    python bench/pack_bundle.py FULL.hdf5 src/ipd/data/bundled/hopper-medium-replay.hdf5 --task Hopper-v4

``next_observations`` would repeat ``observations`` one row on; only those after each episode's last
step are stored, as ``final_observations`` (E, obs). Everything else has D4RL's plain keys. At 6 MB
the whole Hopper set fits, so no episode need be left out. What the full file says of itself
(`ipd collect` writes task, versions, seed and scores) is kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import h5py

from ipd.data.sources import load


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("full", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", help="Gymnasium id the data were recorded in, where the file has none")
    arguments = parser.parse_args()
    episodes = load(str(arguments.full))
    arrays = {
        "observations": episodes.observations,
        "actions": episodes.actions,
        "rewards": episodes.rewards,
        "terminals": episodes.terminated,
        "timeouts": episodes.truncated,
        "final_observations": episodes.next_observations[episodes.starts[1:] - 1],
    }
    attributes = {"mujoco": "not recorded"}
    with h5py.File(arguments.full) as full:
        attributes |= full.attrs
    attributes |= {
        "source": f"every episode of {arguments.full.name}",
        "note": "regenerated, not D4RL",
        "tool": "bench/pack_bundle.py",
        "digest": episodes.digest,
    }
    if arguments.task or not episodes.task:
        attributes["task"] = arguments.task or parser.error("the file does not say its task: give --task")
    with h5py.File(arguments.out, "w", track_order=True) as file:
        file.attrs.update(attributes)
        for name, array in arrays.items():
            # One chunk a column: bytes of one quantity pack best together.
            chunks = (len(array), *(1 for _ in array.shape[1:]))
            file.create_dataset(
                name, data=array, chunks=chunks, compression="gzip", compression_opts=9, shuffle=True
            )
    if load(str(arguments.out)).digest != episodes.digest:
        raise SystemExit(f"{arguments.out} does not read back as what was written")
    size = arguments.out.stat().st_size
    print(f"{episodes.num_steps} steps, {episodes.num_episodes} episodes, {size:,} bytes")


if __name__ == "__main__":
    main()
