"""What can be wrong with `.npz` and Parquet files: `name -> change(random, path, outside)`."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .specimens import STEPS, arrays
from .wrong_arrays import HUGE, odd
from .wrong_files import HOSTILE, Change


def _key(draw: random.Random) -> str:
    return draw.choice(list(arrays()))


def _archive(change: Callable[[random.Random, dict[str, Any]], Any]) -> Change:
    def spoil(draw: random.Random, path: Path, outside: Path) -> None:
        given = arrays()
        change(draw, given)
        np.savez_compressed(path, **given)

    return spoil


def _member(draw: random.Random, path: Path, name: str, content: bytes) -> None:
    given = arrays() if not path.exists() else dict(np.load(path))
    given.pop(name, None)
    np.savez_compressed(path, **given)
    with zipfile.ZipFile(path, "a", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        archive.writestr(f"{name}.npy", content)


def _header(draw: random.Random, path: Path, outside: Path) -> None:
    key, text = (
        _key(draw),
        draw.choice(
            [
                f"{{'descr': '<f4', 'fortran_order': False, 'shape': {draw.choice(HUGE)}}}",
                "{'descr': 'O', 'fortran_order': False, 'shape': (60,)}",
                "{'descr': '<f4'}",
                "__import__('os').system('touch outside')",
                "(" * 5_000,
                "{'descr': [('a', 'O')], 'fortran_order': 1, 'shape': (1,)}",
                "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}",
                "{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}",
            ]
        ),
    )
    made = io.BytesIO(b"")
    made.write(b"\x93NUMPY" + bytes([draw.choice([1, 1, 1, 2, 3, 9]), 0]))
    made.write(len(text).to_bytes(2, "little") + text.encode())
    _member(draw, path, key, made.getvalue() + bytes(240))


def _long_header(draw: random.Random, path: Path, outside: Path) -> None:
    """A header of gigabytes, packed."""
    key = _key(draw)
    given = {name: value for name, value in arrays().items() if name != key}
    np.savez_compressed(path, **given)
    size = 2**30
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{key}.npy", "w", force_zip64=True) as member,
    ):
        member.write(b"\x93NUMPY\x02\x00" + size.to_bytes(4, "little"))
        for _ in range(size // 2**26):
            member.write(b" " * 2**26)


def _objects(draw: random.Random, given: dict[str, Any]) -> None:
    given[_key(draw)] = np.array([{"a": 1}] * STEPS, object)


def _odd_entry(draw: random.Random, given: dict[str, Any]) -> None:
    key = _key(draw)
    given[key] = odd(draw, given[key].reshape(STEPS, -1))


def _more(draw: random.Random, given: dict[str, Any]) -> None:
    key = draw.choice(["lengths", "final_observations", "unlogged_next", "times"])
    given[key] = odd(draw, np.arange(12.0).reshape(3, 4))


NPZ: dict[str, Change] = {
    "key dropped": _archive(lambda draw, given: given.pop(_key(draw))),
    "array changed": _archive(_odd_entry),
    "objects": _archive(_objects),
    "more keys": _archive(_more),
    "header changed": _header,
}
NPZ_BOMB: dict[str, Change] = {"long header": _long_header}


def _parquet(change: Callable[[random.Random, Any, str], Any]) -> Change:
    def spoil(draw: random.Random, path: Path, outside: Path) -> None:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        changed = change(draw, table, draw.choice(table.column_names))
        pyarrow.parquet.write_table(changed, path, compression=draw.choice(["snappy", "gzip", "none"]))

    return spoil


def _nested(draw: random.Random, table: Any, name: str) -> Any:
    import pyarrow

    rows = table.num_rows
    made = draw.choice(
        [
            pyarrow.array([{"a": 1.0}] * rows),
            pyarrow.array([[[1.0], [2.0]]] * rows),
            pyarrow.array(["x"] * rows),
            pyarrow.array([b"x"] * rows),
            pyarrow.array([None] * rows),
            pyarrow.array([[1.0, None]] * rows),
            pyarrow.array([[1.0] * (i % 3) for i in range(rows)]),
            pyarrow.array([[]] * rows, pyarrow.list_(pyarrow.float32())),
            pyarrow.array([[("k", 1.0)]] * rows, pyarrow.map_(pyarrow.string(), pyarrow.float64())),
            pyarrow.array([float("nan")] * rows),
            pyarrow.array([1e300] * rows),
            pyarrow.array([2**63] * rows, pyarrow.uint64()),
            pyarrow.array([0] * rows, pyarrow.timestamp("ns")),
            pyarrow.array([0] * rows, pyarrow.time64("us")),
            pyarrow.array(["a"] * rows).dictionary_encode(),
            pyarrow.array([1] * rows, pyarrow.decimal128(38, 37)),
            pyarrow.array([[1.0, 2.0]] * rows, pyarrow.list_(pyarrow.float32(), 2)),
            pyarrow.array([None] * rows, pyarrow.float32()),
        ]
    )
    return table.set_column(table.column_names.index(name), name, made)


def _renamed(draw: random.Random, table: Any, name: str) -> Any:
    return table.rename_columns(
        [draw.choice([*HOSTILE, "reward"]) if n == name else n for n in table.column_names]
    )


def _packed(draw: random.Random, path: Path, outside: Path) -> None:
    """Hundreds of millions of equal rows, which a dictionary holds in some kilobytes."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path).slice(0, 1)
    names = list(table.column_names)
    size = 2**22
    whole = pyarrow.table(
        {
            name: pyarrow.chunked_array([table.column(name).combine_chunks().take([0] * size)] * 1)
            for name in names
        }
    )
    with pyarrow.parquet.ParquetWriter(path, whole.schema) as writer:
        for _ in range(8):
            writer.write_table(whole, row_group_size=2**26)


PARQUET: dict[str, Change] = {
    "key dropped": _parquet(lambda draw, table, name: table.drop_columns([name])),
    "type changed": _parquet(_nested),
    "key renamed": _parquet(_renamed),
    "no row": _parquet(lambda draw, table, name: table.slice(0, 0)),
    "rows shuffled": _parquet(
        lambda draw, table, name: table.take(draw.sample(range(table.num_rows), table.num_rows))
    ),
    "doubled column": _parquet(lambda draw, table, name: table.append_column(name, table.column(name))),
}
PARQUET_BOMB: dict[str, Change] = {"bomb": _packed}
