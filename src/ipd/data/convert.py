"""Episodes written as a D4RL HDF5 file, a folder of Minari or a Parquet table, block by block.

Each is read back as the same episodes: steps, ends, next observations and names of dimensions. A
target is there whole or not at all, and one that exists is never written over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipd.data.atomic import replacing
from ipd.data.columns import pieces
from ipd.data.episodes import DataError, Episodes
from ipd.data.minari import MAIN, METADATA
from ipd.data.parquet import pyarrow

MINARI_VERSION = "0.5.0"
"""The layout that is written; later versions of minari read it too."""
HDF5 = {
    "observations": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "next_observations": "next_observations",
    "terminals": "terminated",
    "timeouts": "truncated",
    "unlogged_next": "unlogged_next",
}
"""D4RL's key -> field of ``Episodes``."""


def convert(episodes: Episodes, target: str | Path) -> Path:
    """Writes ``episodes`` to a ``.hdf5`` or ``.parquet`` file, or, without a suffix, a folder of Minari.

    Raises DataError where the target exists or cannot hold them; OSError where the disk is full.
    """
    path = Path(target)
    writers = {".hdf5": to_hdf5, ".h5": to_hdf5, ".parquet": to_parquet, "": to_minari}
    if path.suffix.lower() not in writers:
        cure = "write a .hdf5 or .parquet file, or a folder of Minari, whose name has no dot"
        raise DataError(f"'{path.suffix}' is not written", file=str(path), cure=cure)
    if path.exists():
        raise DataError("exists", file=str(path), cure="delete it, or name another target")
    writers[path.suffix.lower()](episodes, path)
    return path


def to_hdf5(episodes: Episodes, path: Path) -> None:
    """D4RL's keys; task and names of dimensions (JSON lists) as attributes."""
    import h5py

    with replacing(path) as partial, h5py.File(partial, "w") as file:
        attributes(episodes, file)
        if _discontinuous(episodes) is not None:  # read without lengths, each such row would end an episode
            file["lengths"] = episodes.lengths
        for key, field in HDF5.items():
            array = getattr(episodes, field)
            if array is None:
                continue
            # One chunk a column: bytes of one quantity pack best together.
            chunks = (min(len(array), 2**16), *(1 for _ in array.shape[1:]))
            more: dict[str, Any] = {"chunks": chunks, "compression": "gzip", "shuffle": True}
            written = file.create_dataset(key, array.shape, array.dtype, **more)
            for piece in pieces(len(array)):
                written[piece] = array[piece]


def attributes(episodes: Episodes, file: Any) -> None:
    """Task and names of dimensions, as far as they are known, in an HDF5 file."""
    if episodes.task:
        file.attrs["task"] = episodes.task
    for name in ("observation_names", "action_names"):
        if getattr(episodes, name):
            file.attrs[name] = json.dumps(getattr(episodes, name))


