"""`ipd report`: a run's page and table from its files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ipd.cli.options import parse, say


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html of one or more runs again, and print their tables."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories."""


def main(argv: list[str]) -> int:
    """Parses, writes the pages, prints the tables."""
    from ipd.report import page

    for run in parse(Report, argv, "report").runs:
        print_table(run, page.write(run))
    return 0


def print_table(run: Path, page: Path) -> None:
    """The result of a run as a small table, and where its page is."""
    from ipd.report import tables

    say(tables.format_table(tables.final_table(run)))
    say(f"page: {page}")
