"""`ipd report`: a run's page and table, or the comparison of several runs, from their files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ipd.cli.options import parse, say
from ipd.runs.errors import InputError


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html of a run again and print its table; or compare many runs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """A run directory; or several, or folders with runs at any depth, for a comparison."""
    out: Path | None = None
    """Folder of the comparison (comparison.html, table.md, .csv, .tex); RUNS itself, if it is only one."""


def main(argv: list[str]) -> int:
    """Parses, writes the page or the comparison, prints the table."""
    from ipd.report import compare, compare_page, compare_read, compare_tables, page

    options = parse(Report, argv, "report")
    folders = list(dict.fromkeys(options.runs))
    if len(folders) > 1 and options.out is None:
        raise InputError("several folders are compared in one of your choice; name it with --out")
    if len(folders) == 1 and options.out is None and not compare_read.holds_runs(folders[0]):
        print_table(folders[0], page.write(folders[0]))
        return 0
    root = compare.common_folder(folders)
    found = compare.load(folders, root)
    say(compare_tables.terminal(found))
    say(f"page: {compare_page.write(found, options.out or root)}")
    return 0


def print_table(run: Path, page: Path) -> None:
    """The result of a run as a small table, and where its page is."""
    from ipd.report import read, tables

    with read.understood(run):
        say(tables.format_table(tables.final_table(run)))
    say(f"page: {page}")
