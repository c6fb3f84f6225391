"""LeRobot's folders, v2.1 (a file an episode) and v3 (files of many), as a table. Needs pyarrow."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipd.data.columnmap import ColumnMap, read_map, require_columns
from ipd.data.columns import Storage
from ipd.data.episodes import DataError, Episodes
from ipd.data.findings import Finding
from ipd.data.parquet import open_parquet
from ipd.data.tables import Table, found_in


def is_lerobot(folder: Path) -> bool:
    """Whether the folder is one of LeRobot."""
    return (folder / "meta" / "info.json").is_file()


def read_lerobot(
    folder: Path, source: str, task: str | None, storage: Storage | None, columns: str | None
) -> Episodes:
    """All numeric ``observation.*`` features, ``action`` and ``next.reward``; images are left out.

    A map given in ``columns`` counts instead. Raises DataError where there is no reward.
    """
    info = json.loads((folder / "meta" / "info.json").read_text())
    version, features = str(info.get("codebase_version", "")), info.get("features")
    if not version.startswith(("v2", "v3")) or not isinstance(features, dict):
        message = f"is of LeRobot {version or 'of no version'}, v2.1 and v3 are read"
        raise DataError(message, file=source, key="codebase_version", cure="convert it with lerobot itself")
    paths = [*folder.glob("data/chunk-*/episode_*.parquet"), *folder.glob("data/chunk-*/file-*.parquet")]
    if not paths:
        cure = "fetch the set again, with its data folder"
        raise DataError("has no data/chunk-*/*.parquet", file=source, cure=cure)
    paths.sort(
        key=lambda path: [int(number) for number in re.findall(r"\d+", f"{path.parent.name} {path.stem}")]
    )
    table = open_parquet(paths, source)
    chosen, remarks = _chosen(table, features, source) if columns is None else (read_map(Path(columns)), [])
    require_columns(chosen, table.present, source)
    promised = info.get("total_frames")
    if promised is not None and promised != table.rows:
        remarks.append(
            f"{table.rows} steps are here, meta/info.json says {promised}: some files may be missing"
        )
    names = tuple(_names(table, features, used) for used in (chosen.observations, chosen.actions))
    found = found_in(table, chosen, (names[0], names[1]), source, task, tuple(remarks))
    episodes = Episodes.from_found(found, storage)
    guessed = columns is None and chosen.terminated == "next.done" and chosen.truncated is None
    return dataclasses.replace(episodes, doubts=(*episodes.doubts, *_done(episodes))) if guessed else episodes


def _chosen(table: Table, features: Mapping[str, Any], source: str) -> tuple[ColumnMap, list[str]]:
    seen = [name for name in features if name == "observation" or name.startswith("observation.")]
    numeric = tuple(name for name in seen if name in table.present and not _is_image(features[name]))
    if not numeric:
        cure = "record observation.state, or name columns of the data in a map (--columns)"
        raise DataError("is missing", file=source, key="observation.state", cure=cure)
    if "next.reward" not in table.present:
        cure = "add the reward of each step as a column, or name one that is there in a map (--columns)"
        raise DataError("is missing", file=source, key="next.reward", cure=cure)
    remarks = []
    images = [name for name in seen if name not in numeric]
    if images:
        remarks.append(f"images are not read: {', '.join(images)}")

    def present(*names: str) -> str | None:
        return next((name for name in names if name in table.present), None)

    chosen = ColumnMap(
        observations=numeric,
        actions=("action",),
        reward="next.reward",
        terminated=present("next.terminated", "next.done"),
        truncated=present("next.truncated"),
        episode="episode_index",
        time=present("timestamp", "frame_index"),
    )
    return chosen, remarks


def _done(episodes: Episodes) -> list[Finding]:
    """Where `next.done` was taken for the task's end, which LeRobot often writes at any end."""
    ended = int(episodes.terminated[episodes.starts[1:] - 1].sum())
    if not ended:
        return []
    which = (
        "every episode" if ended == episodes.num_episodes else f"{ended} of {episodes.num_episodes} episodes"
    )
    message = f"taken for the task's end, in {which}: values do not look past it"
    cure = (
        "right if the task ended there; if only the recording did, give a map (--columns) that names another "
        "column, or none, under terminated"
    )
    return [Finding("ends", "warning", "next.done", message, cure)]


def _is_image(feature: Any) -> bool:
    return (
        not isinstance(feature, dict)
        or feature.get("dtype") in ("image", "video")
        or len(feature.get("shape", ())) > 1
    )


def _names(table: Table, features: Mapping[str, Any], columns: tuple[str, ...]) -> list[str]:
    """Of all dimensions, as meta/info.json has them; features that do not name theirs count them."""
    found = []
    for column in columns:
        width = table.widths.get(column, 1)
        said = _flat(features.get(column, {}).get("names"))
        short = column.removeprefix("observation.")
        if len(said) == width:
            found += [f"{short}/{name}" for name in said] if len(columns) > 1 else said
        else:
            found += [f"{short}/{number}" for number in range(width)]
    return found if len(set(found)) == len(found) else []


def _flat(names: Any) -> list[str]:
    if isinstance(names, dict):
        return [name for part in names.values() for name in _flat(part)]
    return [str(name) for name in names] if isinstance(names, list) else []
