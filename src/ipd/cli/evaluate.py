"""`ipd evaluate`: a run's finished policies in the real task, once more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Try a run's finished policies again; nothing is trained."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run's directory."""
    episodes: int | None = None
    """Episodes of each finished policy and seed; without it as many as the run says."""


def main(argv: list[str]) -> int:
    """Parses, evaluates, prints the table."""
    options = parse(Evaluate, argv, "evaluate")
    keep_compiled()
    from ipd.cli.report import print_table
    from ipd.runs.opened import evaluate

    print_table(options.run, evaluate(options.run, options.episodes))
    return 0
