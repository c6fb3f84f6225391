"""Options from frozen dataclasses: what tyro makes of them, with errors that end in one line."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from ipd.runs.errors import InputError

Options = TypeVar("Options")


def parse(kind: type[Options], argv: list[str], command: str, default: Options | None = None) -> Options:
    """`argv` as an instance of the dataclass `kind`; `InputError` where it cannot be understood.

    Raises `SystemExit(0)` after printing help.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = tyro.cli(kind, args=argv, prog=f"ipd {command}", default=default)
            return cast("Options", options)
    except SystemExit as exit:
        if not exit.code:
            raise
        words = [line.strip("│╭╮╰╯─ ").strip() for line in said.getvalue().splitlines()]
        told = [line for line in words if line and line not in {"Parsing error", "Unrecognized options"}]
        reason = told[0] if told else "the options could not be understood"
        raise InputError(f"{reason}; `ipd {command} --help` lists the options") from exit


def value_of(argv: list[str], option: str) -> str | None:
    """What `argv` gives for `--option`, as `--option X` or `--option=X`; the last one counts."""
    found = None
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == f"--{option}":
            found = following
        elif word.startswith(f"--{option}="):
            found = word.partition("=")[2]
    return found


def keep_compiled() -> None:
    """Lets XLA keep compiled programs between processes, in the user's cache folder."""
    import jax

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipd" / "xla"
    with contextlib.suppress(OSError):  # a home that cannot be written to costs time, not the run
        cache.mkdir(parents=True, exist_ok=True)
        update: Callable[[str, object], None] = jax.config.update
        update("jax_compilation_cache_dir", str(cache))
        update("jax_persistent_cache_min_compile_time_secs", 0.5)


def say(line: str) -> None:
    """A line of result, on stdout."""
    print(line, file=sys.stdout, flush=True)
