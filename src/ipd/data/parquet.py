"""Parquet files as a table, one row group in memory at a time. Needs pyarrow (``ipd[data]``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipd.data.assembly import require_size
from ipd.data.columnmap import map_for
from ipd.data.columns import Storage
from ipd.data.episodes import DataError, Episodes
from ipd.data.tables import DoubleArray, Table, found_in

INSTALL = "pip install 'ipd[data]'"
SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
"""Ticks in it of a unit of time."""


def pyarrow(source: str) -> Any:
    """The module, with the parts in use loaded. Raises DataError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise DataError("Parquet needs pyarrow, which is not installed", file=source, cure=INSTALL) from error
    return pyarrow


def read_parquet(
    path: Path, source: str, task: str | None, storage: Storage | None, columns: str | None
) -> Episodes:
    """One file; a map of its columns is given, beside it or inferred."""
    table = open_parquet([path], source)
    chosen, names = map_for(path, columns, table.present, source)
    task = task or recorded_parquet(path, source)
    return Episodes.from_found(found_in(table, chosen, names, source, task), storage)


def recorded_parquet(path: Path, source: str) -> str | None:
    """The task that a file names in the metadata of its schema."""
    kept: Mapping[bytes, bytes] = pyarrow(source).parquet.read_schema(path).metadata or {}
    return kept[b"task"].decode() if b"task" in kept else None


def open_parquet(paths: Sequence[Path], source: str) -> Table:
    """Files of the same columns, one after another. Raises DataError where they differ."""
    arrow = pyarrow(source)
    if not all(path.is_file() for path in paths):
        raise DataError("is no plain file", file=str(paths[0]), cure="fetch the set again")
    stored = sum(path.stat().st_size for path in paths)
    schema = arrow.parquet.read_schema(paths[0])
    parts: list[tuple[Path, int]] = []
    rows: list[int] = []
    for path in paths:
        about = arrow.parquet.read_metadata(path)
        if about.schema.to_arrow_schema().names != schema.names:
            raise DataError(
                f"has other columns than {paths[0].name}", file=str(path), cure="fetch the set again"
            )
        for index in range(about.num_row_groups):
            # a group is unpacked whole, the lists in it too
            cells = [about.row_group(index).column(i).num_values for i in range(about.num_columns)]
            require_size(stored, 8 * max(cells, default=0), (max(cells, default=0),), source, path.name)
            if about.row_group(index).num_rows:
                parts.append((path, index))
                rows.append(about.row_group(index).num_rows)
    ahead = np.concatenate([[0], np.cumsum(rows, dtype=np.int64)])

    @lru_cache(maxsize=1)
    def group(number: int, chosen: tuple[str, ...]) -> Any:
        path, index = parts[number]
        with arrow.parquet.ParquetFile(path) as file:
            return file.read_row_group(index, columns=list(chosen), use_threads=False)

    def blocks(chosen: Sequence[str], piece: slice) -> Any:
        """The tables that together are ``piece``, each with the number of its first row."""
        start, stop, _ = piece.indices(int(ahead[-1]))
        first = int(np.searchsorted(ahead, start, "right")) - 1
        for number in range(first, len(parts)):
            low, high = max(start, int(ahead[number])), min(stop, int(ahead[number + 1]))
            if low >= high:
                return
            yield low, group(number, tuple(dict.fromkeys(chosen))).slice(low - int(ahead[number]), high - low)

    widths: dict[str, int] = {}
    for field in schema:
        if arrow.types.is_fixed_size_list(field.type):
            widths[field.name] = field.type.list_size
        elif rows and (arrow.types.is_list(field.type) or arrow.types.is_large_list(field.type)):
            lengths = [block.column(field.name)[0] for _, block in blocks([field.name], slice(0, 1))]
            widths[field.name] = len(lengths[0].as_py() or ())

    def numbers(chosen: Sequence[str], piece: slice) -> DoubleArray:
        made = [
            np.concatenate([_numbers(arrow, block, name, widths, source, row) for name in chosen], axis=1)
            for row, block in blocks(chosen, piece)
        ]
        return np.concatenate(made) if made else np.zeros((0, len(chosen)))

    def labels(name: str, piece: slice) -> npt.NDArray[Any]:
        found = [_labels(arrow, block.column(name)) for _, block in blocks([name], piece)]
        return np.concatenate(found)

    return Table(tuple(schema.names), int(ahead[-1]), widths, numbers, labels, stored)


def _numbers(
    arrow: Any, block: Any, name: str, widths: Mapping[str, int], source: str, row: int
) -> DoubleArray:
    """(rows, width) of a column; NaN where nothing is stored."""
    values, width = block.column(name), widths.get(name, 1)
    if name in widths:
        lengths = values.to_numpy() if width == 0 else arrow.compute.list_value_length(values).to_numpy()
        odd = np.flatnonzero(lengths != width)
        if width == 0 or len(odd):
            at = row + int(odd[0] if width else 0)
            message = (
                f"has a list of another length than the first one's {width}" if width else "has an empty list"
            )
            raise DataError(message, file=source, key=name, row=at, cure="store as many numbers at each step")
        values = arrow.compute.list_flatten(values)
    kind = values.type
    if arrow.types.is_temporal(kind) and not arrow.types.is_time(kind):
        if arrow.types.is_date(kind):
            values = values.cast(arrow.timestamp("ms"))
        ticks = values.cast(arrow.int64()).cast(arrow.float64(), safe=False)  # in the column's own unit
        values = arrow.compute.divide(ticks, SECOND[values.type.unit])
    elif arrow.types.is_boolean(kind):
        values = values.cast(arrow.int8())
    elif not (arrow.types.is_integer(kind) or arrow.types.is_floating(kind) or arrow.types.is_decimal(kind)):
        raise DataError(f"holds {kind}, not numbers", file=source, key=name, cure="store it as float32")
    return np.asarray(values.cast(arrow.float64(), safe=False).to_numpy(), np.float64).reshape(-1, width)


def _labels(arrow: Any, values: Any) -> npt.NDArray[Any]:
    if arrow.types.is_integer(values.type) and not values.null_count:
        return np.asarray(values.to_numpy())
    made = np.empty(len(values), object)
    made[:] = values.to_pylist()
    return made
