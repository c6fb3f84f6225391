"""Tables with a row a step, whose columns a map names: what Parquet, CSV and LeRobot have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipd.data.assembly import Entry, Found
from ipd.data.columnmap import ColumnMap
from ipd.data.columns import IntArray, pieces
from ipd.data.errors import DataError

DoubleArray = npt.NDArray[np.float64]
KEYS = {
    "rewards": "reward",
    "terminals": "terminated",
    "timeouts": "truncated",
    "times": "time",
    "unlogged_next": "unlogged_next",
}
"""D4RL's key -> field of the map, for columns of one number a row."""


class Table(NamedTuple):
    """A table that was opened, its rows not read yet."""

    present: Sequence[str]
    """Its columns."""
    rows: int
    widths: Mapping[str, int]
    """Columns of lists and how long these are; all others hold one number a row."""
    numbers: Callable[[Sequence[str], slice], DoubleArray]
    """Some columns of some rows: (rows, sum of widths)."""
    labels: Callable[[str, slice], npt.NDArray[Any]]
    """A column of some rows, of any type that can be compared."""
    stored: int | None = None
    """Bytes of its files where they are packed."""


def found_in(
    table: Table,
    columns: ColumnMap,
    names: tuple[Sequence[str], Sequence[str]],
    source: str,
    task: str | None = None,
    remarks: tuple[str, ...] = (),
) -> Found:
    """What ``columns`` name in ``table``. Raises DataError where nothing marks the ends of episodes."""
    if not (columns.terminated or columns.episode):
        cure = "give the map a column terminated (all 0 if the task never ends) or episode"
        raise DataError("is missing", file=source, key="terminated", cure=cure)

    def several(chosen: Sequence[str]) -> Entry:
        width = sum(table.widths.get(name, 1) for name in chosen)
        return Entry((table.rows, width), np.dtype(float), lambda rows: table.numbers(chosen, rows))

    entries = {"observations": several(columns.observations), "actions": several(columns.actions)}
    if columns.next_observations:
        entries["next_observations"] = several(columns.next_observations)
    keys = {}
    for key, field in KEYS.items():
        name = getattr(columns, field)
        if name is not None:
            entries[key], keys[key] = _single(table, name, source), name
    if columns.episode is not None and table.rows:
        lengths = _lengths(table, columns.episode, source)
        entries["lengths"] = Entry(lengths.shape, lengths.dtype, lambda rows: lengths[rows])
    used = set(columns.used())
    plain = columns.to_plain() | {"unused": [name for name in table.present if name not in used]}
    wide = [_wide(table, *pair) for pair in zip((columns.observations, columns.actions), names, strict=True)]
    return Found(entries, source, task, table.stored, wide[0], wide[1], keys, plain, remarks)


def _single(table: Table, name: str, source: str) -> Entry:
    if name in table.widths:
        raise DataError(
            "holds lists, not one number a row", file=source, key=name, cure="name another column"
        )
    return Entry((table.rows,), np.dtype(float), lambda rows: table.numbers([name], rows)[:, 0])


def _wide(table: Table, chosen: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    """Names of dimensions, of which a column of lists has several; none where it is the only column."""
    if len(names) != len(chosen) or not set(chosen) & set(table.widths):
        return names
    if len(chosen) == 1:
        return ()
    spread = [
        [f"{name}/{number}" for number in range(table.widths[column])] if column in table.widths else [name]
        for column, name in zip(chosen, names, strict=True)
    ]
    return [name for part in spread for name in part]


def _lengths(table: Table, name: str, source: str) -> IntArray:
    """Steps of each episode: rows with the same label, which must lie together."""
    starts, seen, before = [], set(), None
    for piece in pieces(table.rows):
        labels = table.labels(name, piece)
        changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
        first = [0] if before is None or labels[0] != before else []
        for place in [*first, *changes.tolist()]:
            label = labels[place]
            label = label.item() if isinstance(label, np.generic) else label
            row = piece.start + place
            if label is None or label != label or label == "":
                raise DataError("is empty", file=source, key=name, row=row, cure="give each row its episode")
            if label in seen:
                message = f"episode {label} goes on after another one"
                raise DataError(
                    message, file=source, key=name, row=row, cure="sort the rows by episode and time"
                )
            seen.add(label)
            starts.append(row)
        before = labels[-1]
    return np.diff([*starts, table.rows]).astype(np.int64)
