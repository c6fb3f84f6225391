"""Kept programs that cannot be used are made anew, without a word."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ipd.cli.compiled import keep_compiled

COMPILES = """
import warnings
import jax
from ipd.cli.compiled import keep_compiled
keep_compiled()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: x * 2)(21))
warnings.warn("another")
"""


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
"""


def compiles(before: str = "", **environment: Path) -> subprocess.CompletedProcess[str]:
    """A process that compiles a program, and warns of something else."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, "-c", before + COMPILES], capture_output=True, text=True,
        env=known | {"JAX_PLATFORMS": "cpu"} | {name: str(value) for name, value in environment.items()},
    )  # fmt: skip


def programs(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("jit__lambda-*")}


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_half_a_program_is_made_anew(left: float, tmp_path: Path) -> None:
    ended = compiles(XDG_CACHE_HOME=tmp_path)
    cache = tmp_path / "ipd" / "xla"
    whole = programs(cache)
    assert ended.stdout == "42\n" and len(whole) == 1
    for name, content in whole.items():
        (cache / name).write_bytes(content[: int(left * len(content))])
    again = compiles(XDG_CACHE_HOME=tmp_path)
    assert again.stdout == "42\n" and again.stderr == ended.stderr and "another" in again.stderr
    assert programs(cache).keys() == whole.keys()
    assert {len(content) for content in programs(cache).values()} == {len(c) for c in whole.values()}


def test_a_program_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    ended = compiles(FULL, XDG_CACHE_HOME=tmp_path)
    assert ended.stdout == "42\n" and "another" in ended.stderr and "Error" not in ended.stderr
    assert programs(tmp_path / "ipd" / "xla") == {}


def test_many_commands_in_one_process_have_one_layer() -> None:
    keep_compiled()
    before = warnings.showwarning
    keep_compiled()
    assert warnings.showwarning is before


def test_what_is_no_program_stays(tmp_path: Path) -> None:
    kept = tmp_path / "jit__lambda-notes.txt"
    kept.touch()
    compiles(FULL, JAX_COMPILATION_CACHE_DIR=tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_a_folder_of_the_users_own_is_used(tmp_path: Path) -> None:
    ended = compiles(JAX_COMPILATION_CACHE_DIR=tmp_path / "mine", XDG_CACHE_HOME=tmp_path / "cache")
    assert ended.stdout == "42\n" and not (tmp_path / "cache").exists()
    assert len(programs(tmp_path / "mine")) == 1


def test_a_folder_that_cannot_be_made_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = compiles(XDG_CACHE_HOME=tmp_path / "file")
    assert ended.stdout == "42\n" and "another" in ended.stderr and "Error" not in ended.stderr
