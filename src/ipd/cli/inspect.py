"""`ipd data check`, `describe` and `convert`: the options; `ipd.cli.data` does the work."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from ipd.cli.options import parse
from ipd.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Data:
    """Say what a dataset holds or what is wrong with it, or write it as another kind of file."""

    what: Annotated[Literal["check", "describe", "convert"], tyro.conf.Positional]
    """`check` looks for mistakes, `describe` sums up, `convert` writes a copy."""
    source: Annotated[str, tyro.conf.Positional]
    """A D4RL .hdf5, an .npz, .parquet or .csv, a folder of Minari or LeRobot, minari:ID or bundled:NAME."""
    env: str | None = None
    """Task to check sizes and action bounds against."""
    columns: str | None = None
    """YAML file that says what the columns of a table are; without one SOURCE.columns.yaml, or a guess."""
    to: str | None = None
    """What `convert` writes: a .hdf5 or .parquet file, or a folder of Minari."""


def main(argv: list[str]) -> int:
    """Parses, prints; returns 0, or 2 where the data cannot be used."""
    options = parse(Data, argv, "data")
    from ipd.cli import data

    if (options.what == "convert") != (options.to is not None):
        raise InputError("--to: `ipd data convert SOURCE --to TARGET` needs it, and nothing else does")
    if options.to is not None:
        return data.convert(options.source, options.to, options.env, options.columns)
    work = data.check if options.what == "check" else data.describe
    return work(options.source, options.env, options.columns)
