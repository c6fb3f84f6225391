"""On a disk that cannot be written to: exit 1, one line that says so, and not a byte changed."""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipd.cli import main

from .conftest import OPTIONS


@pytest.fixture(scope="module")
def disk(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and the same before its policy was finished."""
    folder = tmp_path_factory.mktemp("disk")
    shutil.copytree(finished, folder / "run")
    shutil.copytree(finished, folder / "half")
    (folder / "half" / "stages" / "policy" / "done.json").unlink()
    return folder


@pytest.fixture
def read_only(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`disk`, which answers as a read-only one does; permissions would not stop the superuser."""

    def refuse(path: Any) -> None:
        if not isinstance(path, int) and Path(os.fsdecode(path)).absolute().is_relative_to(disk):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))

    def instead(module: Any, name: str, writes: Callable[..., bool] = lambda *_, **__: True) -> None:
        real = getattr(module, name)

        def call(*given: Any, **named: Any) -> Any:
            if writes(*given[1:], **named):
                refuse(given[1] if name in ("replace", "rename") else given[0])
            return real(*given, **named)

        monkeypatch.setattr(module, name, call)

    for module in (builtins, io):
        instead(module, "open", lambda mode="r", *_, **__: bool(set(mode) & set("wax+")))
    instead(os, "open", lambda flags, *_, **__: bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
    for name in ("mkdir", "rmdir", "unlink", "remove", "replace", "rename"):
        instead(os, name)
    return disk


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.stat() for path in folder.rglob("*")}
    return {str(path): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--data", "DATA", "--out", "DISK/half", *OPTIONS], "finished: value, world"),
        (["train", "--data", "DATA", "--out", "DISK/new", *OPTIONS], "DISK/new: "),
        (["augment", "--data", "DATA", "--out", "DISK/new", "--to", "x.hdf5"], "DISK/new"),
        (["evaluate", "DISK/run", "--episodes", "1"], "finished: "),
        (["audit", "DISK/run"], "finished: "),
        (["judge", "DISK/run"], "finished: "),
        (["report", "DISK/run"], "DISK/run/"),
        (["log", "DISK/run"], "/tensorboard: "),
        (["export", "DISK/run"], "DISK/run/"),
        (["sweep", "table1", "--out", "DISK/new", "--preset", "tiny"], "DISK/new"),
        (["collect", "--env", "Hopper-v4", "--out", "DISK/new.hdf5"], "DISK/new.hdf5"),
        (["data", "convert", "DATA", "--to", "DISK/new.parquet"], "DISK/new.parquet: "),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_folder_that_cannot_be_written_to_is_told_and_left_alone(
    words: list[str], says: str, small: Path, read_only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(read_only)
    given = [word.replace("DISK", str(read_only)).replace("DATA", str(small)) for word in words]
    assert main(given) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "Read-only file system" in last and says.replace("DISK", str(read_only)) in last
    assert contents(read_only) == before
