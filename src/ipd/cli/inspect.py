"""`ipd data check` and `ipd data describe`: the options; `ipd.cli.data` does the work."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from ipd.cli.options import parse


@dataclasses.dataclass(frozen=True)
class Data:
    """Say what a dataset holds, or what is wrong with it."""

    what: Annotated[Literal["check", "describe"], tyro.conf.Positional]
    """`check` looks for mistakes, `describe` sums up."""
    source: Annotated[str, tyro.conf.Positional]
    """A D4RL .hdf5, an .npz, or bundled:hopper-medium-replay."""
    env: str | None = None
    """Task to check sizes and action bounds against."""


def main(argv: list[str]) -> int:
    """Parses, prints; returns 0, or 2 where the data cannot be used."""
    options = parse(Data, argv, "data")
    from ipd.cli import data

    work = data.check if options.what == "check" else data.describe
    return work(options.source, options.env)
