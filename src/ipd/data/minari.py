"""Minari's folders, read with h5py alone: ``data/main_data.hdf5`` and ``data/metadata.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipd.data.assembly import Entry, Found
from ipd.data.columns import Storage
from ipd.data.episodes import DataError, Episodes
from ipd.data.hdf5 import array, member

MAIN, METADATA = "main_data.hdf5", "metadata.json"
KITCHEN = "FrankaKitchen-v1"
DEEPEST = 8
"""Groups inside each other in a space."""


class Leaf(NamedTuple):
    """An array of a space: its path below the episode's observations, and its dimensions."""

    path: str
    width: int


def is_minari(folder: Path) -> bool:
    """Whether the folder, or ``data`` in it, holds a set of Minari."""
    return _data(folder) is not None


def find_minari(source: str) -> Path:
    """The folder of ``minari:ID`` where Minari keeps its sets. Raises DataError where it is not there."""
    name = source.removeprefix("minari:")
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")
    folder = root / name
    if not name or ".." in Path(name).parts or not folder.is_dir():
        cure = f"fetch it with `minari download {name or 'ID'}`, or set MINARI_DATASETS_PATH"
        raise DataError(f"is not in {root}", file=source, cure=cure)
    return folder


def _data(folder: Path) -> Path | None:
    found = (
        path for path in (folder / "data", folder) if (path / METADATA).is_file() or (path / MAIN).is_file()
    )
    return next(found, None)


def read_minari(folder: Path, source: str, task: str | None, storage: Storage | None) -> Episodes:
    """Spaces of dictionaries are flattened in the order of their sorted keys, which name the dimensions.

    Raises DataError where spaces are not of numbers, or an episode lacks its last observation.
    """
    import h5py

    data = _data(folder) or folder
    about = _about(data)
    if about.get("data_format", "hdf5") != "hdf5" or not (data / MAIN).is_file():
        cure = "write it as hdf5 with minari, or fetch it again"
        raise DataError(f"has no {MAIN} (data_format {about.get('data_format')})", file=source, cure=cure)
    with h5py.File(data / MAIN, "r") as file:
        groups = sorted(
            (name for name in file if name.removeprefix("episode_").isdigit()),
            key=lambda name: int(name.removeprefix("episode_")),
        )
        if not groups:
            raise DataError("zero episodes", file=source, cure="record at least one step")
        lengths = np.array([len(array(file, f"{name}/rewards", source)) for name in groups], np.int64)
        if not lengths.all():
            name = groups[int(np.flatnonzero(lengths == 0)[0])]
            raise DataError("has no step", file=source, key=name, cure="leave the episode out")
        reader = _Reader(file, groups, lengths, source)
        leaves = {key: reader.leaves(key) for key in ("observations", "actions")}
        entries = {key: reader.entry(key, found, 0) for key, found in leaves.items()}
        entries["next_observations"] = reader.entry("observations", leaves["observations"], 1)
        for key, name in (("rewards", "rewards"), ("terminals", "terminations"), ("timeouts", "truncations")):
            entries[key] = reader.flat(name)
        if all("unlogged_next" in file[name].get("infos", ()) for name in groups):
            entries["unlogged_next"] = reader.flat("infos/unlogged_next")
        entries["lengths"] = Entry(lengths.shape, lengths.dtype, lambda rows: lengths[rows])
        names = [about.get(f"{key[:-1]}_names") or _names(leaves[key]) for key in ("observations", "actions")]
        keys = {"terminals": "terminations", "timeouts": "truncations"}
        stored = (data / MAIN).stat().st_size
        found = Found(entries, source, task or _word(about)[0], stored, names[0], names[1], keys)
        return Episodes.from_found(found, storage)


def recorded(folder: Path) -> tuple[str | None, dict[str, Any]]:
    """The task that a set was recorded in, by its own word, and the options that it was made with.

    Options are those of ``gymnasium.make``, the steps of an episode and the wrappers among them.
    """
    return _word(_about(_data(folder) or folder))


