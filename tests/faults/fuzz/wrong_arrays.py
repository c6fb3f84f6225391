"""What can be wrong with an array and with an HDF5 file: `name -> change(random, path, outside)`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

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
    return draw.choice(
        [
            spoiled,
            whole.reshape(-1),
            whole[:, None],
            whole[:-1],
            whole[:0],
            whole[::-1],
            whole[::2],
            whole.T,
            np.asfortranarray(whole),
            np.zeros(()),
            np.zeros((0, 0)),
            np.zeros((60,) + (1,) * 20),
            whole.astype(">f8"),
            whole.astype(np.float16),
            whole.astype(np.complex64),
            whole.astype("S8"),
            whole.astype("U8"),
            whole.astype("M8[s]"),
            whole.astype(np.int8),
            whole.astype(np.uint64),
            whole != 0,
            np.full(whole.shape, 7),
            np.full(whole.shape, -1),
            np.zeros(whole.shape, [("a", "f4"), ("b", "S3")]),
            np.zeros(whole.shape, "V5"),
            np.broadcast_to(whole[:1], whole.shape),
        ]
    )


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    with h5py.File(path, "r+") as file:
        yield file


def _datasets(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def _in_place(change: Callable[[random.Random, h5py.File, str, Any, Path], None]) -> Change:
    """One dataset of an HDF5 file, deleted and named again by `change(draw, file, name, old, outside)`."""

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
        shape = (60, *old.shape[1:])
        chunks = (2**29, *shape[1:])
    more = {"maxshape": (None,) * len(shape), "chunks": chunks, "compression": "gzip"} if chunks else {}
    file.create_dataset(name, shape, draw.choice(["f4", "f8", "i1"]), **more)


def _kinds(draw: random.Random, file: h5py.File, name: str, old: Any, outside: Path) -> None:
    kind = draw.choice(
        [
            h5py.string_dtype(),
            h5py.vlen_dtype("f4"),
            h5py.ref_dtype,
            h5py.regionref_dtype,
            h5py.enum_dtype({"a": 1}),
            np.dtype(("f4", (3,))),
            np.dtype([("a", "f4")]),
            np.dtype("V7"),
            np.dtype("f2"),
            np.dtype(">i8"),
            np.dtype("c16"),
        ]
    )
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
