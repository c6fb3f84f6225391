"""What can be wrong with arrays and with the files that hold them: `name -> change(random, path, outside)`."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .specimens import STEPS, arrays
from .wrong_files import HOSTILE, Change

HUGE = [
    (2**40, 2**10),
    (2**62,),
    (2**20, 2**20),
    (2**31, 3),
    (5 * 10**8, 2),
    (60, 2**31),
    (0, 5),
    (60, 0),
    (2**63 - 1,),
]


def odd(draw: random.Random, value: np.ndarray[Any, Any]) -> Any:
    """An array of another shape, type, stride or content."""
    whole = value.astype(np.float64)
    spoiled = whole.copy()
    spoiled[(draw.randrange(len(whole)), *(0,) * (whole.ndim - 1))] = draw.choice(
        [np.nan, np.inf, -np.inf, 1e300, 2]
    )
    return draw.choice([
        spoiled, whole.reshape(-1), whole[:, None], whole[:-1], whole[:0], whole[::-1], whole[::2], whole.T,
        np.asfortranarray(whole), np.zeros(()), np.zeros((0, 0)), np.zeros((60,) + (1,) * 20), whole.astype(">f8"),
        whole.astype(np.float16), whole.astype(np.complex64), whole.astype("S8"), whole.astype("U8"), whole.astype("M8[s]"),
        whole.astype(np.int8), whole.astype(np.uint64), whole != 0, np.full(whole.shape, 7), np.full(whole.shape, -1),
        np.zeros(whole.shape, [("a", "f4"), ("b", "S3")]), np.zeros(whole.shape, "V5"), np.broadcast_to(whole[:1], whole.shape),
    ])  # fmt: skip


def _key(draw: random.Random) -> str:
    return draw.choice(list(arrays()))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    with h5py.File(path, "r+") as file:
        yield file


def _datasets(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def _in_place(change: Callable[[random.Random, h5py.File, str, Any, Path], None]) -> Change:
    """One dataset of an HDF5 file, deleted and given its name again by `change(draw, file, name, old, outside)`."""

    def spoil(draw: random.Random, path: Path, outside: Path) -> None:
        with _opened(path) as file:
            name = draw.choice(_datasets(file))
            old = file[name][()]
            del file[name]
            change(draw, file, name, old, outside)

    return spoil


def _external(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    with h5py.File(outside / "other.hdf5", "w") as other:
        other["x"] = old
    file[name] = h5py.ExternalLink(
        draw.choice([str(outside / "other.hdf5"), "absent.hdf5", "/dev/zero"]), "/x"
    )


def _soft(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    file[name] = h5py.SoftLink(draw.choice([f"/{name}", "/rewards", "/", "..", "absent"]))


def _storage(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    (outside / "raw").write_bytes(np.asarray(old).tobytes())
    where = draw.choice([str(outside / "raw"), str(outside / "absent"), "/dev/zero", "/etc/passwd"])
    file.create_dataset(name, old.shape, old.dtype, external=[(where, 0, h5py.h5f.UNLIMITED)])


def _virtual(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    with h5py.File(outside / "other.hdf5", "w") as other:
        other["x"] = old
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    where = draw.choice([str(outside / "other.hdf5"), ".", "absent.hdf5"])
    layout[...] = h5py.VirtualSource(where, name if where == "." else "x", old.shape)
    file.create_virtual_dataset(name, layout)


def _huge(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    shape = draw.choice(HUGE)
    layout = draw.choice(["contiguous", "chunked", "one chunk"])
    chunks = tuple(min(size, 64) or 1 for size in shape) if layout == "chunked" else None
    if layout == "one chunk":
        shape = (60,) + old.shape[1:]
        chunks = (2**29, *shape[1:])
    more = {"maxshape": (None,) * len(shape), "chunks": chunks, "compression": "gzip"} if chunks else {}
    file.create_dataset(name, shape, draw.choice(["f4", "f8", "i1"]), **more)


def _kinds(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    kind = draw.choice([
        h5py.string_dtype(), h5py.vlen_dtype("f4"), h5py.ref_dtype, h5py.regionref_dtype, h5py.enum_dtype({"a": 1}),
        np.dtype(("f4", (3,))), np.dtype([("a", "f4")]), np.dtype("V7"), np.dtype("f2"), np.dtype(">i8"), np.dtype("c16"),
    ])  # fmt: skip
    if draw.random() < 0.2:
        file.create_dataset(name, data=h5py.Empty("f4"))
    else:
        file.create_dataset(name, old.shape, kind)


def _odd_array(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    value = odd(draw, np.asarray(old).reshape(len(old), -1) if np.ndim(old) else np.zeros((3, 2)))
    kind = value.dtype.kind
    file[name] = value.astype("f4") if kind == "M" else value.astype("S8") if kind == "U" else value


def _group(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    """A group in place of an array: empty, in a circle, or with 2^40 ways through it."""
    group = file.create_group(name)
    how = draw.choice(["empty", "circle", "ladder", "deep"])
    if how == "circle":
        group["again"] = group
    elif how == "deep":
        for _ in range(2_000):
            group = group.create_group("g")
    elif how == "ladder":
        for _ in range(40):
            after = group.create_group("a")
            group["b"] = group = after
        group["end"] = old


def _attributes(draw: random.Random, path: Path, outside: Path) -> None:
    values = [
        h5py.Empty("f4"),
        np.zeros(3),
        np.array([b"a", b"b"]),
        2**63,
        "[" * 50_000,
        '["a"]',
        "[1, 2]",
        b"\xff",
        *HOSTILE,
    ]
    with _opened(path) as file:
        name = draw.choice(["task", "observation_names", "action_names", "recipe"])
        value = draw.choice(values)
        if isinstance(value, str):
            value = value.replace("\x00", "")[:50_000]
        file.attrs[name] = value


def _many_attributes(draw: random.Random, path: Path, outside: Path) -> None:
    with _opened(path) as file:
        for number in range(3_000):
            file.attrs[f"a{number}"] = number


def _bomb(draw: random.Random, path: Path, outside: Path) -> None:
    """Zeros, packed a thousand times, that would take gigabytes."""
    rows = draw.choice([200_000_000, 2_000_000_000])
    with h5py.File(path, "w") as file:
        chunk = 2**22
        kept = file.create_dataset("x", (chunk,), "i1", chunks=(chunk,), compression="gzip")
        kept[:] = 0
        _, packed = kept.id.read_direct_chunk((0,))
        del file["x"]
        for key, width in {"observations": 2, "actions": 1, "rewards": 0, "terminals": 0}.items():
            shape, chunks = ((rows, width), (chunk // width, width)) if width else ((rows,), (chunk,))
            made = file.create_dataset(key, shape, "i1", chunks=chunks, compression="gzip")
            for at in range(0, rows, chunks[0] * (1 if rows < 10**9 else 8)):
                made.id.write_direct_chunk((at, 0)[: made.ndim], packed)


def _hidden_name(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    file[draw.choice([word.replace("\x00", "").replace("/", "_")[:60_000] or "x" for word in HOSTILE])] = old


HDF5: dict[str, Change] = {
    "key dropped": _in_place(lambda *_: None),
    "key renamed": _in_place(_hidden_name),
    "array changed": _in_place(_odd_array),
    "type changed": _in_place(_kinds),
    "terabytes claimed": _in_place(_huge),
    "external link": _in_place(_external),
    "soft link": _in_place(_soft),
    "external storage": _in_place(_storage),
    "virtual dataset": _in_place(_virtual),
    "a group": _in_place(_group),
    "attribute changed": _attributes,
    "many attributes": _many_attributes,
}
BOMB: dict[str, Change] = {"bomb": _bomb}


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
    key, text = _key(draw), draw.choice([
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': {draw.choice(HUGE)}}}", "{'descr': 'O', 'fortran_order': False, 'shape': (60,)}",
        "{'descr': '<f4'}", "__import__('os').system('touch outside')", "(" * 5_000, "{'descr': [('a', 'O')], 'fortran_order': 1, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}", "{'descr': '<f4', 'fortran_order': False, 'shape': ('a',)}",
    ])  # fmt: skip
    made = io.BytesIO(b"")
    made.write(b"\x93NUMPY" + bytes([draw.choice([1, 1, 1, 2, 3, 9]), 0]))
    made.write(len(text).to_bytes(2, "little") + text.encode())
    _member(draw, path, key, made.getvalue() + bytes(240))


def _long_header(draw: random.Random, path: Path, outside: Path) -> None:
    """A header of gigabytes, packed."""
    key = _key(draw)
    given = {name: value for name, value in arrays().items() if name != key}
    np.savez_compressed(path, **given)
    size = 2**31 + 2**28
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
    made = draw.choice([
        pyarrow.array([{"a": 1.0}] * rows), pyarrow.array([[[1.0], [2.0]]] * rows), pyarrow.array(["x"] * rows),
        pyarrow.array([b"x"] * rows), pyarrow.array([None] * rows), pyarrow.array([[1.0, None]] * rows),
        pyarrow.array([[1.0] * (i % 3) for i in range(rows)]), pyarrow.array([[]] * rows, pyarrow.list_(pyarrow.float32())),
        pyarrow.array([[("k", 1.0)]] * rows, pyarrow.map_(pyarrow.string(), pyarrow.float64())),
        pyarrow.array([float("nan")] * rows), pyarrow.array([1e300] * rows), pyarrow.array([2**63] * rows, pyarrow.uint64()),
        pyarrow.array([0] * rows, pyarrow.timestamp("ns")), pyarrow.array([0] * rows, pyarrow.time64("us")),
        pyarrow.array(["a"] * rows).dictionary_encode(), pyarrow.array([1] * rows, pyarrow.decimal128(38, 37)),
        pyarrow.array([[1.0, 2.0]] * rows, pyarrow.list_(pyarrow.float32(), 2)), pyarrow.array([None] * rows, pyarrow.float32()),
    ])  # fmt: skip
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
    names = [name for name in table.column_names]
    size, count = 2**22, 64
    whole = pyarrow.table(
        {
            name: pyarrow.chunked_array([table.column(name).combine_chunks().take([0] * size)] * 1)
            for name in names
        }
    )
    with pyarrow.parquet.ParquetWriter(path, whole.schema) as writer:
        for _ in range(draw.choice([8, count])):
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