def _word(about: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    try:
        spec = json.loads(about["env_spec"])
        options, id = dict(spec.get("kwargs") or {}), str(spec["id"])
        wrappers = [str(each["name"]) for each in spec.get("additional_wrappers") or ()]
    except (LookupError, TypeError, ValueError, AttributeError):  # a damaged word spoils no steps
        return about.get("task"), {}
    if id == KITCHEN and "tasks_to_complete" in options:
        id = f"{KITCHEN}:{','.join(map(str, options['tasks_to_complete']))}"
    options.pop("render_mode", None)
    if spec.get("max_episode_steps"):
        options["max_episode_steps"] = spec["max_episode_steps"]
    return id, options | ({"wrappers": wrappers} if wrappers else {})


def _about(data: Path) -> dict[str, Any]:
    path = data / METADATA
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _names(leaves: Sequence[Leaf]) -> list[str]:
    """``goal/0``, ``goal/1``, ...; none where the space has no keys."""
    return [f"{leaf.path}/{number}" for leaf in leaves if leaf.path for number in range(leaf.width)]


class _Reader:
    """Rows of all episodes as if they were one array."""

    def __init__(self, file: Any, groups: Sequence[str], lengths: npt.NDArray[np.int64], source: str) -> None:
        self.file, self.groups, self.source = file, groups, source
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    def leaves(self, key: str) -> list[Leaf]:
        """The arrays of a space, by sorted keys; of the first episode, which the others must equal."""
        found: list[Leaf] = []

        def walk(node: Any, path: str) -> None:
            if hasattr(node, "keys"):
                if path.count("/") > DEEPEST:
                    message = f"has more than {DEEPEST} groups inside each other"
                    raise DataError(message, file=self.source, key=key, cure="flatten the space")
                for name in sorted(node):
                    walk(member(node, name, self.source), f"{path}/{name}" if path else name)
                return
            discrete = node.ndim == 1 and key == "actions"
            if node.ndim > 2 or node.dtype.kind not in "biuf" or discrete:
                kind = "discrete" if discrete else f"of {node.dtype} and shape {node.shape[1:]}"
                cure = "only vectors of numbers can be learned from"
                raise DataError(f"is {kind}", file=self.source, key=f"{key}/{path}".rstrip("/"), cure=cure)
            found.append(Leaf(path, node.shape[1] if node.ndim == 2 else 1))

        walk(member(self.file, f"{self.groups[0]}/{key}", self.source), "")
        return found

    def entry(self, key: str, leaves: Sequence[Leaf], shift: int) -> Entry:
        """(N, size); with ``shift`` 1 what follows each step."""
        extra = 1 if key == "observations" else 0

        def episode(number: int) -> npt.NDArray[Any]:
            length = int(self.starts[number + 1] - self.starts[number])
            parts = []
            for leaf in leaves:
                where = f"{self.groups[number]}/{key}" + (f"/{leaf.path}" if leaf.path else "")
                part = array(self.file, where, self.source)
                if len(part) != length + extra or (part.shape[1] if part.ndim == 2 else 1) != leaf.width:
                    message = f"has shape {part.shape}, expected ({length + extra}, {leaf.width})"
                    cure = "store one observation more than steps" if extra else "store one action a step"
                    raise DataError(message, file=self.source, key=where, cure=cure)
                parts.append(part[shift : shift + length].reshape(length, leaf.width))
            return np.concatenate(parts, axis=1)

        size = sum(leaf.width for leaf in leaves)
        return Entry((int(self.starts[-1]), size), np.dtype(np.float64), self._rows(episode))

    def flat(self, name: str) -> Entry:
        """(N,) of one number a step."""

        def episode(number: int) -> npt.NDArray[Any]:
            where = f"{self.groups[number]}/{name}"
            part, length = array(self.file, where, self.source), self.starts[number + 1] - self.starts[number]
            if part.shape != (length,):
                message = f"has shape {part.shape}, expected ({length},)"
                raise DataError(message, file=self.source, key=where, cure="store one number a step")
            return np.asarray(part[:])

        dtype = array(self.file, f"{self.groups[0]}/{name}", self.source).dtype
        return Entry((int(self.starts[-1]),), dtype, self._rows(episode))

    def _rows(self, episode: Callable[[int], npt.NDArray[Any]]) -> Callable[[slice], npt.NDArray[Any]]:
        last = lru_cache(maxsize=1)(episode)  # a piece often ends inside an episode

        def read(piece: slice) -> npt.NDArray[Any]:
            start, stop, _ = piece.indices(int(self.starts[-1]))
            first, end = np.searchsorted(self.starts, [start, stop - 1], "right") - 1
            parts = [
                last(number)[max(start - self.starts[number], 0) : stop - self.starts[number]]
                for number in range(int(first), int(end) + 1)
            ]
            return np.concatenate(parts)

        return read