def to_parquet(episodes: Episodes, path: Path) -> None:
    """A column a dimension, named as ``infer`` of ``ipd.data.columnmap`` expects; row groups of a piece."""
    arrow = pyarrow(episodes.source)
    columns = _columns(episodes)
    names = [name for name, _, _ in columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError("is the name of two dimensions", file=episodes.source, key=twice, cure="rename one")
    types = {np.dtype(np.float32): arrow.float32(), np.dtype(np.float64): arrow.float64()}
    types |= {np.dtype(np.int64): arrow.int64(), np.dtype(np.bool_): arrow.bool_()}
    about = {"task": episodes.task} if episodes.task else None
    schema = arrow.schema([(name, types[array.dtype]) for name, array, _ in columns], metadata=about)
    with replacing(path) as partial, arrow.parquet.ParquetWriter(partial, schema) as writer:
        for piece in pieces(episodes.num_steps):
            block = [
                np.ascontiguousarray(array[piece] if number is None else array[piece, number])
                for _, array, number in columns
            ]
            writer.write_table(
                arrow.Table.from_arrays([arrow.array(values) for values in block], schema=schema)
            )


def _columns(episodes: Episodes) -> list[tuple[str, npt.NDArray[Any], int | None]]:
    """Name, array and dimension of each column."""

    def several(prefix: str, array: npt.NDArray[Any], names: tuple[str, ...]) -> list[Any]:
        plain = names or tuple(str(number) for number in range(array.shape[1]))
        return [(f"{prefix}.{name}", array, number) for number, name in enumerate(plain)]

    single = {
        "reward": episodes.rewards,
        "terminated": episodes.terminated,
        "truncated": episodes.truncated,
        "episode": episodes.episode_index,
        "time": episodes.times,
        "unlogged_next": episodes.unlogged_next,
    }
    return [
        *several("observation", episodes.observations, episodes.observation_names),
        *several("action", episodes.actions, episodes.action_names),
        *several("next_observation", episodes.next_observations, episodes.observation_names),
        *((name, array, None) for name, array in single.items() if array is not None),
    ]


def to_minari(episodes: Episodes, path: Path) -> None:
    """A folder that ``minari.MinariDataset(path / "data")`` opens; observations are one Box.

    Raises DataError where a next observation inside an episode is not the observation that follows,
    which Minari cannot say.
    """
    import h5py

    row = _discontinuous(episodes)
    if row is not None:
        message = "is not bit for bit the observation of the next step, and Minari keeps only that"
        cure = "write a .hdf5 or .parquet file"
        raise DataError(message, file=episodes.source, key="next_observations", row=row, cure=cure)
    with replacing(path) as partial:
        (partial / "data").mkdir(parents=True)
        with h5py.File(partial / "data" / MAIN, "w", track_order=True) as file:
            for number, (start, stop) in enumerate(
                zip(episodes.starts[:-1], episodes.starts[1:], strict=True)
            ):
                group, rows = file.create_group(f"episode_{number}"), slice(int(start), int(stop))
                group.attrs["id"], group.attrs["total_steps"] = number, int(stop - start)
                last = episodes.next_observations[int(stop) - 1 : int(stop)]
                group["observations"] = np.concatenate([episodes.observations[rows], last])
                group["actions"], group["rewards"] = episodes.actions[rows], episodes.rewards[rows]
                group["terminations"], group["truncations"] = (
                    episodes.terminated[rows],
                    episodes.truncated[rows],
                )
                if episodes.unlogged_next is not None:
                    group["infos/unlogged_next"] = episodes.unlogged_next[rows]
        size = (partial / "data" / MAIN).stat().st_size
        about = json.dumps(_metadata(episodes, path, size), indent=1)
        (partial / "data" / METADATA).write_text(about + "\n")


def _metadata(episodes: Episodes, path: Path, size: int) -> dict[str, Any]:
    def box(low: list[float], high: list[float]) -> str:
        return json.dumps({"type": "Box", "dtype": "float32", "shape": [len(low)], "low": low, "high": high})

    low, high = episodes.actions.min(0), episodes.actions.max(0)
    unit = bool((low >= -1).all() and (high <= 1).all())
    bounds = (np.full_like(low, -1), np.ones_like(high)) if unit else (low, high)
    endless = [np.inf] * episodes.observation_size
    name = (
        path.name
        if path.name[path.name.rfind("-v") + 2 :].isdigit() and "-v" in path.name
        else f"{path.name}-v0"
    )
    return {
        "dataset_id": name,
        "total_episodes": episodes.num_episodes,
        "total_steps": episodes.num_steps,
        "data_format": "hdf5",
        "dataset_size": round(size / 2**20, 1),
        "observation_space": box([-value for value in endless], endless),
        "action_space": box(bounds[0].tolist(), bounds[1].tolist()),
        "minari_version": MINARI_VERSION,
        **({"task": episodes.task} if episodes.task else {}),
        **({"observation_names": list(episodes.observation_names)} if episodes.observation_names else {}),
        **({"action_names": list(episodes.action_names)} if episodes.action_names else {}),
    }


def _discontinuous(episodes: Episodes) -> int | None:
    """The first row inside an episode whose next observation is not bit for bit the next row's."""
    inside = np.ones(episodes.num_steps, np.bool_)
    inside[episodes.starts[1:] - 1] = False
    for piece in pieces(episodes.num_steps - 1):
        follows = episodes.observations[1:][piece]
        wrong = (follows.view(np.uint32) != episodes.next_observations[:-1][piece].view(np.uint32)).any(1)
        rows = np.flatnonzero(wrong & inside[:-1][piece])
        if len(rows):
            return piece.start + int(rows[0])
    return None
