"""`python injected.py FOLDER SEEN KIND EVERY ipd-arguments...`: the command line with faults.

Every place where a file below FOLDER is opened to be written, written, synced, renamed or deleted, and
every call into HDF5 that writes is a point (file name without numbers, what was done). EVERY n takes one
in n of them. At the first point that SEEN (a file of them, one a line) does not list, the point is added
to it and the fault happens: KIND kill is SIGKILL, after half of what was to be written; KIND full is the
error of a full disk. Without a new point the command ends as ever.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import signal
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py

FOLDER, SEEN, KIND, EVERY = Path(sys.argv[1]).absolute(), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
_open, _os_open, _fsync = builtins.open, os.open, os.fsync
seen = set(SEEN.read_text().splitlines()) if SEEN.exists() else set()


def point(path: Any, what: str, before: Callable[[], object] = lambda: None) -> None:
    """A place where a fault may happen; `before` is done just before it."""
    path = Path(os.fsdecode(path)).absolute()
    if not path.is_relative_to(FOLDER) or path.name == "lock":
        return
    name = f"{re.sub(r'[0-9]+', 'N', path.relative_to(FOLDER).as_posix())} {what}"
    if name in seen or zlib.crc32(f"{KIND} {name}".encode()) % EVERY:
        return
    seen.add(name)
    descriptor = _os_open(SEEN, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (name + "\n").encode())
    os.close(descriptor)
    before()
    if KIND == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


class Watched:
    """A file open for writing."""

    def __init__(self, file: Any, path: Any) -> None:
        self._file, self._path = file, path

    def write(self, content: Any) -> Any:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        point(self._path, "write", half)
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def opened(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
    if isinstance(path, int) or not set(mode) & set("wax+"):
        return _open(path, mode, *rest, **named)
    point(path, "open")
    return Watched(_open(path, mode, *rest, **named), path)


def synced(descriptor: int) -> None:
    point(os.readlink(f"/proc/self/fd/{descriptor}"), "sync")
    _fsync(descriptor)


def around(module: Any, name: str, path: Callable[..., Any]) -> None:
    """A point before and one after each call of `module.name`."""
    real = getattr(module, name)

    def call(*arguments: Any, **named: Any) -> Any:
        point(path(*arguments), f"before {name}")
        result = real(*arguments, **named)
        point(path(*arguments), f"after {name}")
        return result

    setattr(module, name, call)


builtins.open = io.open = opened  # type: ignore[assignment]
os.fsync = synced
for function in ("replace", "rename"):
    around(os, function, lambda _, target, **__: target)
for function in ("unlink", "remove", "mkdir"):
    around(os, function, lambda path, *_, **__: path)
around(h5py.File, "create_group", lambda group, *_: group.file.filename)
around(h5py.Group, "create_dataset", lambda group, *_, **__: group.file.filename)
around(h5py.Dataset, "__setitem__", lambda data, *_: data.file.filename)

if __name__ == "__main__":
    from ipd.cli import main

    raise SystemExit(main(sys.argv[5:]))
