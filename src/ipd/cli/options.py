"""Options from frozen dataclasses: what tyro makes of them, with errors that end in one line."""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
from typing import TypeVar

from ipd.runs.errors import InputError

Options = TypeVar("Options")


def parse(kind: type[Options], argv: list[str], command: str) -> Options:
    """`argv` as an instance of the dataclass `kind`; `InputError` where it cannot be understood.

    Raises `SystemExit(0)` after printing help.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=argv, prog=f"ipd {command}")
    except SystemExit as exit:
        if not exit.code:
            raise
        raise InputError(f"{_gist(said.getvalue())}; `ipd {command} --help` lists the options") from exit


def _gist(box: str) -> str:
    """What tyro says in the first part of a framed message, on one line."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    after_title = [line for line in lines if line][1:]
    while after_title and not after_title[0].strip("─-"):
        after_title.pop(0)
    return " ".join(itertools.takewhile(lambda line: line.strip("─-"), after_title)) or "not understood"


def value_of(argv: list[str], option: str) -> str | None:
    """What `argv` gives for `--option`, as `--option X` or `--option=X`; the last one counts."""
    found = None
    for word, following in zip(argv, [*argv[1:], None], strict=True):
        if word == f"--{option}":
            found = following
        elif word.startswith(f"--{option}="):
            found = word.partition("=")[2]
    return found


def say(line: str) -> None:
    """A line of result, on stdout."""
    print(line, file=sys.stdout, flush=True)
