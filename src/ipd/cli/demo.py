"""`ipd demo`: the whole method on the data that come with the package."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ipd.cli.compiled import keep_compiled
from ipd.cli.options import parse

DATA, TASK = "bundled:hopper-medium-replay", "Hopper-v4"


@dataclasses.dataclass(frozen=True)
class Demo:
    """Every stage of the method on real Hopper data, ending with a table and a page."""

    out: Path = Path("demo")
    """The run's directory."""
    seeds: int = 2
    """How many seeds; they train side by side."""


def main(argv: list[str]) -> int:
    """Parses, trains, prints the table."""
    options = parse(Demo, argv, "demo")
    keep_compiled()
    from ipd.cli.report import print_table
    from ipd.presets import with_task
    from ipd.runs.rundir import Job
    from ipd.runs.stages import execute

    job = Job(DATA, TASK, tuple(range(options.seeds)), with_task("demo", TASK, DATA))
    print_table(options.out, execute(options.out, job))
    return 0
